/* Counts requests to Python's allocators by its own functions, put in front of those that are there. Without the headers of
 * any CPython: what it needs of the API it finds at run time, and the layouts it uses have been the same since 3.4.
 *
 * The counters are in a page that a test reads afterwards. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DOMAINS = 3, KINDS = 3, MOST_THREADS = 16 };

struct functions {
    void *context;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
};
typedef void (*exchange)(int, struct functions *);

struct counter {
    uint64_t count, bytes, live_count, live_bytes;
};
/* 4096 bytes of a file. */
struct page {
    uint64_t pid, threads, failed, zero;
    uint64_t thread_ids[MOST_THREADS];
    struct counter counters[DOMAINS][KINDS];
};
static struct page *page;
static atomic_int counting;

/* ---- blocks that were requested while counting, by address ------------------------------------------------------------- */

enum { ENTRIES = 1 << 21 };
struct entry {
    uintptr_t address;
    uint64_t bytes;
    struct counter *counter;
};
static struct entry *entries;
static atomic_flag lock = ATOMIC_FLAG_INIT;

static size_t home(uintptr_t address) { return (address >> 4) * 0x9E3779B97F4A7C15u >> 43; }
static size_t next(size_t place) { return (place + 1) % ENTRIES; }

static void insert(uintptr_t address, uint64_t bytes, struct counter *counter) {
    size_t place = home(address);
    while (entries[place].address) place = next(place);
    entries[place] = (struct entry){address, bytes, counter};
    counter->live_count++;
    counter->live_bytes += bytes;
}

static int take(uintptr_t address, struct entry *taken) {
    size_t place = home(address);
    while (entries[place].address != address) {
        if (!entries[place].address) return 0;
        place = next(place);
    }
    *taken = entries[place];
    taken->counter->live_count--;
    taken->counter->live_bytes -= taken->bytes;
    for (size_t later = next(place); entries[later].address; later = next(later)) {
        size_t from_home = (later - home(entries[later].address)) % ENTRIES;
        if (from_home >= (later - place) % ENTRIES) {
            entries[place] = entries[later];
            place = later;
        }
    }
    entries[place].address = 0;
    return 1;
}

static void enter(void) {
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire));
}
static void leave(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }

/* Is the thread in a request already? What one allocator asks of another is no request of the program. */
static __thread int inside;

static void *made(int domain, int kind, void *block, uint64_t bytes) {
    if (--inside == 0 && atomic_load(&counting) == 1) {
        enter();
        if (block) {
            struct counter *counter = &page->counters[domain][kind];
            counter->count++;
            counter->bytes += bytes;
            page->zero += bytes == 0;
            insert((uintptr_t)block, bytes, counter);
        } else {
            page->failed++;
        }
        leave();
    }
    return block;
}

static int gone(void *block, struct entry *taken) {
    int known = 0;
    if (inside++ == 0 && block && atomic_load(&counting) != 0) {
        enter();
        known = take((uintptr_t)block, taken);
        leave();
    }
    return known;
}

/* ---- functions of each domain -------------------------------------------------------------------------------------------- */

static struct functions former[DOMAINS];

#define DOMAIN(n) \
    static void *malloc_##n(void *context, size_t size) { \
        inside++; \
        return made(n, 0, former[n].malloc(context, size), size); \
    } \
    static void *calloc_##n(void *context, size_t count, size_t size) { \
        inside++; \
        return made(n, 1, former[n].calloc(context, count, size), count * size); \
    } \
    static void *realloc_##n(void *context, void *old, size_t size) { \
        struct entry taken; \
        int known = gone(old, &taken); \
        void *block = former[n].realloc(context, old, size); \
        if (!block && known) { \
            enter(); \
            insert(taken.address, taken.bytes, taken.counter); \
            leave(); \
        } \
        return made(n, 2, block, size); \
    } \
    static void free_##n(void *context, void *block) { \
        struct entry taken; \
        gone(block, &taken); \
        former[n].free(context, block); \
        inside--; \
    }
DOMAIN(0)
DOMAIN(1)
DOMAIN(2)

static const struct functions ours[DOMAINS] = {
    {0, malloc_0, calloc_0, realloc_0, free_0},
    {0, malloc_1, calloc_1, realloc_1, free_1},
    {0, malloc_2, calloc_2, realloc_2, free_2},
};

/* Nothing is known yet of blocks and nothing was counted; the counters are in a new file. */
int pc_begin(const char *path) {
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, 4096) != 0) return -1;
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    entries = mmap(NULL, ENTRIES * sizeof *entries, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (page == MAP_FAILED || entries == MAP_FAILED) return -1;
    page->pid = (uint64_t)getpid();
    return 0;
}

/* Puts ours in front. With the GIL. */
int pc_install(void) {
    exchange get = (exchange)dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    exchange set = (exchange)dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    if (!get || !set) return -1;
    for (int domain = 0; domain < DOMAINS; domain++) {
        struct functions functions = ours[domain];
        get(domain, &former[domain]);
        functions.context = former[domain].context;
        set(domain, &functions);
    }
    return 0;
}

/* ---- builtin functions without arguments, which are called without a single request ------------------------------------------ */

static void *none(void) {
    static void (*increment)(void *);
    void *none = dlsym(RTLD_DEFAULT, "_Py_NoneStruct");
    if (!increment) increment = (void (*)(void *))dlsym(RTLD_DEFAULT, "Py_IncRef");
    increment(none);
    return none;
}
static void *start(void *self, void *arguments) {
    (void)self, (void)arguments;
    atomic_store(&counting, 1);
    return none();
}
/* Frees of what was counted are seen still. */
static void *stop(void *self, void *arguments) {
    (void)self, (void)arguments;
    atomic_store(&counting, 2);
    return none();
}
static void *freeze(void *self, void *arguments) {
    (void)self, (void)arguments;
    atomic_store(&counting, 0);
    return none();
}
/* PyMethodDef */
static const struct {
    const char *name;
    void *(*function)(void *, void *);
    int flags;
    const char *documentation;
} definitions[] = {{"start", start, 4, 0}, {"stop", stop, 4, 0}, {"freeze", freeze, 4, 0}};
const void *pc_definition(int number) { return &definitions[number]; }

/* ---- requests by threads that Python does not know ------------------------------------------------------------------------------ */

static size_t rounds;

static void *requests(void *argument) {
    void *(*raw_malloc)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "PyMem_RawMalloc");
    void *(*raw_calloc)(size_t, size_t) = (void *(*)(size_t, size_t))dlsym(RTLD_DEFAULT, "PyMem_RawCalloc");
    void *(*raw_realloc)(void *, size_t) = (void *(*)(void *, size_t))dlsym(RTLD_DEFAULT, "PyMem_RawRealloc");
    void (*raw_free)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyMem_RawFree");
    page->thread_ids[(intptr_t)argument] = (uint64_t)syscall(SYS_gettid);
    void *kept[64] = {0};
    for (size_t n = 0; n < rounds; n++) {
        void **place = &kept[n * 31 % 64];
        switch (n % 3) {
        case 0:
            raw_free(*place);
            *place = raw_malloc(n % 1500);
            break;
        case 1:
            *place = raw_realloc(*place, n % 3000);
            break;
        default:
            raw_free(*place);
            *place = raw_calloc(n % 7, n % 100);
        }
    }
    for (size_t n = 0; n < 60; n++) raw_free(kept[n]);
    return NULL;
}

/* Without the GIL: each of the threads makes `each` requests to the raw domain, and keeps the last few blocks. */
int pc_raw_threads(int threads, size_t each) {
    pthread_t handles[MOST_THREADS];
    if (threads > MOST_THREADS) return -1;
    rounds = each;
    page->threads = (uint64_t)threads;
    for (intptr_t n = 0; n < threads; n++)
        if (pthread_create(&handles[n], NULL, requests, (void *)n) != 0) return -1;
    for (int n = 0; n < threads; n++) pthread_join(handles[n], NULL);
    return 0;
}

/* ---- a request that takes as long as it is told ---------------------------------------------------------------------------- */

static struct functions behind_gate;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static __thread int stops_at_gate;
static atomic_int at_gate;

static void *gated_malloc(void *context, size_t size) {
    if (stops_at_gate) {
        atomic_store(&at_gate, 1);
        pthread_mutex_lock(&gate);
        pthread_mutex_unlock(&gate);
    }
    return behind_gate.malloc(context, size);
}

/* Puts the gate in front of the raw domain, closed. Call with the GIL held. */
void pc_close_gate(void) {
    struct functions gated;
    ((exchange)dlsym(RTLD_DEFAULT, "PyMem_GetAllocator"))(0, &behind_gate);
    gated = behind_gate;
    gated.malloc = gated_malloc;
    ((exchange)dlsym(RTLD_DEFAULT, "PyMem_SetAllocator"))(0, &gated);
    pthread_mutex_lock(&gate);
}
void pc_open_gate(void) { pthread_mutex_unlock(&gate); }
int pc_at_gate(void) { return atomic_load(&at_gate); }

/* A request that waits until the gate is open. Call without the GIL. */
void pc_request_through_gate(size_t size) {
    void *(*malloc_raw)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "PyMem_RawMalloc");
    void (*free_raw)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyMem_RawFree");
    stops_at_gate = 1;
    free_raw(malloc_raw(size));
    stops_at_gate = 0;
}

/* ---- requests that give back what was taken outside of any request, as the tables of tracemalloc are ------------------------------ */

static struct functions behind_giver;
static void *given_back;

static void give_back(void) {
    void *block = given_back;
    given_back = NULL;
    free(block);
}
static void *giving_malloc(void *context, size_t size) {
    give_back();
    return behind_giver.malloc(context, size);
}
static void *giving_realloc(void *context, void *old, size_t size) {
    give_back();
    return size == SIZE_MAX >> 1 ? NULL : behind_giver.realloc(context, old, size);
}
static void giving_free(void *context, void *block) {
    give_back();
    behind_giver.free(context, block);
}

/* Puts it in front of the raw domain. Call with the GIL held. */
void pc_install_giver(void) {
    struct functions giving;
    ((exchange)dlsym(RTLD_DEFAULT, "PyMem_GetAllocator"))(0, &behind_giver);
    giving = behind_giver;
    giving.malloc = giving_malloc;
    giving.realloc = giving_realloc;
    giving.free = giving_free;
    ((exchange)dlsym(RTLD_DEFAULT, "PyMem_SetAllocator"))(0, &giving);
}

/* Gives five blocks back, each within another request. Call with the GIL held: raw requests of others give nothing back. */
void pc_give_back(void **blocks) {
    void *(*malloc_raw)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "PyMem_RawMalloc");
    void *(*realloc_raw)(void *, size_t) = (void *(*)(void *, size_t))dlsym(RTLD_DEFAULT, "PyMem_RawRealloc");
    void (*free_raw)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyMem_RawFree");
    given_back = blocks[0];
    void *block = malloc_raw(6001);
    given_back = blocks[1];
    block = realloc_raw(block, 7001);
    given_back = blocks[2];
    if (realloc_raw(block, SIZE_MAX >> 1)) abort();
    given_back = blocks[3];
    free_raw(block);
    given_back = blocks[4];
    free_raw(malloc_raw(10));
}
