"""One thing after another that a program may do while it tracks itself. Argument: which. Prints what it has found, as JSON."""
import ctypes
import json
import os
import shutil
import signal
import struct
import sys
import threading
import time
import tracemalloc
import warnings
import weakref
import zlib

import bare
import stretch

SIZE = 70001
PID = 40  # offset of the process id in a capture


def adopt(number):
    """Makes a capture that was made for the parent one of this process, as the extension module would have."""
    path = "%d.tide" % number
    with open(path, "r+b") as file:
        head = bytearray(file.read(512))
        struct.pack_into("<I", head, PID, os.getpid())
        struct.pack_into("<I", head, 508, zlib.crc32(head[:508]))
        file.seek(0)
        file.write(head)
    return path


def make(count):
    blocks = [0] * count
    for n in range(count):
        blocks[n] = bare.malloc(SIZE)  # made
    return blocks


def release(blocks):
    for block in blocks:
        bare.free(block)


def codes():
    found = {"before": [stretch.stop(), stretch.state()]}
    bad = stretch.config("0.tide")
    bad.bytes += 8
    start = stretch.agent().heaptide_start
    found["size"] = start(ctypes.byref(bad))
    found["null"] = start(None)
    found["flags"] = stretch.start("0.tide", flags=1 << 31)
    bad = stretch.config("0.tide")
    bad.path = b"0.tide"
    found["relative"] = start(ctypes.byref(bad))
    missing = stretch.config("missing.tide")
    found["missing"] = [start(ctypes.byref(missing)), missing.os_error]
    with open("zeroes.tide", "wb") as file:
        file.write(bytes(1 << 16))
    found["zeroes"] = stretch.start("zeroes.tide")
    found["without_gil"] = stretch.without_gil().heaptide_start(ctypes.byref(stretch.config("0.tide")))
    found["start"] = [stretch.start("0.tide"), stretch.state()]
    found["again"] = stretch.start("1.tide")
    found["stop"] = [stretch.stop(), stretch.state()]
    found["used"] = stretch.start("0.tide")
    found["next"] = [stretch.start("1.tide"), stretch.stop()]
    found["after"] = stretch.stop()
    return found


def supervised():
    return {"start": stretch.start("0.tide"), "stop": stretch.stop(), "state": stretch.state()}


def across():
    """Blocks of one stretch are freed between two, in the next, and never."""
    early = make(4)
    codes = [stretch.start("0.tide")]
    first = make(10)
    codes.append(stretch.stop())
    between = make(5)
    release(first[:2])
    codes.append(stretch.start("1.tide"))
    release(early + first[2:6] + between)
    second = make(3)
    release(second[:1])
    codes.append(stretch.stop())
    return {"codes": codes, "freed": len(early + first[2:6] + between)}


def fork():
    """A child that is not followed: nothing is on there, and it may track itself."""
    codes = [stretch.start("0.tide")]
    blocks = make(10)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = [stretch.state(), stretch.stop(), stretch.state()]
        release(blocks)
        found += [stretch.start(adopt(1)), stretch.state()]
        make(7)
        thread = threading.Thread(target=make, args=(2,), name="of the child")
        thread.start()
        thread.join()
        found.append(stretch.stop())
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    release(blocks[:1])
    codes.append(stretch.stop())
    return {"codes": codes, "child": json.loads(os.read(reading, 1000))}


def follow():
    """Children that are followed: one stops, one goes on until `_exit`, one is killed, and one has a child of its own."""
    codes = [stretch.start("0.tide")]
    make(10)
    pids = []
    for way in ("stop", "_exit", "SIGKILL", "samples", "grandchild"):
        pid = os.fork()
        if pid == 0:
            make(20)
            if way == "stop":
                os._exit(stretch.stop() * 10 + stretch.state())
            if way == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            if way == "samples":
                # Its sampler begins at an audit event
                compile("1", "x", "eval")
                until = time.monotonic() + 0.1
                while time.monotonic() < until:
                    bare.free(bare.malloc(1001))
                os._exit(len(os.listdir("/proc/self/task")))
            if way == "grandchild":
                grandchild = os.fork()
                if grandchild == 0:
                    make(30)
                    os._exit(0)
                os.waitpid(grandchild, 0)
                os._exit(stretch.stop())
            os._exit(5)
        pids.append((way, pid, os.waitpid(pid, 0)[1]))
    make(1)
    codes.append(stretch.stop())
    # No hook is left that would follow
    pid = os.fork()
    if pid == 0:
        make(1)
        os._exit(0)
    os.waitpid(pid, 0)
    return {"codes": codes, "children": pids, "stranger": pid}


def end(way):
    """Ends while tracking is on, with a thread that allocates for ever."""
    def for_ever():
        while True:
            bare.free(bare.malloc(90001))

    threading.Thread(target=for_ever, daemon=True).start()
    assert stretch.start("0.tide") == stretch.OK
    make(10)
    sys.stdout.write("{}")
    sys.stdout.flush()
    if way == "_exit":
        os._exit(7)
    if way == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "sys.exit":
        sys.exit(3)
    if way == "exception":
        raise ValueError("as it should")


def samples():
    """Samples are taken, by nobody that Python knows, and forks are none the wiser."""
    warnings.simplefilter("error")
    os.register_at_fork(after_in_parent=lambda: sum(range(1000)))
    tasks = lambda: len(os.listdir("/proc/self/task"))
    found = {"tasks": [tasks()], "codes": [stretch.start("0.tide")]}
    found["tasks"].append(tasks())
    found["python"] = [threading.active_count(), len(sys._current_frames())]

    def busy():
        ballast = bytearray(32 << 20)
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            bare.free(bare.malloc(1001))
        return ballast

    busy()
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            os._exit(tasks())
        status = os.waitpid(pid, 0)[1]
        found["tasks"].append(os.WEXITSTATUS(status))
    found["forked_ns"] = time.time_ns()
    busy()
    found["tasks"].append(tasks())
    found["codes"].append(stretch.stop())
    found["tasks"].append(tasks())
    return found


def signals():
    """A signal handler of C's that allocates comes in everywhere, also in start and stop."""
    found = []
    install = bare.function("storm_of_signals", None, bare.I)
    install(1)
    for number in range(100):
        found.append(stretch.start("%d.tide" % number))
        release(make(5))
        found.append(stretch.stop())
    install(0)
    return {"codes": found}


def wrapped():
    """`tracemalloc` comes and goes in, between and across stretches that hold Python's requests, and in one that does not."""
    def objects(count):
        return [bytearray(200) for _ in range(count)]

    found, kept = [], []
    for number in range(8):
        if number in (1, 4):
            tracemalloc.start()
        found.append(stretch.start("%d.tide" % number))
        if number == 3:
            tracemalloc.start()
        kept.append(objects(1000))
        if number in (2, 5):
            tracemalloc.stop()
        found.append(stretch.stop())
        if number == 3:
            tracemalloc.stop()
    return {"codes": found}


def waiting():
    """Hooks that wait for the GIL (`tracemalloc` takes it for raw memory, before 3.13) while stop waits for hooks."""
    ending = False

    def work():
        # A raw request in a call that lets the GIL go
        while not ending:
            bare.free(bare.malloc(3000))
            for _ in range(20):
                os.path.exists("/")
            time.strftime("%Y" * 100)

    tracemalloc.start()
    raw_malloc = ctypes.CDLL(None).PyMem_RawMalloc
    raw_free = ctypes.CDLL(None).PyMem_RawFree
    raw_malloc.restype, raw_malloc.argtypes, raw_free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

    def raw():
        while not ending:
            raw_free(raw_malloc(5001))

    threads = [threading.Thread(target=target) for target in (work, raw, raw, raw)]
    for thread in threads:
        thread.start()
    found = []
    for number in range(100):
        found.append(stretch.start("%d.tide" % number))
        make(3)
        found.append(stretch.stop())
    ending = True
    for thread in threads:
        thread.join()
    return {"codes": found}


def stuck():
    """A thread is in a hook and does not leave it before stop has lost patience."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pycounter.so")
    held, released = ctypes.PyDLL(path), ctypes.CDLL(path)
    held.pc_close_gate()
    found = [stretch.start("0.tide")]
    make(4)
    thread = threading.Thread(target=released.pc_request_through_gate, args=(6001,))
    thread.start()
    while not held.pc_at_gate():
        time.sleep(0)
    began = time.monotonic()
    found += [stretch.stop(), stretch.state()]
    waited = time.monotonic() - began
    # The capture is finished; the memory stays, and there is no next stretch
    found += [stretch.start("1.tide"), stretch.stop()]
    held.pc_open_gate()
    thread.join()
    found += [stretch.start("1.tide"), stretch.state()]
    make(2)
    found += [stretch.stop(), stretch.state()]
    return {"codes": found, "waited": waited}


def given_back():
    """Blocks are given back from within requests to Python's allocators, by what is behind us."""
    library = ctypes.PyDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "pycounter.so"))
    library.pc_install_giver()
    found = [stretch.start("0.tide")]
    blocks = make(6)
    library.pc_give_back((ctypes.c_void_p * 5)(*blocks[:5]))
    # Where those were others come to lie
    release(make(5))
    return {"codes": found + [stretch.stop()]}


class Made:
    pass


def lives():
    """Objects that survive; the interpreters that do not tell of all are refused, and so is a second tracer."""
    def some(count):
        return [Made() for _ in range(count)]

    before = some(3)
    found = {"start": stretch.start("0.tide")}
    if found["start"] == stretch.UNSUPPORTED:
        found["state"] = stretch.state()
        return found
    kept = some(5)
    some(1000)
    before.clear()
    found["stop"] = stretch.stop()
    after = some(2)
    survivors = stretch.survivors()
    # There are more: what `ctypes` makes for the calls
    first = [id(each) for each in survivors].index(id(kept))
    found["first"] = first
    found["survivors"] = [each is expected for each, expected in zip(survivors[first:], [kept] + kept)]
    found["count"] = sum(type(each) is Made for each in survivors)
    found["references"] = sys.getrefcount(kept[0]) - sys.getrefcount(after[0])
    found["ids"] = [id(each) for each in survivors]
    found["again"] = stretch.survivors()
    del survivors
    # Nobody asks for these, and the next start lets them go
    found["codes"] = [stretch.start("1.tide")]
    ghost = Made()
    ghost_is_gone = weakref.ref(ghost)
    found["codes"].append(stretch.stop())
    del ghost
    tracemalloc.start()
    found["codes"] += [stretch.start("2.tide"), stretch.state()]
    found["ghost"] = ghost_is_gone() is None
    tracemalloc.stop()
    found["codes"].append(stretch.start("3.tide"))
    tracemalloc.start()
    tracemalloc.stop()
    found["codes"] += [stretch.stop(), stretch.survivors() is None]
    return found


def racing():
    """Threads that start and stop against one another, while others allocate and fork."""
    warnings.simplefilter("ignore")
    numbers = iter(range(200))
    lock = threading.Lock()
    found = {}
    ending = False

    def count(what):
        with lock:
            found[what] = found.get(what, 0) + 1

    def rival():
        mine = None
        while True:
            with lock:
                mine = next(numbers, None) if mine is None else mine
            if mine is None:
                return
            code = stretch.start("%d.tide" % mine)
            count("start %d" % code)
            if code == stretch.OK:
                make(3)
                # Nobody else may have it
                mine = None
            # Another's stretch as well as one's own
            count("stop %d" % stretch.stop())

    def fork():
        while not ending:
            pid = os.fork()
            if pid == 0:
                release(make(2))
                os._exit(stretch.state())
            count("child %d" % os.waitpid(pid, 0)[1])

    def work():
        while not ending:
            release(make(2))
            [object() for _ in range(100)]

    others = [threading.Thread(target=target) for target in (fork, fork, work, work)]
    rivals = [threading.Thread(target=rival) for _ in range(3)]
    for thread in others + rivals:
        thread.start()
    for thread in rivals:
        thread.join()
    ending = True
    for thread in others:
        thread.join()
    found["state"] = stretch.state()
    return found


stretch.agent()
print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
