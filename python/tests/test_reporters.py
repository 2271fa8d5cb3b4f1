"""Reports on records that a program has chosen, beside Memray's where that is installed."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compatibility import PACKAGES
from conftest import EXTRA, needs_gil
from heaptide import FileReader
from heaptide.reporters.flamegraph import FlameGraphReporter
from heaptide.reporters.table import TableReporter
from pages import expected, rendered


@needs_gil
@pytest.mark.parametrize("leaks", [False, True])
def test_a_flame_graph_has_what_the_records_have(capture: Path, leaks: bool) -> None:
    with FileReader(capture) as reader:
        query = reader.get_leaked_allocation_records if leaks else reader.get_high_watermark_allocation_records
        records = [record for record in query() if record.size >= 1000]
        snapshots = list(reader.get_memory_snapshots())
        reporter = FlameGraphReporter.from_snapshot(iter(records), memory_records=iter(snapshots), native_traces=False)
    # When the capture is closed, too.
    data = rendered(reporter, reader.metadata, leaks=leaks)
    metric = "live" if leaks else "peak"
    assert data.figures(metric) == expected(records)
    (shown,) = data.head["metrics"]
    total = sum(record.size for record in records)
    assert (shown["name"], shown["bytes"], data.head["metric"]) == (metric, total, metric)
    assert shown["count"] == sum(record.n_allocations for record in records)
    assert [heap for heap in data.columns["sample.heap"]] == [snapshot.heap for snapshot in snapshots]
    assert data.head["command"] and data.head["command"].split()[-1].endswith("program.py")
    other = {"peak": "live", "live": "peak"}[metric]
    assert not sum(data.columns[f"{other}.bytes"])
    # Further pages, of the same.
    for again, name in ((not leaks, other), (leaks, metric)):
        assert rendered(reporter, reader.metadata, leaks=again).figures(name) == expected(records)


def test_a_page_of_nothing(capture: Path) -> None:
    with FileReader(capture) as reader:
        for reporter in (FlameGraphReporter, TableReporter):
            nothing: Any = reporter.from_snapshot([], memory_records=[], native_traces=False)
            data = rendered(nothing, reader.metadata)
            assert data.head["metrics"][0]["count"] == 0 and not data.figures("peak")


def test_what_is_not_known_is_not_shown(capture: Path) -> None:
    with FileReader(capture) as reader:
        records = reader.get_high_watermark_allocation_records()
        reporter = FlameGraphReporter.from_snapshot(records, memory_records=[], native_traces=False)
    (_, program), (_, memory), (_, recording) = rendered(reporter, reader.metadata).head["facts"]
    assert [name for name, _ in memory] == ["In these records"]
    assert {name for name, _ in recording} == {"Recorded", "Started", "Ended", "Duration"}
    assert dict(program)["Process"].startswith(str(reader.metadata.pid))


@pytest.mark.parametrize("when", ["snapshot", "render"])
def test_how_it_begins(capture: Path, when: str) -> None:
    with FileReader(capture) as reader:
        reporter = FlameGraphReporter.from_snapshot(
            reader.get_total_allocation_records(merge_threads=False),
            memory_records=[],
            native_traces=True,
            merge_threads=False,
            inverted=when == "snapshot",
        )
    data = rendered(reporter, reader.metadata, merged=False, inverted=when == "render")
    assert data.head["inverted"] and data.head["split_threads"]
    assert any("(worker)" in thread for thread in data.head["threads"])
    merged = rendered(reporter, reader.metadata)
    assert not merged.head["split_threads"]
    assert merged.head["inverted"] == (when == "snapshot")


@pytest.mark.parametrize("which", ["all", "none", "default"])
def test_confidential_files(capture: Path, program: Path, which: Any) -> None:
    with FileReader(capture) as reader:
        reporter = FlameGraphReporter.from_snapshot(
            reader.get_high_watermark_allocation_records(),
            memory_records=[],
            native_traces=False,
            confidential_files=which,
        )
    sources = rendered(reporter, reader.metadata).head["sources"]
    assert any(source["file"] == str(program) for source in sources) == (which != "all")


class Like(NamedTuple):
    """What other programs make instead of records."""

    size: int
    n_allocations: int
    tid: int
    thread_name: str
    frames: tuple[tuple[str, str, int], ...]

    def stack_trace(self, max_stacks: Any = None) -> tuple[tuple[str, str, int], ...]:
        return self.frames[:max_stacks]


def test_records_of_other_classes(capture: Path) -> None:
    deep = tuple((f"f{index}", "a.py", index) for index in range(5000))
    records = [
        Like(100, 2, 1, "one", deep),
        Like(20, 1, -1, "", ()),
        Like(3, 1, 1, "one", deep[1:]),
        Like(4, 1, 2, "two", (("<b>&", "</script>", 0),)),
    ]
    reporter = FlameGraphReporter.from_snapshot(iter(records), memory_records=(), native_traces=False)
    with FileReader(capture) as reader:
        data = rendered(reporter, reader.metadata)
    assert data.figures("peak") == {(record.frames, "malloc"): record.size for record in records}
    assert data.head["metrics"][0]["count"] == 5


@pytest.mark.parametrize("reporter", [FlameGraphReporter, TableReporter])
def test_deallocations_are_refused(captures: dict[str, Path], reporter: Any) -> None:
    with FileReader(captures["all"]) as reader, pytest.raises(NotImplementedError):
        reporter.from_snapshot(reader.get_allocation_records(), memory_records=[], native_traces=False)


def test_what_makes_no_sense(capture: Path) -> None:
    with FileReader(capture) as reader:
        reporter = FlameGraphReporter.from_snapshot(
            [],
            memory_records=[],
            native_traces=False,
            confidential_files="some",  # type: ignore[arg-type]
        )
        with pytest.raises(ValueError, match="and not some"):
            rendered(reporter, reader.metadata)
    with pytest.raises(AttributeError):
        FlameGraphReporter.from_snapshot([object()], memory_records=[], native_traces=False)


@needs_gil
def test_a_table_has_what_the_records_have(capture: Path, program: Path) -> None:
    with FileReader(capture) as reader:
        records = list(reader.get_leaked_allocation_records(merge_threads=False))
        reporter = TableReporter.from_snapshot(
            records, memory_records=reader.get_memory_snapshots(), native_traces=False, merge_threads=False
        )
    (kept,) = [row for row in reporter.data if row["n_allocations"] == 7 and row["size"] == 7 * (1000 + EXTRA)]
    assert kept["allocator"] == "malloc" and kept["stack_trace"].startswith(f"many at {program}:")
    assert kept["tid"].endswith(" (MainThread)")
    assert any(row["stack_trace"].startswith("&lt;module&gt; at") for row in reporter.data)
    assert sum(row["size"] for row in reporter.data) == sum(record.size for record in records)
    data = rendered(reporter, reader.metadata, leaks=True, merged=False)
    assert data.head["report"] == "table"
    # Without its callers.
    assert max(data.columns["node.up"][1:]) == max(range(1, len(data.columns["node.up"])))
    rows = Counter({row["stack_trace"]: 0 for row in reporter.data})
    for row in reporter.data:
        rows[row["stack_trace"]] += row["size"]
    shown: Counter[str] = Counter()
    for (stack, _), size in data.figures("live").items():
        name, file, line = stack[0] if stack else ("", "", 0)
        shown[html.escape(f"{name.split('.')[-1]} at {file}:{line}") if stack else "???"] += size
    assert shown == rows


THEIRS = """
import json, sys
from memray import FileReader
from memray.reporters.table import TableReporter
with FileReader(sys.argv[1]) as reader:
    records = list(reader.get_high_watermark_allocation_records(merge_threads=False))
table = TableReporter.from_snapshot(records, memory_records=[], native_traces=False, merge_threads=False)
print(json.dumps(table.data))
"""


@pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")
def test_the_rows_are_memrays(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "memray.bin"
    command = [sys.executable, "-m", "memray", "run", "-q", "-o", str(path), str(program)]
    subprocess.run(command, check=True)
    theirs = subprocess.run([sys.executable, "-c", THEIRS, str(path)], text=True, capture_output=True, check=True)
    with FileReader(path) as reader:
        records = reader.get_high_watermark_allocation_records(merge_threads=False)
        ours = TableReporter.from_snapshot(records, memory_records=[], native_traces=False, merge_threads=False)

    def rows(data: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
        # Memray's have the allocator of any block of a stack, and no name of the main thread.
        sums: Counter[tuple[Any, ...]] = Counter()
        for row in data:
            assert set(row) == {"tid", "size", "allocator", "n_allocations", "stack_trace"}
            place = row["tid"].replace(" (MainThread)", ""), row["stack_trace"]
            sums[(*place, "size")] += row["size"]
            sums[(*place, "count")] += row["n_allocations"]
        return sums

    assert rows(ours.data) == rows(json.loads(theirs.stdout))
