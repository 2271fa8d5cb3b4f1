"""Three phases of known allocations with states between them that hold still while samples of memory are taken. Writes when each
state was, in nanoseconds since the Unix epoch, into the file that the argument names."""
import array
import json
import mmap
import sys
import threading
import time

HOLDING_SECONDS = 0.4

# Free pools of every size for small objects, so that no arena is mapped in a phase.
rows = [[bytes(size) for _ in range(8000)] for size in range(16, 480, 16)]
for row in rows:
    row[:] = row[::50]

kept = {}
holds = []


def hold():
    begin = time.time_ns()
    time.sleep(HOLDING_SECONDS)
    holds.append((begin, time.time_ns()))


def make(size):
    return bytearray(size)


def load():
    kept["table"] = [make(40_000 + n) for n in range(50)]
    kept["mapping"] = mmap.mmap(-1, 3 << 20)
    burst = [make(1_000_000) for _ in range(5)]
    kept["growing"] = array.array("d", range(10_000))
    del burst


def work():
    mine = [make(500_000) for _ in range(4)]
    passed.append(mine.pop())


passed = []


def serve():
    del kept["table"][10:30]
    for _ in range(3):
        kept["growing"].extend(kept["growing"])
    for number in range(2):
        worker = threading.Thread(target=work, name="worker-%d" % number)
        worker.start()
        worker.join()
    for size in range(100_000, 110_000, 100):
        make(size)
    first, second = make(6_000_000), make(7_000_000)
    del first
    kept["second"] = second


def finish():
    kept["mapping"].close()
    kept["table"].append(make(123_456))
    del kept["table"][:20]
    top = make(30_000_000)
    kept["late"] = bytes(65_432)
    del top
    passed.clear()


hold()
load()
hold()
serve()
hold()
finish()
hold()
with open(sys.argv[1], "w") as file:
    json.dump(holds, file)
