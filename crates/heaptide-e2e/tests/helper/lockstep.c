/* Threads that allocate one at a time, in an order that a seed gives: what every recorder must find is known to the byte.
 * They share their blocks, so that most are freed by another thread than made them. Every event goes into a log.
 * Built with -O1 -fno-builtin, as helper.c. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u
#define BLOCKS 256
#define REGIONS 24
#define MOST_PAGES 64

/* What is in the log: the numbers that heaptide's format has for these. */
enum { FREE = 5, MALLOC, REALLOC, CALLOC, POSIX_MEMALIGN, ALIGNED_ALLOC, MEMALIGN, VALLOC, PVALLOC, MMAP, UNMAP };

struct event {
    uint64_t thread, kind, address, size;
};
struct region {
    char *start;
    uint64_t pages; /* a bit for each page that is mapped and ours */
};
struct lockstep {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int threads, arrived, turn, left;
    uint64_t random, steps, events, room;
    struct event *log;
    void *blocks[BLOCKS];
    struct region regions[REGIONS];
};
static struct lockstep all = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

static uint64_t next_random(void) {
    all.random ^= all.random << 13;
    all.random ^= all.random >> 7;
    all.random ^= all.random << 17;
    return all.random * 0x2545F4914F6CDD1Du >> 8;
}
static uint64_t below(uint64_t limit) { return next_random() % limit; }

static void note(uint64_t kind, const void *address, uint64_t size) {
    if (all.events == all.room) abort();
    all.log[all.events++] = (struct event){(uint64_t)syscall(SYS_gettid), kind, (uint64_t)address, size};
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------ */

static uint64_t some_size(void) {
    switch (below(16)) {
    case 0: return below(4); /* often zero */
    case 1: return 1 + below(300000);
    case 2: return 100000 + below(50000); /* around the threshold from which the C library maps */
    default: return 1 + below(2000);
    }
}
static void *allocate(void) {
    uint64_t size = some_size(), kind = MALLOC + below(12);
    void *block = NULL;
    switch (kind) {
    case CALLOC: block = calloc(1, size); break;
    case POSIX_MEMALIGN: if (posix_memalign(&block, 64, size)) abort(); break;
    case ALIGNED_ALLOC: block = aligned_alloc(64, size); break;
    case MEMALIGN: block = memalign(256, size); break;
    case VALLOC: block = valloc(size); break;
    case PVALLOC: block = pvalloc(size); break;
    case REALLOC: block = below(2) ? realloc(NULL, size) : reallocarray(NULL, 1, size); break;
    default: kind = MALLOC, block = malloc(size);
    }
    if (!block) abort();
    note(kind, block, size);
    return block;
}
static void *reallocate(void *block) {
    static volatile size_t absurd = SIZE_MAX / 2, root = (size_t)1 << 32;
    uint64_t size = some_size();
    switch (below(8)) {
    case 0: if (realloc(block, absurd)) abort(); return block;
    /* The product is zero in 64 bits, and yet nothing is freed */
    case 1: if (reallocarray(block, root, root)) abort(); return block;
    }
    note(FREE, block, 0);
    block = realloc(block, size);
    if (block) note(REALLOC, block, size);
    else if (size) abort();
    return block;
}
static void step_blocks(void) {
    void **block = &all.blocks[below(BLOCKS)];
    if (!*block) *block = allocate();
    else if (below(3) == 0) *block = reallocate(*block);
    else {
        note(FREE, *block, 0);
        free(*block);
        *block = NULL;
    }
}

/* ---- mappings ------------------------------------------------------------------------------------------------------------ */

static uint64_t bits(uint64_t from, uint64_t count) {
    return (count == 64 ? ~(uint64_t)0 : ((uint64_t)1 << count) - 1) << from;
}
/* Some pages of a region that are all mapped. Returns their number. */
static uint64_t some_run(const struct region *region, uint64_t *from, uint64_t most) {
    uint64_t at = below(MOST_PAGES);
    while (!(region->pages >> at & 1)) at = (at + 1) % MOST_PAGES;
    while (below(3) && at > 0 && region->pages >> (at - 1) & 1) at--;
    uint64_t count = 1;
    while (count < most && below(8) && at + count < MOST_PAGES && region->pages >> (at + count) & 1) count++;
    *from = at;
    return count;
}
/* A length that the kernel rounds up to so many pages. */
static uint64_t some_length(uint64_t pages) { return pages * PAGE - (below(3) ? 0 : below(PAGE)); }

static struct region *empty_region(void) {
    for (int i = 0; i < REGIONS; i++)
        if (!all.regions[i].pages) return &all.regions[i];
    return NULL;
}
static void put_region(struct region *region, void *start, uint64_t pages) {
    region->start = start;
    region->pages = bits(0, pages);
}
/* Those that fail: nothing may come of them. */
static void failing_calls(char *start, uint64_t pages) {
    int wrong = munmap(start + 1, PAGE) == 0;
    wrong += munmap(start, 0) == 0;
    wrong += mmap(start, 0, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
    wrong += mremap(start, pages * PAGE, 0, MREMAP_MAYMOVE) != MAP_FAILED;
    wrong += mremap(start, pages * PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, start) != MAP_FAILED;
    /* No room where it is, and it may not move */
    wrong += mremap(start, pages * PAGE, (size_t)1 << 46, 0) != MAP_FAILED;
    if (wrong) abort();
}
static void step_mappings(void) {
    struct region *region = &all.regions[below(REGIONS)];
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint64_t from, count, length;
    if (!region->pages) {
        count = 1 + below(MOST_PAGES);
        length = some_length(count);
        void *start = mmap(NULL, length, protection, flags, -1, 0);
        if (start == MAP_FAILED) abort();
        note(MMAP, start, length);
        put_region(region, start, count);
        return;
    }
    uint64_t choice = below(8);
    /* What may fail is kept small: a call over many mappings that fails cannot be taken back */
    count = some_run(region, &from, choice < 4 && choice != 1 ? 8 : MOST_PAGES);
    length = some_length(count);
    char *start = region->start + from * PAGE;
    struct region *other = empty_region();
    switch (choice) {
    case 0: failing_calls(start, count); break;
    case 1: /* another mapping takes the place of these pages */
        if (mmap(start, length, protection, flags | MAP_FIXED, -1, 0) != start) abort();
        note(UNMAP, start, count * PAGE);
        note(MMAP, start, length);
        break;
    case 2: /* they grow, shrink or move; the kernel refuses runs that are no single mapping */
    case 3:
        if (other) {
            uint64_t pages = 1 + below(MOST_PAGES), bytes = some_length(pages);
            void *moved = mremap(start, length, bytes, MREMAP_MAYMOVE);
            if (moved == MAP_FAILED) break;
            note(UNMAP, start, count * PAGE);
            note(MMAP, moved, bytes);
            region->pages &= ~bits(from, count);
            put_region(other, moved, pages);
        }
        break;
    case 4: /* they move onto pages of another region */
        other = &all.regions[below(REGIONS)];
        if (other != region && other->pages) {
            uint64_t at, pages = some_run(other, &at, MOST_PAGES), bytes = some_length(pages);
            char *place = other->start + at * PAGE;
            /* One page, since the kernel refuses several mappings only after it has unmapped the place */
            if (mremap(start, PAGE, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) != place) abort();
            note(UNMAP, start, PAGE);
            note(UNMAP, place, pages * PAGE);
            note(MMAP, place, bytes);
            region->pages &= ~bits(from, 1);
        }
        break;
    default:
        if (munmap(start, length)) abort();
        note(UNMAP, start, count * PAGE);
        region->pages &= ~bits(from, count);
    }
}

/* ---- the order ------------------------------------------------------------------------------------------------------------ */

/* Gets ready for so many threads; the log has room for `room` events. */
void ht_lockstep_prepare(int threads, uint64_t seed, uint64_t steps, struct event *log, uint64_t room) {
    all.threads = threads, all.random = seed * 0x9E3779B97F4A7C15u + 1, all.steps = steps, all.log = log, all.room = room;
}
/* The end, so that the peak is not there: a quarter of the blocks stays, with all mappings. */
static void free_most(void) {
    for (int i = 0; i < BLOCKS; i++) {
        if (i % 4 == 0 || !all.blocks[i]) continue;
        note(FREE, all.blocks[i], 0);
        free(all.blocks[i]);
        all.blocks[i] = NULL;
    }
}
/* Takes part as thread `number`. Nobody begins before all are there, and nobody leaves before all are done. */
void ht_lockstep(int number) {
    pthread_mutex_lock(&all.lock);
    if (++all.arrived == all.threads) pthread_cond_broadcast(&all.moved);
    while (all.arrived < all.threads) pthread_cond_wait(&all.moved, &all.lock);
    while (all.steps) {
        if (all.turn != number) {
            pthread_cond_wait(&all.moved, &all.lock);
            continue;
        }
        /* Some steps of one thread after another, so that blocks are temporary now and then */
        for (uint64_t more = 1 + below(6); more && all.steps; more--, all.steps--) {
            if (below(5)) step_blocks();
            else step_mappings();
        }
        if (!all.steps) free_most();
        all.turn = (int)below((uint64_t)all.threads);
        pthread_cond_broadcast(&all.moved);
    }
    all.left++;
    pthread_cond_broadcast(&all.moved);
    while (all.left < all.threads) pthread_cond_wait(&all.moved, &all.lock);
    pthread_mutex_unlock(&all.lock);
}
uint64_t ht_lockstep_events(void) { return all.events; }

static void *run(void *argument) {
    ht_lockstep((int)(intptr_t)argument);
    return NULL;
}
/* Takes part with a thread that never saw Python. */
int ht_lockstep_pthread(int number) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, (void *)(intptr_t)number)) return -1;
    return pthread_detach(thread);
}
