"""Five threads allocate and free as fast as they can, three of them Python's, until somebody kills the process.

Arguments: file of the counters, seed, steps of each thread (0: for ever)."""
import ctypes
import sys
import threading

import bare

page = bare.page(sys.argv[1].encode())
seed, steps = int(sys.argv[2]), int(sys.argv[3])


def first(number):
    bare.storm(page, number, seed, steps)  # storm


def second(number):
    first(number)


threads = [threading.Thread(target=target, args=(n,), daemon=True) for n, target in enumerate((first, second, second))]
for thread in threads:
    thread.start()
for number in (3, 4):
    bare.start_storm(page, number, seed, steps)
running = ctypes.c_uint64.from_address(page + 16)
while running.value < 5:
    pass
print("storm", flush=True)
if steps:
    for thread in threads:
        thread.join()
    print("calm", flush=True)
sys.stdin.read()
