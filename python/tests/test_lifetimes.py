"""Which Python objects survive: known answers, each in a process of its own."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from heaptide import FileFormat, Tracker

Piece = Callable[[str], str]

OLD = sys.version_info < (3, 13, 3)
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")
needs_tracer = pytest.mark.skipif(OLD or not HAS_GIL, reason="the interpreter does not tell of all objects")

HELPERS = """
import gc, os, sys, threading
from heaptide import FileDestination, FileFormat, FileReader, Tracker

class Made:
    pass

def make(n):
    held = []
    for _ in range(n): held.append(Made())
    return held

def new(path="x.tide", **more):
    return Tracker(path, track_object_lifetimes=True, **more)

def count(tracker, kind=Made):
    return sum(type(each) is kind for each in tracker.get_surviving_objects())

def events(path="x.tide", **which):
    return list(FileReader(path).get_object_lifetime_events(**which))

def refused(call):
    try:
        return f"no refusal: {call()!r}"
    except RuntimeError as error:
        return str(error)
"""


@pytest.mark.skipif(not OLD, reason="the interpreter tells of all objects")
def test_old_interpreters_are_refused(tmp_path: Path) -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    message = f"Python object reference tracking requires Python 3.13.3 or later. Current version: {version}"
    with pytest.raises(RuntimeError, match=message):
        Tracker(tmp_path / "x", track_object_lifetimes=True)
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(HAS_GIL, reason="the interpreter has a GIL")
def test_interpreters_without_the_gil_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="requires a Python with the GIL"):
        Tracker(tmp_path / "x", track_object_lifetimes=True)
    assert not (tmp_path / "x").exists()


@needs_tracer
@pytest.mark.parametrize("file_format", list(FileFormat))
@pytest.mark.parametrize("python_allocators", [False, True])
def test_survivors_and_their_stacks(in_process: Piece, file_format: FileFormat, python_allocators: bool) -> None:
    printed = in_process(
        HELPERS
        + f"""
before = make(4)
with new(file_format=FileFormat({file_format}), trace_python_allocators={python_allocators}) as tracker:
    kept = make(3)
    gone = make(5)
    del gone, before[1:]
    text = "%d" % 12345678
    numbers = [float(text), int(text)]
after = make(2)
survivors = tracker.get_surviving_objects()
print(type(survivors).__name__, len(survivors), survivors[0] is kept, [survivors[n] is kept[n - 1] for n in (1, 2, 3)])
print([type(each).__name__ for each in survivors], survivors[4] is text)
records = events()
print([r.address for r in records] == [id(each) for each in survivors], [r.type_name for r in records])
own = threading.get_native_id()
print({{r.is_created for r in records}}, {{r.tid for r in records}} == {{own}}, records[0].thread_name)
made = records[1]
print([r.stack_trace(1)[0][0] for r in records], len(made.stack_trace()), made.stack_trace()[0][1:] ==
      (__file__, make.__code__.co_firstlineno + 2), made.native_stack_trace(), made.hybrid_stack_trace(1)[0][0])
print([r.type_name for r in events(included_objects=[text, before])], events(included_objects=[]))
print(FileReader("x.tide").metadata.track_object_lifetimes, repr(records[4]).endswith("type=str>"))
"""
    )
    types = ["list", "Made", "Made", "Made", "str", "list", "float", "int"]
    lines = printed.splitlines()
    assert lines[0] == "tuple 8 True [True, True, True]"
    order = eval(lines[1].rsplit(" ", 1)[0])
    assert sorted(order) == sorted(types)
    assert order[:5] == types[:5]
    assert lines[1].endswith(" True")
    assert lines[2] == f"True {order}"
    assert lines[3] == "{True} True MainThread"
    assert lines[4] == "['make', 'make', 'make', 'make'" + ", '<module>'" * 4 + "] 2 True [] make"
    assert lines[5] == "['str'] []"
    assert lines[6] == "True True"


@needs_tracer
def test_nothing_survives_an_empty_block(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
for number in range(3):
    with new(f"{number}.tide") as tracker:
        pass
    print(tracker.get_surviving_objects(), events(f"{number}.tide"))
with new() as tracker:
    [make(10) for _ in range(100)]
    {n: str(n) for n in range(1000)}
print(tracker.get_surviving_objects(), events())
"""
    )
    assert printed == "() []\n" * 4


@needs_tracer
def test_free_lists_cycles_generators_and_coroutines(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
import asyncio

def numbers():
    while True:
        yield Made()

class Risen:
    kept = []
    def __del__(self):
        Risen.kept.append(self)

async def waits():
    held = Made()
    await asyncio.sleep(0)
    return held

asyncio.run(waits())
with new() as tracker:
    # Each comes from a free list after the first
    for n in range(10000):
        (n + 0.5, [n], {n: n}, (n, n + 1), slice(n))
    floats = [n + 0.25 for n in range(300)]
    generator = numbers()
    first = [next(generator), next(generator)]
    cycle = make(2)
    cycle[0].other, cycle[1].other = cycle[1], cycle[0]
    del cycle
    gc.collect()
    Risen()
    task = asyncio.run(waits())
kinds = [type(each).__name__ for each in tracker.get_surviving_objects()]
print(count(tracker), kinds.count("float"), kinds.count("generator"), kinds.count("Risen"), kinds.count("coroutine"))
of_generator = [r for r in events() if r.stack_trace(1)[0][0] == "numbers"]
print(len(of_generator), [frame[0] for frame in of_generator[0].stack_trace()])
print([r.stack_trace(1)[0][0] for r in events(included_objects=[task])])
print(count(tracker, slice), count(tracker, dict) <= 3)
"""
    )
    lines = printed.splitlines()
    # Two of the generator, one of the coroutine. Of what its finaliser brings back the interpreter tells the end only.
    assert lines == ["3 300 1 0 0", "2 ['numbers', '<module>']", "['waits']", "0 True"]


@needs_tracer
def test_threads(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
kept = []

def work(n):
    for _ in range(2000):
        make(10)
    kept.append(make(n))

def pass_on():
    for _ in range(5000):
        queue.append(Made())

def take():
    for _ in range(5000):
        while not queue:
            pass
        queue.pop()

queue = []
with new() as tracker:
    threads = [threading.Thread(target=work, args=(n,), name=f"worker {n}") for n in range(1, 5)]
    threads += [threading.Thread(target=pass_on), threading.Thread(target=take)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(count(tracker), len(queue))
by_thread = {}
for record in events():
    if record.type_name == "Made":
        by_thread[record.thread_name] = by_thread.get(record.thread_name, 0) + 1
        assert [frame[0] for frame in record.stack_trace()][:2] == ["make", "work"]
print(sorted(by_thread.items()))
"""
    )
    by_thread = "[('worker 1', 1), ('worker 2', 2), ('worker 3', 3), ('worker 4', 4)]"
    assert printed == f"10 0\n{by_thread}\n"


@needs_tracer
def test_references_are_given_back(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
import weakref
held = Made()
for number in range(20):
    with new(f"{number}.tide") as tracker:
        objects = make(1000)
    alive = weakref.ref(objects[0])
    assert count(tracker) == 1000
    del objects
    # The tracker has them, and nobody else
    gc.collect()
    assert alive() is not None
    assert sys.getrefcount(alive()) <= 3, sys.getrefcount(alive())
    del tracker
    assert alive() is None

def private():
    return int(open("/proc/self/statm").read().split()[5]) * 4096

def often(n):
    for _ in range(n):
        with Tracker(destination=FileDestination("o.tide", overwrite=True, compress_on_exit=False),
                     track_object_lifetimes=True) as tracker:
            objects = make(20000)
        assert count(tracker) == 20000

often(5)
before = private()
often(40)
print((private() - before) // (1 << 20))
"""
    )
    # A table of 20 000 objects is half a MiB.
    assert int(printed) < 8


@needs_tracer
def test_forks(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
import json
def child(follow):
    name = f"{follow}.tide"
    reading, writing = os.pipe()
    with new(name, follow_fork=follow) as tracker:
        kept = make(3)
        pid = os.fork()
        if not pid:
            del kept
            more = make(7)
    if not pid:
        found = [refused(tracker.get_surviving_objects), count_of_own()]
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    print(follow, count(tracker), *json.loads(os.read(reading, 1000)))
    if follow:
        print(FileReader(f"{name}.{pid}").metadata.track_object_lifetimes)

def count_of_own():
    with new(f"{os.getpid()}.tide") as tracker:
        kept = make(4)
        make(5)
    return count(tracker), len([r for r in events(f"{os.getpid()}.tide") if r.type_name == "Made"])

child(False)
child(True)
"""
    )
    unknown = "Tracking was never started or has not finished yet or failed."
    assert printed == f"False 3 {unknown} [4, 4]\nTrue 3 {unknown} [4, 4]\nFalse\n"


@needs_tracer
def test_other_tracers(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
import ctypes, tracemalloc
tracemalloc.start()
tracker = new("refused.tide")
print(refused(tracker.__enter__))
tracemalloc.stop()
# It may be used all the same
with new("later.tide") as tracker:
    kept = make(2)
print(count(tracker))
with new() as tracker:
    kept = make(2)
    tracemalloc.start()
    make(5)
    tracemalloc.stop()
print(refused(tracker.get_surviving_objects))
print(refused(events))

api = ctypes.pythonapi
Tracer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
api.PyRefTracer_SetTracer.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
api.PyRefTracer_GetTracer.restype = ctypes.c_void_p
quiet = ctypes.CDLL(None).labs
with new("theirs.tide") as tracker:
    kept = make(2)
    assert api.PyRefTracer_SetTracer(ctypes.cast(quiet, ctypes.c_void_p), None) == 0
# It is theirs, and stays
is_theirs = api.PyRefTracer_GetTracer(None) == ctypes.cast(quiet, ctypes.c_void_p).value
print(is_theirs, refused(tracker.get_surviving_objects)[:35])
api.PyRefTracer_SetTracer(None, None)
with new("last.tide") as tracker:
    kept = make(6)
print(count(tracker), api.PyRefTracer_GetTracer(None))
"""
    )
    lines = printed.splitlines()
    assert lines[0] == (
        "something else traces Python objects (tracemalloc, or another tool), and there can be one at a time: "
        "stop it first"
    )
    assert lines[1] == "2"
    assert lines[2].startswith("Which objects survived is not known: another tracer of objects")
    assert lines[3].startswith(
        "Object lifetime events are not available in this capture file. Which objects survived is not"
    )
    assert lines[4] == "True Which objects survived is not known"
    assert lines[5] == "6 None"


@needs_tracer
def test_other_interpreters_are_left_out(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
try:
    import concurrent.interpreters as interpreters
except ImportError:
    print(3)
    sys.exit()

code = '''
import threading
class Made: pass
kept = [Made() for _ in range(1000)]
gone = [Made() for _ in range(100000)]
del gone
'''
before = interpreters.create()
with new() as tracker:
    within = interpreters.create()
    threads = [threading.Thread(target=each.exec, args=(code,)) for each in (before, within)]
    for thread in threads: thread.start()
    for _ in range(2000): make(10)
    kept = make(3)
    for thread in threads: thread.join()
names = [type(each).__name__ for each in tracker.get_surviving_objects()]
print(names.count("Made"))
before.close()
within.close()
"""
    )
    assert printed == "3\n"


@needs_tracer
def test_what_is_not_known_is_refused(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
import signal
print(refused(Tracker("plain.tide").get_surviving_objects))
tracker = new("early.tide")
print(refused(tracker.get_surviving_objects))
with tracker:
    print(refused(tracker.get_surviving_objects))
    print(refused(lambda: events("early.tide")))
print(tracker.get_surviving_objects())
with Tracker("without.tide"): pass
print(refused(lambda: events("without.tide")), FileReader("without.tide").metadata.track_object_lifetimes)
reader = FileReader("without.tide")
reader.close()
try:
    reader.get_object_lifetime_events()
except ValueError as error:
    print(error)
if not os.fork():
    with new("killed.tide"):
        kept = make(3)
        os.kill(os.getpid(), signal.SIGKILL)
os.wait()
print(refused(lambda: events("killed.tide")))
"""
    )
    asked = "track_object_lifetimes=True was not provided at Tracker construction"
    unfinished = "Tracking was never started or has not finished yet or failed."
    not_here = "Object lifetime events are not available in this capture file."
    not_ended = (
        f"{not_here} Which objects survive is written when tracking ends, and it has not: the program still runs, was "
        "killed, or could not be tracked to its end."
    )
    assert printed.splitlines() == [
        asked,
        unfinished,
        unfinished,
        not_ended,
        "()",
        f"{not_here} The file was not generated with track_object_lifetimes=True. False",
        "Operation on a closed FileReader",
        not_ended,
    ]


@needs_tracer
def test_a_program_that_ends_in_the_block(in_process: Piece) -> None:
    """The interpreter ends, and who lives then is written."""
    printed = in_process(
        HELPERS
        + """
pid = os.fork()
if not pid:
    kept = None
    new().__enter__()
    kept = make(3)
    make(5)
    sys.exit()
os.waitpid(pid, 0)
print([r.type_name for r in events()].count("Made"))
"""
    )
    assert printed == "3\n"


@needs_tracer
def test_much_of_the_library(in_process: Piece) -> None:
    """All that is handed out is whole: nothing that died unheard of is among it."""
    printed = in_process(
        HELPERS
        + """
import ast, collections, dataclasses, decimal, enum, fractions, inspect, json, re, sqlite3, typing
import xml.etree.ElementTree
sources = [module.__file__ for module in (ast, collections, dataclasses, enum, inspect, json, re, typing)]
held = []

def use():
    for path in sources:
        with open(path) as file: text = file.read()
        tree = ast.parse(text)
        held.append(compile(tree, path, "exec"))
        held.append(re.findall(r"def (\\w+)", text)[:50])
        held.append(json.loads(json.dumps([node.lineno for node in ast.walk(tree) if hasattr(node, "lineno")])))
        held.append(b"".join(part.encode() for part in text.split()))
        held.append(tuple(word for word in text.split() if len(word) > 9))
        held.append("".join(reversed(text))[:1000] + str(decimal.Decimal(len(text)) / 7))
    root = xml.etree.ElementTree.fromstring("<a>" + "<b c='1'>x</b>" * 500 + "</a>")
    held.append([child.get("c") for child in root])
    base = sqlite3.connect(":memory:")
    base.execute("create table t (a, b)")
    base.executemany("insert into t values (?, ?)", ((n, str(n) * 3) for n in range(1000)))
    held.append(base.execute("select * from t").fetchall())
    held.append(type("New", (), {"__slots__": ("a",), "method": lambda self: 1}))
    held.append([fractions.Fraction(n, 7) for n in range(1, 100)])

use()
held.clear()
with new() as tracker:
    use()
    use()
survivors = tracker.get_surviving_objects()
known = {id(each) for each in survivors}
reached = [each for each in gc.get_objects() if id(each) in known]
print(len(survivors) > 20000, len(known) == len(survivors), len(reached) > 1000)
for each in survivors:
    type(each).__name__, sys.getrefcount(each), sys.getsizeof(each)
# All that is in what is held, and what was made in the block, is known
rows = held[-3]
print(all(id(row) in known and id(row[1]) in known for row in rows), len(rows))
print(all(id(each) in known for each in held[-1]), id(held[-2]) in known)
del rows, survivors, known, reached, tracker, each
held.clear()
gc.collect()
"""
    )
    assert printed == "True True True\nTrue 1000\nTrue True\n"
