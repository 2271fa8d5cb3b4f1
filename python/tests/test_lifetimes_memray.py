"""Objects in captures of Memray, read by its reader and by ours; and one program under both profilers."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from heaptide import FileReader

Piece = Callable[[str], str]

needs_memray = pytest.mark.skipif(importlib.util.find_spec("memray") is None, reason="Memray is not installed")
needs_tracer = pytest.mark.skipif(
    importlib.util.find_spec("memray") is None or sys.version_info < (3, 13, 3),
    reason="Memray, and an interpreter that tells of all objects, are not both here",
)


def all_of(records: Iterable[Any], aggregated: bool = False) -> list[tuple[Any, ...]]:
    """Whatever both readers tell of each record, but for numbers of stacks, which each counts for itself.

    Who made a survivor is not in an aggregated capture: Memray's reader tells the last thread that had a name, ours 0.
    """

    def stacks(record: Any) -> tuple[Any, ...]:
        try:
            trace = [tuple(frame) for frame in record.stack_trace()]
        except NotImplementedError as error:
            return (str(error), record.native_stack_trace())
        return (trace, record.native_stack_trace())

    return [
        (
            0 if aggregated else each.tid,
            each.address,
            each.is_created,
            each.native_stack_id,
            each.native_segment_generation,
            stacks(each),
        )
        for each in records
    ]


def frames(depth: int) -> Any:
    """The frame so many calls below."""
    return inspect.currentframe() if not depth else frames(depth - 1)


@needs_memray
@pytest.mark.parametrize("aggregated", [False, True])
def test_records_of_any_kind_are_read_as_memray_reads_them(tmp_path: Path, aggregated: bool) -> None:
    """Written by Memray's own writer, so whatever the interpreter: addresses and threads in any order."""
    import memray
    from memray._memray import RecordWriterTestHarness

    path = tmp_path / "harness.bin"
    formats = memray.FileFormat.AGGREGATED_ALLOCATIONS, memray.FileFormat.ALL_ALLOCATIONS
    writer = RecordWriterTestHarness(
        str(path), track_object_lifetimes=True, file_format=formats[0] if aggregated else formats[1]
    )
    here = frames(3)
    code = here.f_code
    table = RecordWriterTestHarness.get_linetable(code)
    writer.write_code_object(1, code.co_name, code.co_filename, table, code.co_firstlineno)
    offset = RecordWriterTestHarness.get_lasti(here)
    seed = 1
    depth = {1: 0, 2: 0, 77: 0}
    created = 0
    for number in range(20_000):
        seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        choice, thread = seed >> 60, (1, 2, 77)[(seed >> 50) % 3]
        # Some of the last addresses, near ones, far ones
        address = 0x7F00_0000_0000 + ((seed >> 40) % 16) * 16 if choice % 3 else (seed >> 20) & 0x7FFF_FFFF_FFF8
        if choice < 3:
            writer.write_frame_push(thread, 1, offset, True)
            depth[thread] += 1
        elif choice < 5 and depth[thread] > 1:
            count = 1 + (seed >> 44) % depth[thread]
            writer.write_frame_pop(thread, count)
            depth[thread] -= count
        elif choice < 7:
            writer.write_allocation_record(thread, address, number % 500, 6)
        elif choice < 12:
            created += writer.write_object_record(thread, address, True)
        else:
            writer.write_object_record(thread, address, False)
    writer.write_thread_record(77, "worker")
    writer.write_trailer()
    writer.write_header(True)
    del writer
    theirs = all_of(memray.FileReader(path).get_object_lifetime_events(), aggregated)
    told = list(FileReader(path).get_object_lifetime_events())
    ours = all_of(told, aggregated)
    assert ours == theirs
    assert {each.tid for each in told} == ({0} if aggregated else {1, 2, 77})
    assert len(ours) > (100 if aggregated else 8000) and created > 5000
    assert not list(FileReader(path).get_object_lifetime_events(included_objects=[]))


RECORD = """
import gc, os, sys, threading
from collections import Counter

class Made:
    pass

def make(n):
    held = []
    for _ in range(n): held.append(Made())
    return held

def deeper(n):
    return make(3) if not n else deeper(n - 1)

def work():
    for number in range(2000):
        half = number + 0.5             # counted
        [half], {number: half}, {half}  # counted
        held[number % 7] = [half]       # counted
    kept.append(make(5))

def other():
    kept.extend(deeper(number) for number in range(5))
    kept[-1].clear()

kept, held = [Made()], [None] * 7

def recorded(tracker):
    with tracker:
        del kept[0]
        work()
        threads = [threading.Thread(target=each, name=each.__name__) for each in (other, work)]
        for thread in threads:
            thread.start()
            thread.join()
        gc.collect()
"""


@needs_tracer
@pytest.mark.parametrize("aggregated", [0, 1])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_captures_are_read_as_memray_reads_them(
    in_process: Piece, tmp_path: Path, aggregated: int, compress: bool, native: bool
) -> None:
    import memray

    printed = in_process(
        RECORD
        + f"""
import memray
recorded(memray.Tracker(destination=memray.FileDestination("x.bin", compress_on_exit={compress}),
                        track_object_lifetimes=True, file_format=memray.FileFormat({aggregated}),
                        native_traces={native}))
print(id(kept[0]), id(kept[0][0]))
"""
    )
    path = tmp_path / "x.bin"
    theirs, ours = (package(path).get_object_lifetime_events() for package in (memray.FileReader, FileReader))
    if native:
        # Numbers of native stacks and lists of libraries are each reader's own, and we tell whole paths of sources.
        pairs = list(zip(theirs, ours))
        assert pairs and any(our.native_stack_id for _, our in pairs)
        for their, our in pairs:
            keep = slice(1 if aggregated else 0, 3)
            assert all_of([their])[0][keep] == all_of([our])[0][keep]
            left, right = ([frame[0] for frame in each.native_stack_trace()] for each in (their, our))
            assert left == right
        assert next(theirs, None) is None and next(ours, None) is None
        return
    told = list(ours)
    assert all_of(told, bool(aggregated)) == all_of(theirs, bool(aggregated))
    assert len(told) > (10 if aggregated else 2000)
    survivors = {each.address for each in told if each.is_created}
    assert survivors.issuperset(map(int, printed.split()))
    names = [reader(path).get_object_lifetime_events() for reader in (memray.FileReader, FileReader)]
    pairs = [(theirs.thread_name, ours.thread_name) for theirs, ours in zip(*names)]
    assert all(not theirs or ours in theirs for theirs, ours in pairs)
    assert FileReader(path).metadata.track_object_lifetimes is True


@needs_tracer
def test_a_capture_that_was_cut_off_is_read_as_memray_reads_it(in_process: Piece, tmp_path: Path) -> None:
    import memray

    in_process(
        RECORD
        + """
import memray, signal
if not os.fork():
    tracker = memray.Tracker("x.bin", track_object_lifetimes=True)
    tracker.__enter__()
    work()
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
"""
    )
    readers = [package(tmp_path / "x.bin") for package in (memray.FileReader, FileReader)]
    theirs, ours = (all_of(reader.get_object_lifetime_events()) for reader in readers)
    assert len(ours) > 500
    # Theirs takes the zeros at the end of the last record for those of the file.
    assert ours[: len(theirs)] == theirs and len(ours) - len(theirs) <= 1


@needs_tracer
def test_both_profilers_see_the_same_objects(in_process: Piece) -> None:
    """How many are made at each place of a program, and how many of these are destroyed. Each in a process of its own.

    Where nothing is called: at each call that Memray's profile function sees, the interpreter makes objects for it.
    """
    told = [
        in_process(
            RECORD
            + f"""
import {package} as package
recorded(package.Tracker("x-{package}", track_object_lifetimes=True))
with open(__file__) as file:
    counted = {{number for number, line in enumerate(file, 1) if line.endswith("# counted\\n")}}
made, gone, left = Counter(), Counter(), {{}}
for record in package.FileReader("x-{package}").get_object_lifetime_events():
    if record.is_created:
        assert record.address not in left
        (function, file, line), *_ = record.stack_trace(1) or [("", "", 0)]
        left[record.address] = place = ("other" in record.thread_name, function, line)
        made[place] += 1
    elif record.address in left:
        gone[left.pop(record.address)] += 1
for counts in (made, gone):
    print(sorted((place[1:], count) for place, count in counts.items() if place[1] == "work" and place[2] in counted))
print({{place[0] for place in made if place[1] == "other"}}, {{place[0] for place in made if place[1] == "recorded"}})
"""
        )
        for package in ("memray", "heaptide")
    ]
    assert told[0] == told[1]
    made, gone, threads = told[0].splitlines()
    made, gone = eval(made), eval(gone)
    # Main and a thread, 2000 rounds each, a tuple in the second line. Seven lists with a number each are left.
    assert [count for _, count in made] == [4000, 16000, 4000]
    assert [count for _, count in gone] == [4000 - 7, 16000, 4000 - 7]
    assert threads == "{True} {False}"
