// Exceptions through frames that are on recorded stacks.
#include <cstdlib>
#include <stdexcept>

#define FUNCTION extern "C" __attribute__((noipa, visibility("default")))

static inline void *kept(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

FUNCTION void *nt_cpp_leaf(std::size_t size) {
    return kept(std::malloc(size)); // AT:cpp_leaf
}
struct Guard {
    std::size_t size;
    explicit Guard(std::size_t size) : size(size) {}
    ~Guard();
};
FUNCTION void nt_cleanup(std::size_t size) {
    kept(nt_cpp_leaf(size)); // AT:cleanup
}
__attribute__((noipa)) Guard::~Guard() {
    nt_cleanup(size);
    __asm__ volatile("" : : : "memory");
}
FUNCTION void nt_thrower(std::size_t size, int depth) {
    Guard guard(size);
    if (depth) nt_thrower(size, depth - 1); // AT:thrower
    else {
        kept(nt_cpp_leaf(size)); // AT:throws
        throw std::runtime_error("on purpose");
    }
}
FUNCTION void nt_catcher(std::size_t size, int depth) {
    try {
        nt_thrower(size, depth); // AT:tries
    } catch (const std::exception &) {
        kept(nt_cpp_leaf(size)); // AT:catches
    }
    kept(nt_cpp_leaf(size)); // AT:caught
}
