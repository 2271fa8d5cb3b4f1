"""Tracks many stretches while eight threads allocate, and looks each time whether all is as it was before.

Argument: how many. Prints what it has found, as JSON."""
import array
import ctypes
import json
import os
import sys
import threading

import bare
import stretch

COUNT = int(sys.argv[1])
THREADS = 8
SETTLED = COUNT // 4


class Functions(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")]


def allocators():
    found = []
    for domain in range(3):
        functions = Functions()
        ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(functions))
        found.append(bytes(functions))
    return found


def maps():
    with open("/proc/self/maps") as file:
        return [line.split() for line in file]


def words_into_the_agent():
    """Where words of the data of libraries and of the interpreter lead into the agent's code."""
    rows = maps()
    code = [row[0] for row in rows if row[-1].endswith("agent.so") and "x" in row[1]]
    first, last = (int(part, 16) for part in code[0].split("-"))
    found = set()
    with open("/proc/self/mem", "rb") as memory:
        for row in rows:
            if len(row) < 6 or not row[5].startswith("/") or "agent.so" in row[5] or row[1] not in ("rw-p", "r--p"):
                continue
            start, end = (int(part, 16) for part in row[0].split("-"))
            memory.seek(start)
            words = array.array("Q", memory.read(end - start))
            # Sorted out in C first: most of them are none
            if max(words, default=0) >= first:
                found.update(start + 8 * n for n, word in enumerate(words) if first <= word < last)
    return found


def anonymous_bytes():
    """Mappings without a name. The C library's heap has one, and comes and goes with what is read here."""
    ends = [[int(part, 16) for part in row[0].split("-")] for row in maps() if len(row) < 6]
    return sum(end - start for start, end in ends)


ending = False
steps = [0] * THREADS


def work(number):
    kept = [None] * 50
    while not ending:
        slot = steps[number] % 50
        if kept[slot]:
            bare.free(kept[slot])
        kept[slot] = bare.malloc(5000 + 16 * number + slot)
        [object() for _ in range(20)]
        steps[number] += 1
        if steps[number] % 40 == 0:
            # Threads that are born in one stretch and end in another
            thread = threading.Thread(target=bare.churn, args=(1, 3000))
            thread.start()
            thread.join()
    for block in kept:
        if block:
            bare.free(block)


def stretch_of(number):
    code = stretch.start("%d.tide" % number, below=number)
    blocks = [0] * 10
    for n in range(10):
        blocks[n] = bare.malloc(70001)  # made
    for n in range(7):
        bare.free(blocks[n])
    return code, stretch.stop(), blocks[7:]


def thread_names():
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open("/proc/self/task/%s/comm" % task) as file:
                names.append(file.read().strip())
        except OSError:
            # It has just ended
            pass
    return names


stretch.agent()
# Small, for the C library keeps a few of those of threads that have ended
threading.stack_size(128 << 10)
threads = [threading.Thread(target=work, args=(n,), name="worker %d" % n) for n in range(THREADS)]
for thread in threads:
    thread.start()
before = allocators()
wrong, words, sizes = [], [], []
left = []
for number in range(COUNT):
    started, stopped, blocks = stretch_of(number)
    if (started, stopped, stretch.state()) != (stretch.OK, stretch.OK, stretch.IDLE):
        wrong.append("stretch %d: %d, %d" % (number, started, stopped))
    if allocators() != before:
        wrong.append("stretch %d: other allocators" % number)
    # Freed between two stretches and in later ones
    left += blocks
    while len(left) > 4:
        bare.free(left.pop(0))
    if number % 100 == 0:
        words.append(words_into_the_agent())
    if number == SETTLED or number == COUNT - 1:
        sizes.append(anonymous_bytes())
ending = True
for thread in threads:
    thread.join()
if not all(found == words[0] for found in words):
    wrong.append("slots lead into the agent: %r" % [sorted(map(hex, found)) for found in words])
print(json.dumps({"wrong": wrong[:20], "words": len(words[0]), "sizes": sizes, "steps": sum(steps), "samplers": thread_names().count("heaptide")}))
