"""Threads at once (truly so without the GIL): known amounts at known lines, while code objects come and go under all of them."""
import gc
import threading

import known
from known import expect, h

known.program(__file__)
# All that is measured is made by functions that the collector does not call
gc.enable()
THREADS, ROUNDS, KEPT = 8, 250, 300
BODY = "%sdef %s(h):\n%s    return h.posix_memalign(64, %d)\nresult = %s(h)\n"
barrier = threading.Barrier(THREADS)
handed = [None] * THREADS


def size_of(number, turn):
    return 10000 + 1000 * number + turn


def generated(number, turn):
    """Code that nobody else runs, compiled, run once and dropped."""
    name = "f%d_%d" % (number, turn)
    source = BODY % ("\n" * (turn % 7), name, "    pass\n" * (turn % 11), size_of(number, turn), name)
    namespace = dict(h=h)
    exec(compile(source, "<gen-%d-%d>" % (number, turn), "exec"), namespace)  # ALLOC:exec
    h.free(namespace["result"])
    made = eval("lambda h: h.memalign(64, %d)" % size_of(number, turn), {}, {})
    h.free(made(h))  # ALLOC:lambda


def shared(depth, size):
    """Code that all run: without the GIL each thread has a copy of its byte code."""
    if depth > 0:
        return shared(depth - 1, size)  # ALLOC:deeper
    return h.aligned_alloc(64, size)  # ALLOC:shared


def resumed(size):
    while True:
        yield h.valloc(size)  # ALLOC:resumed


def worker(number):
    known.note_thread()
    barrier.wait()
    for turn in range(ROUNDS):
        generated(number, turn)  # ALLOC:generated
        h.free(shared(turn % 40, 9001 + number))  # ALLOC:call
        if turn % 50 == 6 * number:
            gc.collect()
    for _ in range(KEPT):
        shared(0, 9101 + number)  # ALLOC:kept
    # A generator that one thread has begun is continued by another
    generator = handed[number] = resumed(9201 + number)
    h.free(next(generator))  # ALLOC:first
    barrier.wait()
    h.free(next(handed[(number + 1) % THREADS]))  # ALLOC:second
    barrier.wait()
    h.free(next(generator))  # ALLOC:third
    barrier.wait()


workers = [threading.Thread(target=worker, args=(n,), name="worker-%d" % n) for n in range(THREADS)]
for thread in workers:
    thread.start()
for thread in workers:
    thread.join()

for number in range(THREADS):
    name = "worker-%d" % number
    for turn in range(ROUNDS):
        once = dict(size=size_of(number, turn), made=1, temporary=1, thread=name)
        line = turn % 7 + turn % 11 + 2
        file = "<gen-%d-%d>" % (number, turn)
        inner = "f%d_%d@%s:%d < <module>@%s:%d" % (number, turn, file, line, file, line + 1)
        expect(inner + " < generated@exec < worker@generated", "POSIX_MEMALIGN", **once)
    sizes = sum(size_of(number, turn) for turn in range(ROUNDS))
    total = (ROUNDS, sizes)
    stack = "<lambda>@<string>:1 < generated@lambda < worker@generated"
    expect(stack, "MEMALIGN", made=total, temporary=total, thread=name)
    for depth in range(40):
        count = len(range(depth, ROUNDS, 40))
        stack = "shared@shared" + " < shared@deeper" * depth + " < worker@call"
        expect(stack, "ALIGNED_ALLOC", size=9001 + number, made=count, temporary=count, thread=name)
    expect("shared@shared < worker@kept", "ALIGNED_ALLOC", size=9101 + number, made=KEPT, live=KEPT, peak=KEPT, thread=name)
    for place, owner in (("first", number), ("second", (number + 1) % THREADS), ("third", number)):
        stack = "resumed@resumed < worker@" + place
        expect(stack, "VALLOC", size=9201 + owner, made=1, temporary=1, thread=name)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
