"""Threads that come and go, one after the other: C threads by the thousand, Python threads by the hundred."""
import sys
import threading

import bare


def work():
    bare.free(bare.malloc(92001))


def resident():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("RssAnon")).split()[1])


sequence = bare.function("thread_sequence", None, bare.Z, bare.Z)
for _ in range(100):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
sequence(1000, 92003)
before = resident()
sequence(9000, 92003)
print(resident() - before)
