"""sys.setprofile, settrace, cProfile, faulthandler, tracemalloc, signal handlers: all at work, all undisturbed."""
import cProfile
import faulthandler
import os
import signal
import sys
import threading
import tracemalloc

import bare

faulthandler.enable()
events = []


def callee(size):
    bare.free(bare.malloc(size))  # callee
    return [size] * 100


def work():
    return sum(len(callee(n)) for n in range(1000, 1020))


def observe(frame, event, argument):
    events.append((event, frame.f_code.co_name, frame.f_lineno - frame.f_code.co_firstlineno))
    return observe


for install in (sys.setprofile, sys.settrace):
    del events[:]
    install(observe)
    work()
    install(None)
    print(install.__name__, len(events), events[:9])
threading.setprofile(observe)
del events[:]
thread = threading.Thread(target=work)
thread.start()
thread.join()
threading.setprofile(None)
print(sorted({name for _, name, _ in events}))
profile = cProfile.Profile()
profile.enable()
work()
profile.disable()
print(sorted((entry.code if isinstance(entry.code, str) else entry.code.co_name, entry.callcount) for entry in profile.getstats()))
if hasattr(sys, "monitoring"):
    calls = []
    sys.monitoring.use_tool_id(3, "test")
    sys.monitoring.register_callback(3, sys.monitoring.events.PY_START, lambda code, _: calls.append(code.co_name))
    sys.monitoring.set_events(3, sys.monitoring.events.PY_START)
    work()
    sys.monitoring.set_events(3, 0)
    print(len(calls), sorted(set(calls)), [sys.monitoring.get_tool(n) for n in range(6)])
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
kept = bytearray(1000000)
print(tracemalloc.get_traced_memory()[0] - before >= 1000000)
tracemalloc.stop()
caught = []
signal.signal(signal.SIGALRM, lambda number, frame: caught.append([bytearray(1000) for _ in range(10)]))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while len(caught) < 50:
    callee(700)
signal.setitimer(signal.ITIMER_REAL, 0)
print("handled")
# The C handler allocates in the middle of whatever it interrupts, the profiler's hooks included
print(bare.function("signal_storm", bare.U, bare.U, bare.ctypes.c_long)(100000, 50000) >= 100)
faulthandler.dump_traceback(file=sys.stdout.fileno() and sys.stdout, all_threads=False)
