"""Tracker: each test in a process of its own, as users have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import heaptide
from heaptide import FileDestination, FileFormat, FileReader, SocketDestination, Tracker

Piece = Callable[[str], str]

HELPERS = """
import heaptide, json, os, sys, threading
from heaptide import FileDestination, FileFormat, FileReader, Tracker

def many(n):
    held = []
    for _ in range(n): held.append(bytearray(1000))
    return held

def found(path, query="get_leaked_allocation_records"):
    return sum(r.n_allocations for r in getattr(FileReader(path), query)()
               if r.size >= 1001 * r.n_allocations and r.stack_trace(1) and r.stack_trace(1)[0][0] == "many")
"""


@pytest.mark.parametrize("file_format", list(FileFormat))
def test_a_block_is_tracked(in_process: Piece, file_format: FileFormat) -> None:
    printed = in_process(
        HELPERS
        + f"""
before = many(5)
with Tracker("x.tide", file_format=FileFormat({file_format})) as tracker:
    assert isinstance(tracker, Tracker)
    kept = many(7)
    worker = threading.Thread(target=many, args=(3,), name="worker")
    worker.start()
    worker.join()
after = many(9)
reader = FileReader("x.tide")
print(found("x.tide"), found("x.tide", "get_total_allocation_records"), reader.status)
threads = {{r.thread_name for r in reader.get_total_allocation_records(merge_threads=False)}}
print(sorted(threads & {{"MainThread", "worker"}}), reader.metadata.file_format.name, reader.metadata.command_line)
"""
    )
    lines = printed.splitlines()
    assert lines[0] == "7 10 finished (tracking ended, the program still runs)"
    name, command = lines[1].rsplit(" ", 2)[1:]
    assert (name, os.path.basename(command)) == (file_format.name, "piece.py")
    assert lines[1].startswith("['MainThread', 'worker']")


def test_stacks_begin_where_tracking_was_asked_for(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
import contextlib
def outer(): return inner()
def inner():
    with Tracker("x.tide"):
        a = many(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Tracker("y.tide"))
        b = many(1)
    return a, b
kept = outer()
for path in ("x.tide", "y.tide"):
    for record in FileReader(path).get_leaked_allocation_records():
        if 1001 <= record.size < 1100:
            names = [[f[0] for f in record.stack_trace(limit)] for limit in (None, 100)]
            print(json.dumps(names))
"""
    )
    for line in printed.splitlines():
        assert json.loads(line) == [["many", "inner"], ["many", "inner", "outer", "<module>"]]
    assert len(printed.splitlines()) == 2


def test_many_trackers_one_after_the_other(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
for i in range(20):
    with Tracker(destination=FileDestination("x.tide", overwrite=True)):
        kept = many(i + 1)
    assert found("x.tide") == i + 1, i
    del kept
print("done")
"""
    )
    assert printed == "done\n"


def test_one_at_a_time_and_each_once(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
first, second = Tracker("x.tide"), Tracker("y.tide")
with first:
    kept = many(2)
    try:
        with second: pass
    except RuntimeError as error: print(error)
try:
    with first: pass
except RuntimeError as error: print(error)
with second: kept = many(3)
print(found("x.tide"), found("y.tide"))
"""
    )
    assert printed.splitlines() == [
        "No more than one Tracker instance can be active at the same time",
        "Attempting to use stale output handle",
        "2 3",
    ]


def test_exceptions_pass_and_end_tracking(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
try:
    with Tracker("x.tide"):
        kept = many(2)
        1 / 0
except ZeroDivisionError: print("raised")
print(found("x.tide"), FileReader("x.tide").status)
"""
    )
    assert printed.splitlines() == ["raised", "2 finished (tracking ended, the program still runs)"]


def test_a_block_can_be_read_while_it_runs(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
with Tracker("x.tide"):
    kept = many(4)
    seen = found("x.tide")
print(seen, found("x.tide"))
"""
    )
    assert printed == "4 4\n"


def test_captures_are_made_small(in_process: Piece, tmp_path: Path) -> None:
    in_process(
        HELPERS
        + """
for name, small in (("large", False), ("small", True)):
    with Tracker(destination=FileDestination(name, compress_on_exit=small)):
        kept = many(10_000)
"""
    )
    assert (tmp_path / "small").stat().st_size * 4 < (tmp_path / "large").stat().st_size


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_children(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
import glob
for name, follow in (("x.tide", False), ("y.tide", True)):
    with Tracker(destination=FileDestination(name), follow_fork=follow):
        kept = many(2)
        child = os.fork()
        if child == 0:
            more = many(3)
            sys.exit(0)
        os.waitpid(child, 0)
    children = glob.glob(name + ".*")
    print(found(name), [found(child) for child in children])
"""
    )
    assert printed.splitlines() == ["2 []", "2 [3]"]


def test_requests_to_python_allocators(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
with Tracker("x.tide", trace_python_allocators=True):
    kept = [object() for _ in range(50)]
reader = FileReader("x.tide")
names = {heaptide.AllocatorType(r.allocator).name for r in reader.get_leaked_allocation_records()}
print("PYMALLOC_MALLOC" in names, reader.metadata.trace_python_allocators)
"""
    )
    assert printed == "True True\n"


def test_a_program_under_heaptide_run_is_tracked_already(tmp_path: Path) -> None:
    text = "import heaptide\nwith heaptide.Tracker('x.tide'): pass"
    command = [sys.executable, "-m", "heaptide", "run", "-q", "-o", "y.tide", "-c", text]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: No more than one Tracker instance can be active at the same time: " in done.stderr
    assert "heaptide run" in done.stderr


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    one = "Exactly one of 'file_name' or 'destination' argument must be specified"
    with pytest.raises(TypeError, match=one):
        Tracker()
    with pytest.raises(TypeError, match=one):
        Tracker(tmp_path / "x", destination=FileDestination(tmp_path / "x"))
    with pytest.raises(TypeError, match="destination must be a SocketDestination or FileDestination"):
        Tracker(destination=3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="follow_fork requires an output file"):
        Tracker(destination=SocketDestination(1), follow_fork=True)
    with pytest.raises(RuntimeError, match="AGGREGATED_ALLOCATIONS requires an output file"):
        Tracker(destination=SocketDestination(1), file_format=FileFormat.AGGREGATED_ALLOCATIONS)
    with pytest.raises(ValueError):
        Tracker(tmp_path / "x", file_format=7)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        Tracker(tmp_path / "x", memory_interval_ms=-1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", ["", ", file_format=FileFormat.AGGREGATED_ALLOCATIONS"])
def test_native_stacks(in_process: Piece, options: str) -> None:
    """Where the interpreter's functions have names; elsewhere stacks are Python's."""
    printed = in_process(
        HELPERS
        + f"""
from heaptide._memray import SymbolicSupport, get_symbolic_support
with Tracker("x.tide", native_traces=True{options}): kept = many(2)
reader = FileReader("x.tide")
print(reader.metadata.has_native_traces, found("x.tide"))
blocks = [record for record in reader.get_leaked_allocation_records() if record.size > 1000]
print(len(blocks) in (1, 2))
support = get_symbolic_support()
for record in blocks:
    python, native, hybrid = (
        [frame[0] for frame in stack()]
        for stack in (record.stack_trace, record.native_stack_trace, record.hybrid_stack_trace)
    )
    assert python == ["many", "<module>"] == [name for name in hybrid if name in python]
    assert len(native) > len(python)
    if support is not SymbolicSupport.NONE:
        assert any("_PyEval_EvalFrameDefault" in name or name.startswith("_TAIL_CALL_") for name in native), native
        assert hybrid.index("many") > 1, hybrid
    if support is SymbolicSupport.TOTAL:
        above = hybrid[: hybrid.index("many")]
        assert {{"PyByteArray_Resize", "_PyBytes_Resize"}} & set(above) and above == native[: len(above)], hybrid
"""
    )
    # The interpreter may call a function of C by another way the second time.
    assert printed.splitlines() == ["True 2", "True"]


def test_files_that_cannot_be_made(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    with pytest.raises(OSError, match=f"Output file {there} already exists.*overwrite=True"):
        Tracker(there)
    with pytest.raises(OSError, match=r"Could not create output file .*No such file or directory"):
        Tracker(tmp_path / "no" / "such")
    assert there.read_text() == "precious"
    Tracker(destination=FileDestination(there, overwrite=True))
    assert FileReader(there).metadata.pid == os.getpid()


def test_destinations_are_values() -> None:
    file = FileDestination(path="x", overwrite=True)
    assert eval(repr(file), vars(heaptide)) == file
    assert hash(file) == hash(FileDestination("x", True)) and file != FileDestination("x")
    assert SocketDestination(1) == SocketDestination(server_port=1, address="127.0.0.1")
    with pytest.raises(AttributeError):
        file.path = "y"  # type: ignore[misc]


def test_surviving_objects(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="track_object_lifetimes=True was not provided at Tracker construction"):
        Tracker(tmp_path / "x").get_surviving_objects()


def test_profile_functions_of_memray_can_be_installed(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
sys.setprofile(heaptide.start_thread_trace)
with Tracker("x.tide"):
    kept = many(2)
print(found("x.tide"), sys.getprofile() is heaptide.start_thread_trace)
"""
    )
    assert printed == "2 True\n"


def test_threads_that_allocate_while_tracking_starts_and_stops(in_process: Piece) -> None:
    printed = in_process(
        HELPERS
        + """
stop = False
def work():
    while not stop:
        many(5)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
def resident():
    with open("/proc/self/statm") as file: return int(file.read().split()[1]) * 4096
for i in range(60):
    with Tracker(destination=FileDestination("x.tide", overwrite=True, compress_on_exit=False)):
        kept = many(3)
    if i == 19: settled = resident()
grown = resident() - settled
stop = True
for thread in threads: thread.join()
total = found("x.tide", "get_total_allocation_records")
print(found("x.tide") >= 3, total >= 3, grown < 20_000_000)
"""
    )
    assert printed == "True True True\n"


# Their libraries went through `patchelf`: nothing lies where linkers put it.
@pytest.mark.parametrize("package", ["numpy", "pyarrow", "pandas", "polars", "duckdb"])
@pytest.mark.parametrize("file_format", list(FileFormat))
def test_libraries_of_wheels_that_are_loaded_already(in_process: Piece, package: str, file_format: FileFormat) -> None:
    pytest.importorskip(package)
    printed = in_process(
        f"import {package}\n"
        + HELPERS
        + f"""
with Tracker("x.tide", file_format=FileFormat({file_format})):
    kept = many(5)
print(found("x.tide"))
"""
    )
    assert printed == "5\n"


@pytest.mark.parametrize("file_format", list(FileFormat))
def test_arrays_are_tracked(in_process: Piece, file_format: FileFormat) -> None:
    pytest.importorskip("numpy")
    printed = in_process(
        "import numpy\n"
        + HELPERS
        + f"""
def arrays():
    return [numpy.zeros(1_000_000 + i) for i in range(3)]
with Tracker("x.tide", file_format=FileFormat({file_format})):
    kept = arrays()
    del kept[0]
    fleeting = numpy.zeros(3_000_000)
    del fleeting
reader = FileReader("x.tide")
print(sum(r.size for r in reader.get_leaked_allocation_records() if r.size > 1_000_000))
print(reader.metadata.peak_memory // 1_000_000)
"""
    )
    assert printed == f"{8 * 2_000_003}\n40\n"
