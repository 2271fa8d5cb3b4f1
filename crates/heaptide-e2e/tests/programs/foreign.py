"""A little of everything, for captures that another profiler makes. With an argument the program kills itself at the end."""
import json
import mmap
import os
import sys
import threading

kept = []


class Maker:
    def make(self, size):
        return bytearray(size)


def down(depth):
    block = Maker().make(2000 + depth)
    return 0 if depth == 0 else len(block) + down(depth - 1)


def lazily(count):
    for n in range(count):
        yield Maker().make(900 + n)


def work(number):
    mine = [Maker().make(10_000 + n) for n in range(number)]
    passed.append(mine[:3])
    for _ in range(20):
        Maker().make(700)
    del mine[2:]
    kept.append(mine)


passed = []
for number in range(5):
    threads = [threading.Thread(target=work, args=(number * 3 + n,), name="wörker-%d-%d" % (number, n)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
del passed[::2]

down(60)
kept.append(list(lazily(80)))
kept.append(sorted(len(block) for block in lazily(40)))
kept.append(json.loads(json.dumps([{"id": n, "text": "x" * 600} for n in range(100)])))

mappings = [mmap.mmap(-1, 4096 * (n + 1)) for n in range(12)]
for mapping in mappings[::2]:
    mapping.close()
big = Maker().make(30_000_000)
grown = bytearray()
for n in range(60):
    grown += bytes(5000)
del big, grown
kept.append(eval("Maker().make(8888)"))

if len(sys.argv) > 1:
    os.kill(os.getpid(), 9)
