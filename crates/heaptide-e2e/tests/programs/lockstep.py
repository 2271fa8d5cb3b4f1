"""Threads that take turns in an order that a seed gives, and share their blocks; what they do is in a log.

Arguments: file of the log, seed, steps. Prints the number of events and the threads that never saw Python."""
import ctypes
import mmap
import os
import sys
import threading

library = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lockstep.so"))
U, I = ctypes.c_uint64, ctypes.c_int
library.ht_lockstep_prepare.argtypes = I, U, U, ctypes.c_void_p, U
library.ht_lockstep_prepare.restype = None
library.ht_lockstep_events.restype = U
step = library.ht_lockstep
step.argtypes, step.restype = [I], None
RECORD = 32

seed, steps = int(sys.argv[2]), int(sys.argv[3])
room = 4 * steps + 1000
with open(sys.argv[1], "w+b") as file:
    file.truncate(room * RECORD)
    mapping = mmap.mmap(file.fileno(), room * RECORD)
log = (ctypes.c_char * (room * RECORD)).from_buffer(mapping)
library.ht_lockstep_prepare(6, seed, steps, ctypes.addressof(log), room)


def first(number):
    step(number)  # first


def second(number):
    first(number)


threads = [threading.Thread(target=target, args=(n,)) for n, target in ((1, first), (2, second), (3, second))]
for thread in threads:
    thread.start()
for number in (4, 5):
    assert library.ht_lockstep_pthread(number) == 0
step(0)  # main
for thread in threads:
    thread.join()
print(library.ht_lockstep_events())
