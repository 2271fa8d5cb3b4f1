// Each mark is a symbol at an address whose functions and lines the tests know.
#define MARK(name) asm volatile(".globl " #name "\n" #name ": nop")

namespace space {
template <typename T> struct Boxed {
    T value;
    __attribute__((always_inline)) inline T grow(T by) {
        MARK(mark_grow); // line: grow
        return value * by;
    }
};

__attribute__((always_inline)) inline long middle(Boxed<long> &box, long by) {
    return box.grow(by) + 1; // line: middle
}
} // namespace space

extern "C" __attribute__((noinline)) long outer(long by) {
    space::Boxed<long> box{by};
    return space::middle(box, by); // line: outer
}

namespace space {
__attribute__((noinline)) void plain(int, const char *) {
    MARK(mark_plain); // line: plain
}
} // namespace space

// DWARF has no linkage name for what other files cannot see, hence no parameters.
static __attribute__((noinline, used)) void hidden() {
    MARK(mark_hidden); // line: hidden
}

extern "C" void call_hidden() { hidden(); }

// Assembler: a function without a size, and no line.
asm(".globl bare\n"
    "bare:\n"
    "nop\nnop\nret\n");
