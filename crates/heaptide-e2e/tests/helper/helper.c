/* The C side of the end-to-end tests: allocations of exactly known sizes, made by code that calls the C library through its
 * own PLT and GOT, as any extension module does. No CPython API: Python reaches it with ctypes, as CDLL (the GIL is released
 * during a call) or as PyDLL (it is held).
 *
 * Compile with -O1 -fno-builtin, so that no pair of malloc and free is optimised away. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- one event each ---------------------------------------------------------------------------------------------------- */

void *ht_malloc(size_t size) { return malloc(size); }
void *ht_calloc(size_t count, size_t size) { return calloc(count, size); }
void *ht_realloc(void *block, size_t size) { return realloc(block, size); }
void *ht_reallocarray(void *block, size_t count, size_t size) { return reallocarray(block, count, size); }
void *ht_posix_memalign(size_t alignment, size_t size) {
    void *block = NULL;
    return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
}
void *ht_aligned_alloc(size_t alignment, size_t size) { return aligned_alloc(alignment, size); }
void *ht_memalign(size_t alignment, size_t size) { return memalign(alignment, size); }
void *ht_valloc(size_t size) { return valloc(size); }
void *ht_pvalloc(size_t size) { return pvalloc(size); }
void ht_free(void *block) { free(block); }

static void *map(void *address, size_t size, int flags) {
    void *block = mmap(address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}
void *ht_mmap(size_t size) { return map(NULL, size, 0); }
void *ht_mmap_fixed(void *address, size_t size) { return map(address, size, MAP_FIXED); }
void *ht_mremap(void *block, size_t old_size, size_t new_size) {
    void *moved = mremap(block, old_size, new_size, MREMAP_MAYMOVE);
    return moved == MAP_FAILED ? NULL : moved;
}
void *ht_mremap_fixed(void *block, size_t old_size, size_t new_size, void *place) {
    void *moved = mremap(block, old_size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    return moved == MAP_FAILED ? NULL : moved;
}
/* A second mapping of the same shared pages: the first one stays. */
void *ht_mremap_twin(void *block, size_t size) { return ht_mremap(block, 0, size); }
/* The pages move, their old place stays mapped (MREMAP_DONTUNMAP, Linux 5.7). */
void *ht_mremap_keeping(void *block, size_t size) {
    void *moved = mremap(block, size, size, MREMAP_MAYMOVE | 4, NULL);
    return moved == MAP_FAILED ? NULL : moved;
}
void *ht_mmap_shared(size_t size) {
    void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}
void *ht_mmap_file(int file, size_t size, int shared) {
    void *block = mmap(NULL, size, PROT_READ, shared ? MAP_SHARED : MAP_PRIVATE, file, 0);
    return block == MAP_FAILED ? NULL : block;
}
int ht_munmap(void *block, size_t size) { return munmap(block, size); }
/* Calls on a mapping that fail: it stays as it is. Returns how many did not fail as they should. */
int ht_mapping_failures(char *block, size_t size) {
    int wrong = munmap(block + 1, size) == 0;
    wrong += munmap(block, 0) == 0;
    wrong += munmap(block, SIZE_MAX) == 0;
    wrong += mremap(block + 1, size, 2 * size, MREMAP_MAYMOVE) != MAP_FAILED;
    wrong += mremap(block, size, 0, MREMAP_MAYMOVE) != MAP_FAILED;
    wrong += mremap(block, size, (size_t)1 << 46, 0) != MAP_FAILED;
    wrong += mremap(block, size, (size_t)1 << 60, MREMAP_MAYMOVE) != MAP_FAILED;
    wrong += mremap(block, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, block) != MAP_FAILED;
    return wrong;
}

/* The same function reached in the two other ways a linker knows: a word of the GOT, and a word of initialised data. */
static void *(*const volatile malloc_in_data[1])(size_t) = {malloc};
static void (*const volatile free_in_data[1])(void *) = {free};
void *ht_malloc_by_data(size_t size) { return malloc_in_data[0](size); }
void ht_free_by_data(void *block) { free_in_data[0](block); }
void *ht_malloc_by_got(size_t size) {
    void *(*volatile function)(size_t) = malloc;
    return function(size);
}

/* Calls that fail: nothing may be recorded. Returns how many did not fail as they should. */
int ht_failures(void) {
    int wrong = 0;
    volatile size_t absurd = SIZE_MAX / 2;
    void *block = NULL;
    wrong += malloc(absurd) != NULL;
    wrong += calloc(absurd, 4) != NULL;
    wrong += posix_memalign(&block, 3, 100) == 0;
    wrong += aligned_alloc(64, absurd) != NULL;
    wrong += reallocarray(NULL, absurd, 4) != NULL;
    wrong += mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
    wrong += munmap((void *)1, 4096) == 0;
    return wrong;
}
/* A realloc that fails leaves the old block alone; returns the block. */
void *ht_realloc_fails(void *block) {
    volatile size_t absurd = SIZE_MAX / 2;
    return realloc(block, absurd) == NULL ? block : NULL;
}
/* A munmap that fails leaves the mapping alone. */
int ht_munmap_fails(char *block, size_t size) { return munmap(block + 1, size) != 0; }

/* errno must survive a hook: malloc and free that work leave it alone. Returns 1 if it did. */
int ht_errno_kept(size_t size) {
    errno = 4711;
    void *block = malloc(size);
    int kept = errno == 4711;
    free(block);
    return kept && errno == 4711;
}

/* ---- many events ------------------------------------------------------------------------------------------------------- */

void ht_many(size_t count, size_t size, void **out) {
    for (size_t i = 0; i < count; i++) out[i] = malloc(size);
}
void ht_free_many(size_t count, void **blocks) {
    for (size_t i = 0; i < count; i++) free(blocks[i]);
}
/* `pairs` times malloc and free: as many temporary blocks. */
void ht_churn(size_t pairs, size_t size) {
    for (size_t i = 0; i < pairs; i++) free(malloc(size));
}
/* Three windows: a block freed at once, one freed after one other allocation (both are temporary), one freed after two. */
void ht_windows(size_t size) {
    void *a = malloc(size);
    free(a);
    a = malloc(size);
    void *b = calloc(1, size);
    free(a);
    a = malloc(size);
    void *c = calloc(1, size), *d = calloc(1, size);
    free(a);
    free(b), free(c), free(d);
}
/* The same maximum reached by malloc, then by calloc, then by memalign: the last one is the peak. */
void ht_tie(size_t size) {
    free(malloc(size));
    free(calloc(1, size));
    free(memalign(64, size));
}
/* A block of `size` grows by realloc in steps; every step frees one block and makes one. */
void *ht_grow(size_t size, size_t steps) {
    void *block = malloc(size);
    for (size_t i = 0; i < steps; i++) block = realloc(block, size * (i + 2));
    return block;
}

/* ---- threads that never saw Python ------------------------------------------------------------------------------------- */

typedef void (*callback)(void);
struct task {
    const char *name;
    size_t count, size;
    void **out;
    callback call;
    int thread_id;
};
static void *run_task(void *argument) {
    struct task *task = argument;
    task->thread_id = (int)syscall(SYS_gettid);
    if (task->name) prctl(PR_SET_NAME, task->name);
    if (task->size)
        for (size_t i = 0; i < task->count; i++) task->out[i] = malloc(task->size);
    else
        for (size_t i = 0; i < task->count; i++) free(task->out[i]);
    if (task->call) task->call();
    return NULL;
}
static int run_in_pthread(struct task task) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_task, &task)) return -1;
    pthread_join(thread, NULL);
    return task.thread_id;
}
/* All three return the kernel's id of the thread. */
int ht_many_in_pthread(const char *name, size_t count, size_t size, void **out) {
    return run_in_pthread((struct task){.name = name, .count = count, .size = size, .out = out});
}
int ht_free_in_pthread(size_t count, void **blocks) { return run_in_pthread((struct task){.count = count, .out = blocks}); }
int ht_call_in_pthread(const char *name, callback call) { return run_in_pthread((struct task){.name = name, .call = call}); }

void ht_call(callback call) { call(); }

/* `count` threads one after the other, each with one block made and freed. */
void ht_thread_sequence(size_t count, size_t size) {
    for (size_t i = 0; i < count; i++) {
        void *block = NULL;
        run_in_pthread((struct task){.count = 1, .size = size, .out = &block});
        free(block);
    }
}

/* Two threads reach the same maximum one after the other; nothing else allocates between. */
struct tie {
    size_t size;
    int thread_id;
};
static void *tie_thread(void *argument) {
    struct tie *tie = argument;
    tie->thread_id = (int)syscall(SYS_gettid);
    free(malloc(tie->size));
    return NULL;
}
void ht_thread_tie(size_t size, int *thread_ids) {
    struct tie ties[2] = {{size, 0}, {size, 0}};
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, tie_thread, &ties[i]);
        pthread_join(thread, NULL);
        thread_ids[i] = ties[i].thread_id;
    }
}

/* ---- a storm whose truth survives a SIGKILL ------------------------------------------------------------------------------ */

/* A page in a shared file. A thread stores `pending_*` before an event and the counters after it, so at any instant an exact
 * recorder has seen `count` or `count + 1` events, and `bytes` or `bytes + pending` bytes. */
struct counters {
    _Atomic uint64_t thread_id, allocated_count, allocated_bytes, freed_count, freed_bytes, pending_allocation, pending_free, spare;
};
#define STORM_THREADS 63
struct page {
    _Atomic uint64_t pid, threads, running, spare[5];
    struct counters counters[STORM_THREADS];
};
_Static_assert(sizeof(struct page) == 4096, "one page");

void *ht_page(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct page))) return NULL;
    struct page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED) return NULL;
    page->pid = getpid();
    return page;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}
#define STORE(field, value) atomic_store_explicit(&(field), (value), memory_order_release)
#define ADD(field, value) STORE(field, atomic_load_explicit(&(field), memory_order_relaxed) + (value))

static void *counted_allocation(struct counters *c, uint64_t choice, size_t size) {
    void *block = NULL;
    STORE(c->pending_allocation, size);
    switch (choice % 8) {
    case 0: block = calloc(1, size); break;
    case 1: if (posix_memalign(&block, 64, size)) abort(); break;
    case 2: block = aligned_alloc(64, size); break;
    default: block = malloc(size);
    }
    if (!block) abort();
    ADD(c->allocated_count, 1);
    ADD(c->allocated_bytes, size);
    STORE(c->pending_allocation, 0);
    *(size_t *)block = size;
    return block;
}
static void counted_free(struct counters *c, void *block) {
    size_t size = *(size_t *)block;
    STORE(c->pending_free, size);
    free(block);
    ADD(c->freed_count, 1);
    ADD(c->freed_bytes, size);
    STORE(c->pending_free, 0);
}
static void *counted_realloc(struct counters *c, void *block, size_t size) {
    size_t old_size = *(size_t *)block;
    STORE(c->pending_free, old_size);
    STORE(c->pending_allocation, size);
    block = realloc(block, size);
    if (!block) abort();
    ADD(c->freed_count, 1);
    ADD(c->freed_bytes, old_size);
    STORE(c->pending_free, 0);
    ADD(c->allocated_count, 1);
    ADD(c->allocated_bytes, size);
    STORE(c->pending_allocation, 0);
    *(size_t *)block = size;
    return block;
}
static void counted_mapping(struct counters *c, size_t size) {
    STORE(c->pending_allocation, size);
    void *block = map(NULL, size, 0);
    if (!block) abort();
    ADD(c->allocated_count, 1);
    ADD(c->allocated_bytes, size);
    STORE(c->pending_allocation, 0);
    STORE(c->pending_free, size);
    munmap(block, size);
    ADD(c->freed_count, 1);
    ADD(c->freed_bytes, size);
    STORE(c->pending_free, 0);
}

/* Blocks change hands here: whoever takes one out frees it. */
static _Atomic(void *) exchange[64];

/* Runs until it has made `steps` steps (0: for ever); returns the number of steps. */
uint64_t ht_storm(struct page *page, int number, uint64_t seed, uint64_t steps) {
    struct counters *c = &page->counters[number];
    void *held[128] = {0};
    uint64_t state = seed * 0x9E3779B97F4A7C15u + (uint64_t)number + 1, done = 0;
    STORE(c->thread_id, (uint64_t)syscall(SYS_gettid));
    atomic_fetch_add(&page->running, 1);
    for (; steps == 0 || done < steps; done++) {
        uint64_t r = next_random(&state);
        size_t size = 16 + (r >> 40) % ((r & 0x3f0000) == 0 ? 200000 : 2000);
        size_t at = (r >> 8) % 128;
        if ((r & 0x7f) == 0) {
            counted_mapping(c, 4096 * (1 + (r >> 50) % 16));
        } else if (held[at] == NULL) {
            held[at] = counted_allocation(c, r >> 24, size);
        } else if ((r & 7) == 1) {
            held[at] = counted_realloc(c, held[at], size);
        } else if ((r & 7) == 2) {
            held[at] = atomic_exchange(&exchange[(r >> 30) % 64], held[at]);
        } else {
            counted_free(c, held[at]);
            held[at] = NULL;
        }
    }
    for (size_t at = 0; at < 128; at++)
        if (held[at]) counted_free(c, held[at]);
    return done;
}

struct storm {
    struct page *page;
    int number;
    uint64_t seed, steps;
};
static void *storm_thread(void *argument) {
    struct storm storm = *(struct storm *)argument;
    ht_storm(storm.page, storm.number, storm.seed, storm.steps);
    return NULL;
}
/* A storm in a thread that never saw Python; returns at once. */
int ht_start_storm(struct page *page, int number, uint64_t seed, uint64_t steps) {
    static struct storm storms[STORM_THREADS];
    pthread_t thread;
    storms[number] = (struct storm){page, number, seed, steps};
    if (pthread_create(&thread, NULL, storm_thread, &storms[number])) return -1;
    return pthread_detach(thread);
}

/* One counted block that is kept and touched, for programs that are to run out of memory. */
void ht_leak(struct page *page, int number, size_t size) {
    struct counters *c = &page->counters[number];
    STORE(c->thread_id, (uint64_t)syscall(SYS_gettid));
    STORE(c->pending_allocation, size);
    void *block = malloc(size);
    if (!block) abort();
    ADD(c->allocated_count, 1);
    ADD(c->allocated_bytes, size);
    STORE(c->pending_allocation, 0);
    memset(block, 0x5a, size);
}

/* ---- ways to die ----------------------------------------------------------------------------------------------------------- */

void ht_segv(void) { *(volatile int *)16 = 1; }
void ht_abort(void) { abort(); }
void ht_exit_now(int code) { _exit(code); }
void ht_exit(int code) { exit(code); }
void ht_kill_self(int number) { kill(getpid(), number); }
int ht_overflow(int depth) {
    volatile char buffer[4096];
    if (depth < 0) return 0;
    buffer[depth & 4095] = (char)depth;
    return ht_overflow(depth + 1) + buffer[(depth + 1) & 4095];
}

/* ---- signals and forks ------------------------------------------------------------------------------------------------------ */

/* A handler that allocates: not allowed by any standard, done by many programs. */
static _Atomic uint64_t handled;
static void allocating_handler(int number) {
    (void)number;
    int saved = errno;
    free(malloc(333));
    atomic_fetch_add(&handled, 1);
    errno = saved;
}
uint64_t ht_signal_storm(uint64_t pairs, long interval_ns) {
    struct sigaction action = {.sa_handler = allocating_handler, .sa_flags = SA_RESTART}, before;
    sigaction(SIGUSR1, &action, &before);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    struct itimerspec spec = {.it_interval = {0, interval_ns}, .it_value = {0, interval_ns}};
    timer_settime(timer, 0, &spec, NULL);
    for (uint64_t done = 0; done < pairs || handled < 100; done++) free(malloc(555));
    timer_delete(timer);
    sigaction(SIGUSR1, &before, NULL);
    return handled;
}

/* A handler that maps memory, whatever the program is in the middle of; on or off. */
static void mapping_handler(int number) {
    (void)number;
    int saved = errno;
    munmap(map(NULL, 4096, 0), 4096);
    errno = saved;
}
void ht_storm_of_signals(int on) {
    static timer_t timer;
    static struct sigaction before;
    if (on) {
        struct sigaction action = {.sa_handler = mapping_handler, .sa_flags = SA_RESTART};
        sigaction(SIGUSR1, &action, &before);
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        timer_create(CLOCK_MONOTONIC, &event, &timer);
        struct itimerspec spec = {.it_interval = {0, 100000}, .it_value = {0, 100000}};
        timer_settime(timer, 0, &spec, NULL);
    } else {
        timer_delete(timer);
        sigaction(SIGUSR1, &before, NULL);
    }
}

/* fork and vfork children that allocate; each returns the child's exit status. */
int ht_fork(size_t count, size_t size) {
    pid_t child = fork();
    if (child == 0) {
        for (size_t i = 0; i < count; i++)
            if (!malloc(size)) _exit(1);
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}
