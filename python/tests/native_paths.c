/* Functions that allocate, reached by several ways. */
#include <stdlib.h>

static void *kept[4096];
static int count;

static inline __attribute__((always_inline)) void *inner(size_t size) { return malloc(size); }
static inline __attribute__((always_inline)) void *outer(size_t size) { return inner(size + 1); }

__attribute__((noinline)) static void keep(void *block) { kept[count++ & 4095] = block; }

/* What comes after a call keeps the caller's frame. */
#define AND_BACK __asm__ volatile("" ::: "memory")

__attribute__((noinline)) void by_the_left(size_t size) { keep(malloc(size)); AND_BACK; }
__attribute__((noinline)) void by_the_right(size_t size) { keep(outer(size)); AND_BACK; }

__attribute__((noinline)) void down(int depth, size_t size)
{
    if (depth > 0) {
        down(depth - 1, size);
    } else {
        by_the_left(size);
        by_the_right(size);
    }
    AND_BACK;
}

void any_way(int way, size_t size)
{
    if (way == 0)
        by_the_left(size);
    else if (way == 1)
        by_the_right(size);
    else
        down(way, size);
    AND_BACK;
}

void fleeting(size_t size)
{
    void *block = malloc(size);
    __asm__ volatile("" : : "r"(block) : "memory");
    free(block);
    AND_BACK;
}

void call_back(void (*function)(int), int number) { function(number); AND_BACK; }

/* A profile function, in which nothing happens. */
int profile(void *object, void *frame, int what, void *argument) {
    (void)object, (void)frame, (void)what, (void)argument;
    return 0;
}
