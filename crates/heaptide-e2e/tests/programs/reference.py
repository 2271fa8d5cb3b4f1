"""What two profilers must agree about. The argument names a function below; each has a peak of its own and an end of its own."""
import json
import mmap
import sys
import threading

if "numpy_arrays" in sys.argv:
    import numpy

# Free pools of every size for small objects: else the interpreter maps another arena somewhere below, and where depends on how
# many objects the profiler itself has made.
rows = [[bytes(size) for _ in range(8000)] for size in range(16, 480, 16)]
for row in rows:
    row[:] = row[::50]

kept = []


def make(size):
    return bytearray(size)


def plain():
    held = [make(1000 + n) for n in range(300)]
    kept.append(bytes(777_777))
    held.append("x" * 2_000_000)
    text = "".join(chr(65 + n % 26) * 40 for n in range(20_000))
    kept.append(text.encode())
    table = {n: n for n in range(50_000)}
    kept.append(tuple(range(3000)))
    del held, text
    table.clear()
    kept.append(make(4321))


def numpy_arrays():
    a = numpy.zeros((400, 500))
    b = numpy.ones((400, 500), dtype=numpy.float32)
    kept.append(a + b)
    c = numpy.concatenate([a, a, kept[0]])
    kept.append(numpy.sort(c, axis=None)[:1000].copy())
    d = numpy.linspace(0, 1, 1_000_000).reshape(1000, 1000)
    kept.append((d @ d[:, :10]).sum(axis=1))
    del a, b, c, d


def work(number):
    mine = [make(10_000 + number) for _ in range(50)]
    passed.append(mine[:10])
    big = make(3_000_000)
    del big, mine[10:]


passed = []


def threads():
    for number in range(6):
        thread = threading.Thread(target=work, args=(number,), name="worker-%d" % number)
        thread.start()
        thread.join()
    # Blocks that another thread made
    del passed[::2]
    kept.extend(make(5000) for _ in range(3))


def documents():
    document = [{"id": n, "name": "name of %d" % n, "tags": ["a" * 700, "b" * n], "n": [n] * 200} for n in range(300)]
    text = json.dumps(document)
    kept.append(json.loads(text))
    kept.append(json.dumps(kept[0], indent=2, sort_keys=True))
    del document, text


def growth():
    grown = bytearray()
    for n in range(400):
        grown += bytes(5000)
    items = []
    for n in range(200_000):
        items.append(None)
    names = set()
    for n in range(20_000):
        names.add(n)
    while len(items) > 100:
        del items[-100:]
    kept.append(grown)
    kept.append(names)


def mappings():
    held = [mmap.mmap(-1, 4096 * (n + 1)) for n in range(40)]
    held += [mmap.mmap(-1, 10_000_000)]
    with open(__file__, "rb") as file:
        kept.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for mapping in held[::2]:
        mapping.close()
    kept.append(held[1::2])
    mmap.mmap(-1, 65536).close()


def leak(number):
    kept.append([make(20_000), {n: n for n in range(number)}])
    return make(30_000)


def leaks():
    for number in range(200):
        leak(number)
    make(50_000_000)


def temporary():
    for n in range(500):
        make(9000)
        first, second = make(9001), make(9002)
        del first, second
        held = [make(9003), make(9004), make(9005)]
        del held[0]
        del held
    kept.append(make(40_000_000))


def generators():
    def lazily(count):
        for n in range(count):
            yield make(2000 + n)

    make(60_000_000)
    kept.append([block for block in lazily(100)])
    kept.append(sorted((len(block) for block in lazily(3000)), reverse=True))
    kept.append({n: make(600) for n in range(50)})
    list(map(make, range(5000, 5100)))


def recursion():
    def down(depth):
        block = make(1000 + depth if depth else 60_000_000)
        return len(block) if depth == 0 else len(block) + down(depth - 1)

    down(400)
    kept.append(eval("make(8888)", {"make": make}))
    exec("kept.append(make(9999))\nfor _ in range(3): make(7777)", {"make": make, "kept": kept})


globals()[sys.argv[1]]()
