#include <cstdlib>
#include <vector>
#include <string>
#include <map>
extern "C" void *last;
void *last;
namespace shapes {
template <typename T> struct Pool {
    std::vector<T *> blocks;
    inline T *take(std::size_t n) {
        T *p = static_cast<T *>(std::malloc(n * sizeof(T)));
        blocks.push_back(p);
        return p;
    }
};
static inline double *fill(Pool<double> &pool, std::size_t n) {
    double *p = pool.take(n);
    for (std::size_t i = 0; i < n; i++) p[i] = double(i);
    return p;
}
struct Tree {
    std::map<std::string, std::vector<int>> children;
    __attribute__((noinline)) void grow(int depth) {
        children["a name that is longer than what fits " + std::to_string(depth)].resize(1000 + depth);
        if (depth > 0) grow(depth - 1);
    }
};
}
static __attribute__((noinline)) void *hidden(std::size_t n) { return last = std::malloc(n); }
extern "C" void work(int n) {
    shapes::Pool<double> pool;
    for (int i = 0; i < n; i++) last = shapes::fill(pool, 100 + i);
    shapes::Tree tree;
    tree.grow(3);
    auto lambda = [&](int k) { return hidden(k * 100); };
    lambda(n);
    auto *never_freed = new std::vector<std::string>(50, "text that is so long that it is on the heap");
    last = never_freed;
}
