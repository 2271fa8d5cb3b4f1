"""Native stacks in captures of Memray, read by its reader and by ours."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from heaptide import AllocatorType, FileReader
from heaptide.commands import main
from native_program import COMPILER, Program, plain
from pages import Data

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("memray") is None or COMPILER is None, reason="Memray and a C compiler are not both here"
)


Frame = tuple[str, str, int]
Stack = list[Frame]


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A capture of each format, by its number."""
    program = Program(tmp_path_factory.mktemp("native"))
    return {file_format: program.tracked("memray", file_format) for file_format in (0, 1)}


def expect_alike(theirs: Iterable[Frame], ours: Iterable[Frame]) -> None:
    """We tell the whole path of a source, and more lines."""
    theirs, ours = list(theirs), list(ours)
    assert [plain(frame[0]) for frame in theirs] == [plain(frame[0]) for frame in ours]
    for (_, path, line), (_, our_path, our_line) in zip(theirs, ours):
        if (path, line) != ("<unknown>", 0):
            assert line == our_line
            assert our_path == path or (path[0] != "/" and our_path.endswith(f"/{path}"))


def stacks_of(record: Any) -> list[Stack]:
    methods = record.stack_trace, record.native_stack_trace, record.hybrid_stack_trace
    traces = [method() for method in methods] + [method(max_stacks=3) for method in methods[:2]]
    return [[(str(function), str(path), int(line)) for function, path, line in trace] for trace in traces]


def renumbered(numbers: Iterable[int]) -> list[int]:
    """Which are equal, by the order of their first appearance."""
    seen: dict[int, int] = {}
    return [seen.setdefault(number, len(seen)) for number in numbers]


def allocates(record: Any) -> bool:
    name = AllocatorType(record.allocator).name
    return "FREE" not in name and name != "MUNMAP"


def test_every_event_has_the_stacks_of_memrays_reader(captures: dict[int, Path]) -> None:
    import memray

    theirs, ours = (list(package(captures[0]).get_allocation_records()) for package in (memray.FileReader, FileReader))
    told = [
        [(each.tid, each.address, each.size, each.allocator, each.n_allocations) for each in records]
        for records in (theirs, ours)
    ]
    assert told[0] == told[1]
    both = [(their, our) for their, our in zip(theirs, ours) if allocates(their)]
    for their, our in both:
        for their_stack, our_stack in zip(stacks_of(their), stacks_of(our)):
            expect_alike(their_stack, our_stack)
        # Memray forgets the limit where an interpreter without symbols leaves Python's frames alone.
        expect_alike(their.hybrid_stack_trace(max_stacks=3)[:3], our.hybrid_stack_trace(max_stacks=3))
    for attribute in ("native_stack_id", "stack_id"):
        numbers = [renumbered(getattr(pair[side], attribute) for pair in both) for side in (0, 1)]
        assert numbers[0] == numbers[1]
        assert len(set(numbers[0])) > 30
    gone = next(record for record in ours if not allocates(record))
    for method in (gone.native_stack_trace, gone.hybrid_stack_trace):
        with pytest.raises(NotImplementedError):
            method()


Key = tuple[int, tuple[tuple[str, ...], ...]]


def key_of(record: Any, thread: int) -> Key:
    """The thread and the functions of all three stacks."""
    traces = record.stack_trace(), record.native_stack_trace(), record.hybrid_stack_trace()
    return thread, tuple(tuple(plain(name) for name, _, _ in trace) for trace in traces)


def sums(records: Iterable[Any], merged: bool, counts: bool) -> dict[Key, Counter[str]]:
    """By thread and by the functions of all three stacks."""
    found: dict[Key, Counter[str]] = {}
    for record in records:
        key = key_of(record, 0 if merged else record.tid)
        size = Counter(bytes=record.size, count=record.n_allocations if counts else 0)
        found.setdefault(key, Counter()).update(size)
    return {key: sum for key, sum in found.items() if any(sum.values())}


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("aggregated", [0, 1])
def test_sums_are_those_of_memrays_reader(captures: dict[int, Path], aggregated: int, merged: bool) -> None:
    import memray

    readers = memray.FileReader(captures[aggregated]), FileReader(captures[aggregated])
    assert [reader.metadata.has_native_traces for reader in readers] == [True, True]
    for query in ("get_high_watermark_allocation_records", "get_leaked_allocation_records"):
        records = [list(getattr(reader, query)(merge_threads=merged)) for reader in readers]
        # Of aggregated captures Memray's reader gives one for each record that it merges.
        theirs, ours = (sums(each, merged, counts=not aggregated) for each in records)
        assert theirs == ours
        assert len(ours) > 30
        numbers = [{each.native_stack_id for each in of} for of in records]
        assert len(numbers[0]) == len(numbers[1])


@pytest.mark.parametrize("merged", [False, True])
def test_temporary_blocks_are_those_of_memrays_reader(captures: dict[int, Path], merged: bool) -> None:
    import memray

    theirs, ours = (
        sums(package(captures[0]).get_temporary_allocation_records(merge_threads=merged), merged, counts=True)
        for package in (memray.FileReader, FileReader)
    )
    # It also takes some for temporary that another thread had freed.
    assert ours.keys() <= theirs.keys() and all(ours[key] <= theirs[key] for key in ours)
    fleeting = {key: sum for key, sum in ours.items() if "fleeting" in key[1][1]}
    assert [sum["bytes"] for sum in fleeting.values()] == [30 * 5000]


def held(records: Iterable[Any], snapshots: int) -> dict[Key, Counter[int]]:
    """Bytes by stacks and interval."""
    found: dict[Key, Counter[int]] = {}
    for record in records:
        key = key_of(record, record.tid)
        of = found.setdefault(key, Counter())
        for interval in record.intervals:
            end = interval.deallocated_before_snapshot
            for snapshot in range(interval.allocated_before_snapshot, snapshots + 1 if end is None else end):
                of[snapshot] += interval.n_bytes
    return {key: sum for key, of in found.items() if (sum := Counter({at: n for at, n in of.items() if n}))}


def test_what_was_held_over_time_is_that_of_memrays_reader(captures: dict[int, Path]) -> None:
    import memray

    readers = memray.FileReader(captures[0]), FileReader(captures[0])
    snapshots = len(list(readers[0].get_memory_snapshots()))
    theirs, ours = (held(each.get_temporal_allocation_records(merge_threads=False), snapshots) for each in readers)
    assert theirs == ours and ours
    peaks = [each.get_temporal_high_water_mark_allocation_records(merge_threads=False) for each in readers]
    assert list(peaks[0][1]) == list(peaks[1][1])
    assert held(peaks[0][0], snapshots) == held(peaks[1][0], snapshots)


def evaluates_python(captures: dict[int, Path]) -> bool:
    """Whether the interpreter's functions have names; else hybrid stacks are Python's."""
    return any(
        "_PyEval_EvalFrameDefault" in frame[0] or frame[0].startswith("_TAIL_CALL_")
        for record in FileReader(captures[0]).get_leaked_allocation_records()
        for frame in record.native_stack_trace()
    )


def test_stacks_from_the_same_line_are_apart(captures: dict[int, Path]) -> None:
    """Whatever Memray says: the program is known."""
    if not evaluates_python(captures):
        pytest.skip("the interpreter has no symbols")
    records = [
        record
        for record in FileReader(captures[0]).get_leaked_allocation_records()
        if [frame[0] for frame in record.stack_trace()] == ["native", "everything", "track"]
    ]
    told = []
    for record in records:
        native = [frame[0] for frame in record.native_stack_trace()]
        way = native[: native.index("any_way")]
        told.append((way, record.n_allocations, record.size))
        hybrid = [frame[0] for frame in record.hybrid_stack_trace()]
        assert hybrid[: len(way)] == way and hybrid[-3:] == ["native", "everything", "track"]
        assert [frame[0] for frame in record.hybrid_stack_trace(max_stacks=2)] == hybrid[:2]
    # Inlined functions have frames of their own; the right way takes a byte more.
    right = ["inner", "outer", "by_the_right"]
    ways = [["by_the_left"], right, ["by_the_left", *["down"] * 6], [*right, *["down"] * 6]]
    assert sorted(told) == sorted(
        (way, rounds, sum(1000 + number + (way[0] == "inner") for number in range(rounds)))
        for way in ways
        for rounds in (3, 5)
    )
    assert len({record.stack_id for record in records}) == 2
    assert len({record.native_stack_id for record in records}) >= 4
    assert len(set(records)) == 8


@pytest.mark.parametrize("aggregated", [0, 1])
def test_reports_show_native_functions(
    captures: dict[int, Path], aggregated: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not evaluates_python(captures):
        pytest.skip("the interpreter has no symbols")
    capture = str(captures[aggregated])
    for command in (["flamegraph"], ["table"], ["transform", "csv"]):
        output = tmp_path / "report"
        assert not main([*command, "-f", "-o", str(output), capture])
        text = output.read_text()
        if command[0] != "transform":
            text = json.dumps(Data(text).head)
        # A table has the innermost functions only.
        assert "inner" in text and (command == ["table"] or "by_the_right" in text), command
    for command in (["tree", "-p", "0"], ["summary", "-r", "100000"]):
        assert not main([*command, capture])
        assert "by_the_right" in capsys.readouterr().out, command
    if not aggregated:
        # As Memray's, statistics are by lines of Python.
        assert not main(["stats", "-n", "50", capture])
        shown = capsys.readouterr().out
        assert "by_the_right" not in shown and "native" in shown
