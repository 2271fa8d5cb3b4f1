"""Threads: Python's own and foreign ones, with the GIL held and released, blocks that change hands, a peak across them all."""
import threading

import known
from known import CALLBACK, expect, h, hg

known.program(__file__)
M = "MALLOC"
barrier = threading.Barrier(4)
handed = {}


def worker(number):
    known.note_thread()
    barrier.wait()
    for _ in range(20):
        h.malloc(82001 + number)  # ALLOC:released
        hg.malloc(82011 + number)  # ALLOC:held
    mine = known.blocks(50)
    h.many(50, 82021 + number, mine)  # ALLOC:handed
    handed[number] = mine
    barrier.wait()
    # Everyone frees its neighbour's blocks: they were allocated by the other one, and are no temporaries
    h.free_many(30, handed[(number + 1) % 3])
    barrier.wait()
    h.churn(100, 82031 + number)  # ALLOC:churn


workers = [threading.Thread(target=worker, args=(n,), name="worker-%d" % n) for n in range(3)]
for thread in workers:
    thread.start()
barrier.wait()
barrier.wait()
barrier.wait()
for thread in workers:
    thread.join()
for n in range(3):
    name = "worker-%d" % n
    expect("worker@released", M, size=82001 + n, made=20, live=20, peak=20, thread=name)
    expect("worker@held", M, size=82011 + n, made=20, live=20, peak=20, thread=name)
    expect("worker@handed", M, size=82021 + n, made=50, live=20, peak=20, thread=name)
    expect("worker@churn", M, size=82031 + n, made=100, temporary=100, thread=name)


# A name given late, one that is long, one that is not ASCII
def named():
    threading.current_thread().name = "renamed"
    known.note_thread("renamed")
    h.malloc(82101)  # ALLOC:renamed


thread = threading.Thread(target=named, name="first name")
thread.start()
thread.join()
expect("named@renamed", M, size=82101, made=1, live=1, peak=1, thread="renamed")
LONG = "a thread with a rather long name"


def plain():
    known.note_thread()
    h.malloc(82103)  # ALLOC:named


for name in (LONG, "Fädchen"):
    thread = threading.Thread(target=plain, name=name)
    thread.start()
    thread.join()
    expect("plain@named", M, size=82103, made=1, live=1, peak=1, thread=name)

# Threads that never saw Python: no stack, and a name of the system's
made = known.blocks(70)
known.note_thread("c-thread", h.many_in_pthread(b"c-thread", 70, 82201, made))
h.free_in_pthread(30, made)
expect("", M, size=82201, made=70, live=40, peak=40, thread="c-thread")


# A foreign thread that calls into Python: the callback's frames, nothing of the main thread's
def called():
    if known.ORACLE:
        threading.current_thread().name = "foreign"
    h.malloc(82301)  # ALLOC:called


callback = CALLBACK(called)
known.note_thread("foreign", h.call_in_pthread(b"foreign", callback))
expect("called@called", M, size=82301, made=1, live=1, peak=1, thread="foreign")

# Threads that come and go: each is one of its own
def short():
    known.note_thread()
    h.malloc(82401)  # ALLOC:short


for n in range(20):
    thread = threading.Thread(target=short, name="short-%d" % n)
    thread.start()
    thread.join()
    expect("short@short", M, size=82401, made=1, live=1, peak=1, thread="short-%d" % n)

# The peak is reached while three threads hold what they have
hold, release = threading.Barrier(4), threading.Event()


def holder(n):
    known.note_thread()
    block = h.malloc(known.TIDE + n)  # ALLOC:holder
    hold.wait()
    release.wait()
    h.many(3, 82601, known.blocks(3))  # ALLOC:spacer
    h.free(block)
    h.malloc(82501)  # ALLOC:after_peak


holders = [threading.Thread(target=holder, args=(n,), name="holder-%d" % n) for n in range(3)]
for thread in holders:
    thread.start()
hold.wait()
h.free(h.malloc(known.TIDE))  # ALLOC:tide
release.set()
for thread in holders:
    thread.join()
known.tide("<module>@tide")
for n in range(3):
    expect("holder@holder", M, size=known.TIDE + n, made=1, peak=1, thread="holder-%d" % n)
    expect("holder@spacer", M, size=82601, made=3, live=3, thread="holder-%d" % n)
    expect("holder@after_peak", M, size=82501, made=1, live=1, thread="holder-%d" % n)
known.finish()
