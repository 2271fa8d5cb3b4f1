/* Libraries that are alike but for the names of their functions. `NAME` is one name, so that two of them have the same code at the
 * same places. */
#include <stddef.h>
#include <stdlib.h>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define FUNCTION __attribute__((noipa, visibility("default")))
#define KEPT(call) ({ __typeof__(call) kept_ = (call); __asm__ volatile("" : "+r"(kept_) : : "memory"); kept_; })

#if PADDING
/* Moves the functions behind it. */
FUNCTION void padding(int number) { for (volatile int i = 0; i < number; i++); }
#endif

FUNCTION void *JOIN(NAME, _inner)(size_t size) {
    return KEPT(malloc(size)); /* AT:comes_inner */
}
/* Those that have one name in all of them. */
FUNCTION void *nt_work(size_t size) {
    return KEPT(JOIN(NAME, _inner)(size)); /* AT:comes_work */
}
FUNCTION void *JOIN(NAME, _outer)(size_t size) {
    return KEPT(nt_work(size)); /* AT:comes_outer */
}
FUNCTION void *nt_enter(size_t size) {
    return KEPT(JOIN(NAME, _outer)(size)); /* AT:comes_enter */
}
