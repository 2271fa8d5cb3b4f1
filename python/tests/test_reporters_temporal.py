"""Flame graphs of records that say when, beside those that the program makes of the same capture."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import needs_gil
from heaptide import FileReader, _program
from heaptide._records import Interval, MemorySnapshot
from heaptide.reporters.flamegraph import FlameGraphReporter
from pages import Data, expected, rendered, without_nothing


@pytest.fixture(scope="session")
def page(captures: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The program's own page on the capture."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    command = [_program.find(), "flamegraph", "--temporal", "-o", str(path), str(captures["all"])]
    subprocess.run(command, check=True, capture_output=True)
    return Data(path.read_text())


def reported(path: Path, *, leaks: bool, inverted: bool = False) -> Data:
    with FileReader(path) as reader:
        if leaks:
            records, peaks = reader.get_temporal_allocation_records(merge_threads=False), None
        else:
            records, peaks = reader.get_temporal_high_water_mark_allocation_records(merge_threads=False)
        reporter = FlameGraphReporter.from_temporal_snapshot(
            records,
            memory_records=reader.get_memory_snapshots(),
            native_traces=False,
            high_water_mark_by_snapshot=peaks,
            inverted=inverted,
        )
    return rendered(reporter, reader.metadata, leaks=leaks)


def intervals(data: Data, kind: str, *columns: str) -> Counter[tuple[Any, ...]]:
    """Blocks and bytes by stack, allocator and time."""
    sums: Counter[tuple[Any, ...]] = Counter()
    figures = zip(*(data.columns[f"{kind}.{name}"] for name in ("key", *columns, "count", "bytes")))
    for key, *times, count, size in figures:
        node, allocator = data.columns["key.node"][key], data.columns["key.allocator"][key]
        where = data.stack(node), data.head["allocators"][allocator], *times
        sums[(*where, "blocks")] += count
        sums[(*where, "bytes")] += size
    return without_nothing(sums)


@needs_gil
def test_what_was_held_at_the_peaks(captures: dict[str, Path], page: Data) -> None:
    data = reported(captures["all"], leaks=False)
    assert data.head["temporal"] and data.head["metric"] == "peak"
    assert [metric["name"] for metric in data.head["metrics"]] == ["peak"]
    at_peaks = intervals(data, "at_peak", "from", "length")
    assert at_peaks and at_peaks == intervals(page, "at_peak", "from", "length")
    assert not data.columns["lifetime.key"]
    for column in ("boundary.heap", "boundary.resident", "interval.peak"):
        assert data.columns[column] == page.columns[column], column
    # Of all the time: what the capture held at its peak.
    with FileReader(captures["all"]) as reader:
        assert data.figures("peak") == expected(list(reader.get_high_watermark_allocation_records()))


@needs_gil
def test_what_was_not_given_back(captures: dict[str, Path], page: Data) -> None:
    data = reported(captures["all"], leaks=True, inverted=True)
    assert data.head["temporal"] and data.head["metric"] == "live" and data.head["inverted"]
    lives = intervals(data, "lifetime", "allocated_before", "freed_before")
    assert lives and lives == intervals(page, "lifetime", "allocated_before", "freed_before")
    assert not data.columns["at_peak.key"]
    with FileReader(captures["all"]) as reader:
        assert data.figures("live") == expected(list(reader.get_leaked_allocation_records()))
    heap = [0, *data.columns["boundary.heap"], 0]
    assert data.columns["interval.peak"] == [max(pair) for pair in zip(heap, heap[1:])]


class Like(NamedTuple):
    """What other programs make instead of records."""

    intervals: list[Interval]
    tid: int = 1
    thread_name: str = "one"

    def stack_trace(self, max_stacks: Any = None) -> list[tuple[str, str, int]]:
        return [("f", "a.py", 1)]


SNAPSHOTS = [MemorySnapshot(1000 + index, 5000, 100 * index) for index in range(3)]


def test_records_of_other_classes(captures: dict[str, Path]) -> None:
    records = [Like([Interval(0, 2, 1, 7), Interval(2, 3, 2, 30)]), Like([Interval(1, None, 1, 500)])]
    reporter = FlameGraphReporter.from_temporal_snapshot(
        records, memory_records=SNAPSHOTS, native_traces=False, high_water_mark_by_snapshot=[7, 507, 530, 500]
    )
    with FileReader(captures["all"]) as reader:
        # The records know what they are of.
        data = rendered(reporter, reader.metadata, leaks=True)
    assert data.head["metric"] == "peak"
    assert data.figures("peak") == {((("f", "a.py", 1),), "malloc"): 530}
    assert data.head["metrics"][0]["count"] == 3


@pytest.mark.parametrize(
    ("interval", "peaks", "message"),
    [
        (Interval(0, None, 1, 1), [1, 2, 3], "has 3 values"),
        (Interval(4, None, 1, 1), None, "from snapshot 4 to None is none of 3 snapshots"),
        (Interval(1, 9, 1, 1), [1, 2, 3, 4], "from snapshot 1 to 9"),
        (Interval(2, 2, 1, 1), None, "from snapshot 2 to 2"),
    ],
)
def test_other_snapshots_are_refused(interval: Interval, peaks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlameGraphReporter.from_temporal_snapshot(
            [Like([interval])], memory_records=SNAPSHOTS, native_traces=False, high_water_mark_by_snapshot=peaks
        )
