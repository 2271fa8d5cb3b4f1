"""Requests to Python's own allocators, counted by functions of the program that stand in front of the profiler's.

Arguments: name of the counters' page, then what is to happen. What is counted: everything that is requested by line WORK of
`measured` (in whatever it calls), and by the threads whose kernel ids are printed."""
import atexit
import ctypes
import gc
import json
import os
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
library = ctypes.CDLL(os.path.join(HERE, "pycounter.so"))
library.pc_begin.argtypes = [ctypes.c_char_p]
library.pc_definition.restype = ctypes.c_void_p
library.pc_raw_threads.argtypes = [ctypes.c_int, ctypes.c_size_t]
holding = ctypes.PyDLL(os.path.join(HERE, "pycounter.so"))
new_function = ctypes.pythonapi.PyCFunction_NewEx
new_function.restype = ctypes.py_object
new_function.argtypes = [ctypes.c_void_p] * 3
start, stop, freeze = (new_function(library.pc_definition(n), None, None) for n in range(3))
kept = []
thread_ids = []


def generator(depth):
    if depth:
        yield from generator(depth - 1)
    yield [depth] * depth


class Node:
    def __init__(self, size):
        self.size, self.data, self.other = size, bytes(size), None


def objects(seed):
    """Objects of all kinds and sizes; leaves cycles, and keeps a few."""
    row = []
    for size in range(0, 1200, 7):
        row.append((bytes(size), "x" * size, bytearray(size), [None] * size, {n: str(n) for n in range(size % 40)}))
        row.append({complex(n, seed) for n in range(size % 23)})
    row.append(json.loads(json.dumps([{"name": "n%d" % n, "value": n * 1.5, "list": list(range(n % 9))} for n in range(300)])))
    row.append(list(generator(40)))
    for number in range(200):
        node = Node(number * 3)
        node.other = node
    text = []
    for number in range(2000):
        text.append(str(number ** 9))
        if number % 3 == 0:
            text = text[-50:]
    array = bytearray()
    for number in range(3000):
        array += b"x" * (number % 50)
    names = {}
    for number in range(20):
        exec("def f%d(a, b=1, *c, **d):\n    class K: pass\n    return [K, a, b, c, d]" % number, names)
        row.append(names["f%d" % number](number, x=number)[1:])
    for number in range(30):
        try:
            deep(number)
        except KeyError as error:
            row.append(str(error))
    row.append(sorted(text, key=len))
    kept.append(row[seed % 5::11])


def deep(depth):
    if depth:
        return [deep(depth - 1)]
    return {}[depth]


def direct():
    """The functions themselves, at their edges."""
    absurd = ctypes.c_size_t(-1).value // 4
    for domain in ("PyMem_Raw", "PyMem_", "PyObject_"):
        api = [getattr(ctypes.pythonapi, domain + name) for name in ("Malloc", "Calloc", "Realloc", "Free")]
        malloc, calloc, realloc, free = api
        for function in api:
            function.restype = ctypes.c_void_p
        malloc.argtypes, calloc.argtypes = [ctypes.c_size_t], [ctypes.c_size_t] * 2
        realloc.argtypes, free.argtypes, free.restype = [ctypes.c_void_p, ctypes.c_size_t], [ctypes.c_void_p], None
        assert malloc(absurd) is None and calloc(1, absurd) is None and calloc(absurd, 8) is None
        assert realloc(None, absurd) is None
        free(None)
        kept.append(malloc(0) and calloc(0, 5) and realloc(None, 0))
        for size in (1, 512, 513, 100000, 1 << 21):
            block = malloc(size)
            assert realloc(block, absurd) is None
            block = realloc(block, size * 2)
            block = realloc(block, max(size // 2, 1))
            block = realloc(block, 0)
            free(block)
        kept.append((calloc(3, 200), calloc(100, 1000), realloc(None, 77)))


def in_threads(target, count=4):
    def body(seed):
        thread_ids.append(threading.get_native_id())
        target(seed)

    threads = [threading.Thread(target=body, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A thread gives its state back after `join` has returned: until it is gone for the kernel.
    while any(os.path.exists("/proc/self/task/%d" % number) for number in thread_ids):
        os.sched_yield()


def subinterpreter(seed):
    code = "import json\nx = [json.dumps([n] * n) for n in range(300)]"
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    for _ in range(3):
        inner = interpreters.create()
        interpreters.run_string(inner, code)
        interpreters.destroy(inner)


def work():
    objects(0)
    direct()
    if "threads" in sys.argv:
        in_threads(objects)
        assert library.pc_raw_threads(3, 30000) == 0
    if "subinterpreters" in sys.argv:
        in_threads(subinterpreter, 1)
    if "tracemalloc" in sys.argv:
        import tracemalloc

        for _ in range(3):
            tracemalloc.start()
            objects(1)
            assert tracemalloc.get_traced_memory()[0] > 0
            tracemalloc.stop()
            objects(2)
    gc.collect()


def measured():
    start()
    work()  # WORK
    stop()
    gc.disable()


def daemon():
    while True:
        objects(3)
        del kept[:]


sys.setswitchinterval(1e-4)
if "stop-tracemalloc" in sys.argv:
    import tracemalloc

    assert tracemalloc.is_tracing()
    tracemalloc.stop()
# Somebody notices that something has changed
sys.audit("python_requests.begin")
atexit.register(freeze)
assert holding.pc_install() == 0
sys.audit("python_requests.installed")
pid = 0
if "fork" in sys.argv:
    pid = os.fork()
page = sys.argv[1] + (".child" if "fork" in sys.argv and pid == 0 else "")
assert library.pc_begin(page.encode()) == 0
if "tracemalloc-left-on" in sys.argv:
    import tracemalloc

    tracemalloc.start()
measured()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
if "daemons" in sys.argv:
    for _ in range(4):
        threading.Thread(target=daemon, daemon=True).start()
os.write(1, (json.dumps([os.getpid(), thread_ids]) + "\n").encode())
