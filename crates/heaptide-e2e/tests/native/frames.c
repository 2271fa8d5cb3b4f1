/* Functions whose native stacks are known. Each allocates on a line with a comment `AT:name`, or calls the next one on such a
 * line; the programs beside name the lines by these.
 *
 * Built in many ways (see `native_stacks.rs`). `noipa` keeps every function a function of its own, and `KEPT` every call a call:
 * without it a call at the end would become a jump. The interpreter's functions are found in the process that loads this. */
#define _GNU_SOURCE
#include <alloca.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define FUNCTION __attribute__((noipa, visibility("default")))
#define KEPT(call) ({ __typeof__(call) kept_ = (call); __asm__ volatile("" : "+r"(kept_) : : "memory"); kept_; })
#define DONE(call) ({ call; __asm__ volatile("" : : : "memory"); })

typedef void (*callback)(void);

/* ---- chains ---------------------------------------------------------------------------------------------------------------- */

FUNCTION void *nt_leaf(size_t size) {
    return KEPT(malloc(size)); /* AT:leaf */
}
/* What nothing else calls: its stacks are known by the allocator. */
FUNCTION void *nt_rare(size_t size) {
    return KEPT(memalign(64, size)); /* AT:rare */
}
FUNCTION void *nt_inner(size_t size) {
    return KEPT(malloc(size)); /* AT:inner */
}
FUNCTION void *nt_middle(size_t size) {
    return KEPT(nt_inner(size)); /* AT:middle */
}
FUNCTION void *nt_outer(size_t size) {
    return KEPT(nt_middle(size)); /* AT:outer */
}

/* The same function called from two lines: the frames are alike but for the address that they go on at. */
FUNCTION void nt_two_lines(size_t size) {
    KEPT(nt_middle(size)); /* AT:first_line */
    KEPT(nt_middle(size)); /* AT:second_line */
}
/* Frames of the same size in turn, called from the same frame. */
FUNCTION void *nt_left(size_t size) {
    return KEPT(nt_leaf(size)); /* AT:left */
}
FUNCTION void *nt_right(size_t size) {
    return KEPT(nt_leaf(size)); /* AT:right */
}
FUNCTION void nt_alternate(size_t size, int times) {
    for (int i = 0; i < times; i++) {
        KEPT(nt_left(size));  /* AT:alternate_left */
        KEPT(nt_right(size)); /* AT:alternate_right */
    }
}

/* The last call is a jump, so this function is on no stack. */
FUNCTION void *nt_tail(size_t size) { return nt_leaf(size); }
FUNCTION void *nt_tail_caller(size_t size) {
    return KEPT(nt_tail(size)); /* AT:tail */
}

/* All functions of the family, and mappings. */
FUNCTION void nt_family(size_t size) {
    void *block = KEPT(malloc(size)); /* AT:malloc */
    KEPT(calloc(1, size));            /* AT:calloc */
    KEPT(realloc(block, size * 2));   /* AT:realloc */
    void *aligned = NULL;
    if (posix_memalign(&aligned, 64, size)) abort(); /* AT:posix_memalign */
    KEPT(aligned_alloc(64, 64 * size));              /* AT:aligned_alloc */
    KEPT(valloc(size));                              /* AT:valloc */
    KEPT(mmap(NULL, 4096 * size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); /* AT:mmap */
}

/* ---- frames of every shape ------------------------------------------------------------------------------------------------- */

/* The stack pointer moves by what is asked for, so the frame is found by the frame pointer. */
FUNCTION void *nt_variable(size_t size, size_t room) {
    volatile char *buffer = alloca(room);
    buffer[0] = buffer[room - 1] = 1;
    return KEPT(nt_inner(size)); /* AT:variable */
}
/* The stack is aligned anew: where the frame was is read from memory, by an expression. */
FUNCTION void *nt_aligned(size_t size) {
    volatile char buffer[64] __attribute__((aligned(256)));
    buffer[0] = 1;
    void *block = KEPT(nt_inner(size)); /* AT:aligned */
    buffer[1] = buffer[0];
    return block;
}
FUNCTION void *nt_aligned_variable(size_t size, size_t room) {
    volatile char buffer[64] __attribute__((aligned(64)));
    volatile char *moved = alloca(room);
    buffer[0] = moved[room - 1] = 1;
    void *block = KEPT(nt_inner(size)); /* AT:aligned_variable */
    buffer[1] = moved[0] = buffer[0];
    return block;
}
/* And by two reads, as there are arguments on the stack, too. */
FUNCTION void *nt_aligned_arguments(long a, long b, long c, long d, long e, long f, long g, long h, size_t size) {
    volatile char buffer[64] __attribute__((aligned(128)));
    buffer[0] = (char)(a + b + c + d + e + f + g + h);
    void *block = KEPT(nt_inner(size)); /* AT:aligned_arguments */
    buffer[1] = buffer[0];
    return block;
}
/* More than the compact forms of unwind rules have room for. */
FUNCTION void *nt_big(size_t size) {
    volatile char buffer[3000000];
    buffer[0] = buffer[sizeof buffer - 1] = 1;
    void *block = KEPT(nt_inner(size)); /* AT:big */
    buffer[1] = buffer[0];
    return block;
}
/* All registers that a function must keep are in use. */
FUNCTION void *nt_registers(size_t size, long a, long b, long c, long d, long e) {
    long f = a * b + c, g = d * e + b, h = f * g + a, i = g * c + h;
    void *block = KEPT(nt_inner(size)); /* AT:registers */
    __asm__ volatile("" : : "r"(a), "r"(b), "r"(c), "r"(d), "r"(e), "r"(f), "r"(g), "r"(h), "r"(i));
    return block;
}
/* Arguments on the stack, which a caller pushes and takes away. */
FUNCTION void *nt_many_arguments(long a, long b, long c, long d, long e, long f, long g, long h, size_t size) {
    __asm__ volatile("" : : "r"(a + b + c + d + e + f + g + h));
    return KEPT(nt_inner(size)); /* AT:many_arguments */
}
FUNCTION void *nt_pushes(size_t size) {
    return KEPT(nt_many_arguments(1, 2, 3, 4, 5, 6, 7, 8, size)); /* AT:pushes */
}
/* The frame is set up on one way through the function only. */
FUNCTION void *nt_late_frame(size_t size, int calls) {
    if (__builtin_expect(!calls, 1)) return NULL;
    volatile char buffer[512];
    buffer[calls] = 1;
    void *block = KEPT(nt_inner(size)); /* AT:late_frame */
    if (buffer[calls] == 2) return NULL;
    return block;
}
FUNCTION void *nt_shapes(size_t size) {
    KEPT(nt_variable(size, 100));            /* AT:shapes_variable */
    KEPT(nt_variable(size, 100000));         /* AT:shapes_variable_again */
    KEPT(nt_aligned(size));                  /* AT:shapes_aligned */
    KEPT(nt_aligned_variable(size, 333));    /* AT:shapes_aligned_variable */
    KEPT(nt_aligned_arguments(1, 2, 3, 4, 5, 6, 7, 8, size)); /* AT:shapes_aligned_arguments */
    KEPT(nt_big(size));                      /* AT:shapes_big */
    KEPT(nt_registers(size, 1, 2, 3, 4, 5)); /* AT:shapes_registers */
    KEPT(nt_pushes(size));                   /* AT:shapes_pushes */
    KEPT(nt_late_frame(size, 0));
    KEPT(nt_late_frame(size, 1)); /* AT:shapes_late_frame */
    return NULL;
}

/* A function that does not come back is called by the last instruction of another: where the frame would go on is in the
 * function behind it. */
static jmp_buf back;
FUNCTION __attribute__((noreturn)) void nt_never_returns(size_t size) {
    KEPT(malloc(size)); /* AT:never_returns */
    longjmp(back, 1);
}
FUNCTION __attribute__((noreturn)) void nt_ends_with_call(size_t size) {
    nt_never_returns(size); /* AT:ends_with_call */
}
FUNCTION void nt_stranger(void) { DONE((void)0); }
FUNCTION void nt_returns_by_jump(size_t size) {
    if (!setjmp(back)) nt_ends_with_call(size); /* AT:returns_by_jump */
    KEPT(nt_leaf(size));                        /* AT:after_jump */
}

/* ---- depth ------------------------------------------------------------------------------------------------------------------ */

FUNCTION void *nt_deep(size_t size, int depth) {
    if (depth) return KEPT(nt_deep(size, depth - 1)); /* AT:deep */
    return KEPT(malloc(size));                        /* AT:deepest */
}
/* Allocates on the way down and on the way up. */
FUNCTION void nt_stairs(size_t size, int depth) {
    KEPT(malloc(size));                      /* AT:down */
    if (depth) DONE(nt_stairs(size, depth - 1)); /* AT:stairs */
    KEPT(malloc(size));                      /* AT:up */
}
FUNCTION void nt_deep_jump(size_t size, int depth) {
    if (depth) DONE(nt_deep_jump(size, depth - 1)); /* AT:deep_jump */
    KEPT(malloc(size));                          /* AT:before_jump */
    if (size) longjmp(back, 1);
}
FUNCTION void nt_jumps(size_t size, int depth) {
    if (!setjmp(back)) DONE(nt_deep_jump(size, depth)); /* AT:jumps */
    KEPT(nt_outer(size));                               /* AT:jumped */
}

/* ---- to the interpreter and back -------------------------------------------------------------------------------------------- */

FUNCTION void nt_callback(callback call) {
    DONE(call()); /* AT:callback */
}
FUNCTION void nt_callback_deep(callback call, int depth) {
    if (depth) DONE(nt_callback_deep(call, depth - 1)); /* AT:callback_deep */
    else DONE(call());                                  /* AT:callback_deepest */
}
FUNCTION void nt_qsort(void *base, size_t count, size_t width, int (*compare)(const void *, const void *)) {
    DONE(qsort(base, count, width, compare)); /* AT:qsort */
}

typedef struct object object;
extern object *PyIter_Next(object *), *PyObject_CallNoArgs(object *), *PyObject_GetAttrString(object *, const char *),
    *PyObject_Str(object *);
extern int PyObject_RichCompareBool(object *, object *, int), PyErr_CheckSignals(void);
extern void Py_DecRef(object *), Py_IncRef(object *);
extern void *PyMem_RawMalloc(size_t), *PyMem_Malloc(size_t), *PyObject_Malloc(size_t);

static void drop(object *result) {
    if (!result) abort();
    Py_DecRef(result);
}
FUNCTION void nt_next(object *iterator) {
    drop(KEPT(PyIter_Next(iterator))); /* AT:next */
}
FUNCTION void nt_call(object *function) {
    drop(KEPT(PyObject_CallNoArgs(function))); /* AT:call */
}
FUNCTION void nt_get(object *object, const char *name) {
    drop(KEPT(PyObject_GetAttrString(object, name))); /* AT:get */
}
FUNCTION void nt_text(object *object) {
    drop(KEPT(PyObject_Str(object))); /* AT:text */
}
FUNCTION void nt_less(object *one, object *other) {
    if (KEPT(PyObject_RichCompareBool(one, other, 0)) < 0) abort(); /* AT:less */
}
/* The argument is the list that holds the only reference; it is taken out of it by whoever calls. */
FUNCTION void nt_drop(object *object) {
    DONE(Py_DecRef(object)); /* AT:drop */
}
FUNCTION void nt_hold(object *object) { Py_IncRef(object); }
FUNCTION void nt_requests(size_t size) {
    KEPT(PyMem_RawMalloc(size)); /* AT:request_raw */
    KEPT(PyMem_Malloc(size));    /* AT:request_mem */
    KEPT(PyObject_Malloc(size)); /* AT:request_object */
}

/* ---- threads and processes -------------------------------------------------------------------------------------------------- */

struct task {
    size_t size;
    callback call;
};
FUNCTION void *nt_thread(void *argument) {
    struct task *task = argument;
    if (task->call) DONE(task->call()); /* AT:thread_callback */
    else KEPT(nt_outer(task->size)); /* AT:thread */
    return NULL;
}
FUNCTION void nt_in_thread(size_t size, callback call, size_t stack_size) {
    struct task task = {size, call};
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    if (stack_size && pthread_attr_setstacksize(&attributes, stack_size)) abort();
    if (pthread_create(&thread, &attributes, nt_thread, &task)) abort();
    pthread_join(thread, NULL);
}
__attribute__((visibility("default"))) int nt_last_child;
FUNCTION int nt_fork(size_t size) {
    pid_t child = KEPT(fork());
    nt_last_child = child;
    if (child == 0) {
        KEPT(nt_outer(size)); /* AT:forked */
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

/* ---- signals ---------------------------------------------------------------------------------------------------------------- */

static size_t size_in_handler;
FUNCTION void nt_handler(int number) {
    (void)number;
    int saved = errno;
    KEPT(nt_rare(size_in_handler)); /* AT:handler */
    errno = saved;
}
/* The handler runs on a stack of its own of so many bytes, or on the thread's if that is 0. */
FUNCTION void nt_raise(size_t size, size_t stack_size) {
    stack_t stack = {.ss_size = stack_size}, before;
    if (stack_size) {
        stack.ss_sp = mmap(NULL, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* AT:raise_stack */
        if (sigaltstack(&stack, &before)) abort();
    }
    struct sigaction action = {.sa_handler = nt_handler, .sa_flags = stack_size ? SA_ONSTACK : 0}, old;
    size_in_handler = size;
    if (sigaction(SIGUSR1, &action, &old)) abort();
    KEPT(raise(SIGUSR1)); /* AT:raise */
    sigaction(SIGUSR1, &old, NULL);
    if (stack_size) {
        sigaltstack(&before, NULL);
        munmap(stack.ss_sp, stack_size);
    }
}
FUNCTION void nt_check_signals(int number) {
    raise(number);
    if (KEPT(PyErr_CheckSignals())) abort(); /* AT:check_signals */
}

/* A handler that comes at any instruction of functions that call one another. Returns how often it came. */
static volatile int handled;
FUNCTION void nt_anywhere(int number) {
    (void)number;
    int saved = errno;
    KEPT(nt_rare(size_in_handler)); /* AT:anywhere */
    handled++;
    errno = saved;
}
FUNCTION long nt_spin_innermost(long a, long b) {
    volatile long room[20];
    room[a & 15] = b;
    return room[b & 15] + a;
}
FUNCTION long nt_spin_inner(long a, long b) {
    long c = KEPT(nt_spin_innermost(a, b)), d = KEPT(nt_spin_innermost(b, c));
    volatile char *buffer = alloca((size_t)(a & 63) + 1);
    buffer[0] = 1;
    return KEPT(nt_spin_innermost(c, d)) + buffer[0];
}
FUNCTION int nt_spin(size_t size, int times, long interval_ns) {
    struct sigaction action = {.sa_handler = nt_anywhere, .sa_flags = SA_RESTART}, old;
    size_in_handler = size;
    handled = 0;
    sigaction(SIGUSR1, &action, &old);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer)) abort();
    struct itimerspec spec = {.it_interval = {0, interval_ns}, .it_value = {0, interval_ns}};
    timer_settime(timer, 0, &spec, NULL);
    for (long i = 0; handled < times; i++) KEPT(nt_spin_inner(i, i + 1));
    timer_delete(timer);
    sigaction(SIGUSR1, &old, NULL);
    return handled;
}

/* ---- stacks of one's own ---------------------------------------------------------------------------------------------------- */

static ucontext_t main_context, other_context;
static size_t size_in_context;
FUNCTION void nt_context(void) {
    KEPT(nt_rare(size_in_context)); /* AT:context */
    swapcontext(&other_context, &main_context);
    KEPT(nt_rare(size_in_context)); /* AT:context_again */
}
FUNCTION void nt_in_context(size_t size) {
    size_t room = 256 << 10;
    char *stack = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* AT:context_stack */
    size_in_context = size;
    getcontext(&other_context);
    other_context.uc_stack.ss_sp = stack;
    other_context.uc_stack.ss_size = room;
    other_context.uc_link = &main_context;
    makecontext(&other_context, nt_context, 0);
    swapcontext(&main_context, &other_context);
    KEPT(nt_outer(size)); /* AT:between_contexts */
    swapcontext(&main_context, &other_context);
    KEPT(nt_outer(size)); /* AT:after_context */
    munmap(stack, room);
}

/* ---- code without unwind information ---------------------------------------------------------------------------------------- */

/* `code` is a function that calls its second argument with the first. */
FUNCTION void nt_through(void *(*code)(size_t, void *(*)(size_t)), size_t size) {
    if (code) KEPT(code(size, nt_rare)); /* AT:through */
    else KEPT(nt_rare(size));            /* AT:through_none */
}
/* As above, with a frame pointer of its own whatever the flags are. */
FUNCTION __attribute__((optimize("no-omit-frame-pointer"))) void nt_through_framed(
    void *(*code)(size_t, void *(*)(size_t)), size_t size) {
    KEPT(code(size, nt_rare)); /* AT:through_framed */
}
/* What such code may leave in the frame pointer: addresses at which nothing, or nothing of the stack, is. */
FUNCTION void *nt_decoy(void) {
    static uintptr_t decoy[4];
    decoy[0] = (uintptr_t)&decoy[2], decoy[1] = (uintptr_t)nt_stranger + 1;
    decoy[2] = (uintptr_t)&decoy[0], decoy[3] = (uintptr_t)nt_stranger + 1;
    return decoy;
}

/* ---- the rest --------------------------------------------------------------------------------------------------------------- */

/* Is errno as it was, and is what a call may not change? */
FUNCTION int nt_unharmed(size_t size) {
    errno = 4711;
    KEPT(malloc(size)); /* AT:unharmed */
    return errno == 4711;
}
FUNCTION void nt_free(void *block) { free(block); }
FUNCTION void nt_tide(size_t size) {
    free(KEPT(malloc(size))); /* AT:tide */
}
FUNCTION void nt_temporary(size_t size, int times) {
    for (int i = 0; i < times; i++) free(KEPT(malloc(size))); /* AT:temporary */
}
