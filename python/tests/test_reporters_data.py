"""The attributes of reporters: Memray's reporters, where Memray is installed, make the same of the same records."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compatibility import PACKAGES
from heaptide import AllocatorType, FileReader
from heaptide.reporters._nodes import nodes_of
from heaptide.reporters.flamegraph import FlameGraphReporter
from heaptide.reporters.summary import SummaryReporter
from heaptide.reporters.table import TableReporter
from heaptide.reporters.tree import ElidedLocations, Frame, TreeReporter
from heaptide.reporters.tui import AllocationEntry, Location, aggregate_allocations

needs_memray = pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")
Records = Callable[[], list[Any]]


class Like(NamedTuple):
    """What other programs make instead of records."""

    size: int
    n_allocations: int
    tid: int
    thread_name: str
    frames: tuple[tuple[str, str, int], ...]
    allocator: int = AllocatorType.MALLOC

    def stack_trace(self, max_stacks: Any = None) -> tuple[tuple[str, str, int], ...]:
        return self.frames[:max_stacks]


A, B, C = ("a<b>", "x&y.py", 3), ("b", __file__, 1), ("<module>", "z.py", 1)
IMPORT = ("_find_and_load", "<frozen importlib._bootstrap>", 1027)
RUN = ("_run_code", "<frozen runpy>", 88)
DEEP = tuple((f"f{index}", "a.py", index) for index in range(600))

MADE = [
    Like(100, 2, 1, "one", (A, B, C)),
    Like(50, 1, 2, "", (A, B, C)),
    Like(100, 2, 1, "one", (B, C)),
    Like(7, 1, 2, "two", (A, IMPORT, B, IMPORT, C, RUN)),
    Like(9, 1, 2, "two", (A, IMPORT, C, RUN), AllocatorType.CALLOC),
    Like(20, 3, -1, "", ()),
    Like(1000, 1, 1, "one", DEEP),
    Like(30, 2, 1, "one", (A, A, B, A, C)),
    Like(2, 1, 3, "three", (("f", "/no/such/secret.txt", 1), ("f", "/bin/sh", 1), C)),
]


@pytest.fixture(params=["made", "peak", "leaked", "peak by thread"])
def records(request: pytest.FixtureRequest, captures: dict[str, Path]) -> Records:
    def find() -> list[Any]:
        if request.param == "made":
            return list(MADE)
        with FileReader(captures["all"]) as reader:
            if request.param == "leaked":
                return list(reader.get_leaked_allocation_records(merge_threads=True))
            return list(reader.get_high_watermark_allocation_records(merge_threads=request.param == "peak"))

    return find


@needs_memray
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("confidential", ["default", "all", "none"])
def test_nodes_are_memrays(records: Records, inverted: bool, confidential: Any) -> None:
    from memray.reporters.flamegraph import FlameGraphReporter as Theirs

    ours, theirs = (
        reporter.from_snapshot(
            iter(records()),
            memory_records=[],
            native_traces=False,
            inverted=inverted,
            confidential_files=confidential,
        ).data
        for reporter in (FlameGraphReporter, Theirs)
    )
    assert list(ours["nodes"]) == list(theirs["nodes"])
    assert ours == theirs


@needs_memray
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("peaks", [False, True])
def test_nodes_over_time_are_memrays(program: Path, tmp_path: Path, inverted: bool, peaks: bool) -> None:
    import memray
    from memray.reporters.flamegraph import FlameGraphReporter as Theirs

    path = tmp_path / "memray.bin"
    subprocess.run([sys.executable, "-m", "memray", "run", "-q", "-o", str(path), str(program)], check=True)

    # Memray's reporter takes none but Memray's records.
    def read() -> Any:
        with memray.FileReader(path) as reader:
            snapshots = list(reader.get_memory_snapshots())
            if not peaks:
                return list(reader.get_temporal_allocation_records(merge_threads=True)), snapshots, None
            found, marks = reader.get_temporal_high_water_mark_allocation_records(merge_threads=True)
            return list(found), snapshots, marks

    def data(reporter: Any) -> Any:
        found, snapshots, marks = read()
        return reporter.from_temporal_snapshot(
            found,
            memory_records=snapshots,
            native_traces=False,
            high_water_mark_by_snapshot=marks,
            inverted=inverted,
        ).data

    theirs = data(Theirs)
    assert theirs["nodes"] and len(theirs["intervals"]) > 3
    if peaks:
        # Memray's count snapshots beyond those that its reader gives, which a page cannot be made of.
        ours = nodes_of(read()[0], native_traces=False, inverted=inverted, confidential_files="default", temporal=True)
        assert {**ours, "high_water_mark_by_snapshot": theirs["high_water_mark_by_snapshot"]} == theirs
    else:
        assert data(FlameGraphReporter) == theirs


def test_nodes_by_hand() -> None:
    reporter = FlameGraphReporter.from_snapshot(MADE[:3], memory_records=[], native_traces=False)
    data = reporter.data
    assert reporter.data is data
    nodes, strings = data["nodes"], data["strings"]
    assert [strings[index] for index in nodes["function"]][1:4] == ["&lt;module&gt;", "b", "a&lt;b&gt;"]
    assert nodes["value"] == [250, 200, 200, 100, 50, 50, 50]
    assert nodes["n_allocations"] == [5, 4, 4, 2, 1, 1, 1]
    assert nodes["children"] == [[1, 4], [2], [3], [], [5], [6], []]
    assert [strings[index] for index in data["unique_threads"]] == ["0x1 (one)", "0x2"]
    # The first line of this very file, which is no secret.
    assert strings[nodes["name"][2]] == Path(__file__).read_text().splitlines(keepends=True)[0]
    assert data["inverted_no_imports_nodes"] == {}


def flat(root: Any) -> list[Any]:
    """The nodes of a tree, each with its callers: trees are deeper than what recursion can compare."""
    nodes, found = [((), root)], []
    while nodes:
        callers, node = nodes.pop()
        facts = {name: value for name, value in vars(node).items() if name != "children"}
        found.append((callers, facts))
        nodes.extend(((*callers, place), child) for place, child in node.children.items())
    return found


@needs_memray
@pytest.mark.parametrize("biggest", [1, 3, 200])
def test_trees_are_memrays(records: Records, biggest: int) -> None:
    from memray.reporters.tree import TreeReporter as Theirs

    ours, theirs = (
        reporter.from_snapshot(iter(records()), biggest_allocs=biggest, native_traces=False)
        for reporter in (TreeReporter, Theirs)
    )
    assert flat(ours.data) == flat(theirs.data)
    assert asdict(ours.elided_locations) == asdict(theirs.elided_locations)


def test_a_tree_by_hand() -> None:
    reporter = TreeReporter.from_snapshot(MADE[:3], biggest_allocs=2, native_traces=False)
    inner = Frame(A, 100, n_allocations=2, thread_id="0x1 (one)")
    middle = Frame(B, 200, {A: inner}, n_allocations=4, thread_id="0x1 (one)")
    outer = Frame(C, 200, {B: middle}, n_allocations=4, thread_id="0x1 (one)")
    assert reporter.data == Frame(("<ROOT>", "", 0), 250, {C: outer}, n_allocations=5)
    assert reporter.elided_locations == ElidedLocations(2, 1, 1, 50)


def test_a_tree_that_is_there_is_printed() -> None:
    whole = TreeReporter.from_snapshot(MADE, biggest_allocs=1000, native_traces=False)
    texts = []
    for reporter in (whole, TreeReporter(whole.data, whole.elided_locations)):
        file = io.StringIO()
        reporter.render(file=file)
        texts.append(file.getvalue())
    assert texts[0] == texts[1] and "<module>" in texts[0]


def test_an_app_prints_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TreeReporter.from_snapshot(MADE, native_traces=False)
    reporter.get_app().run()
    shown = capsys.readouterr().out
    reporter.render()
    assert shown == capsys.readouterr().out and shown


def test_an_app_is_shown_by_the_pager(capture: Path) -> None:
    code = (
        "import sys; from heaptide import FileReader; from heaptide.reporters.tree import TreeReporter\n"
        "with FileReader(sys.argv[1]) as reader: records = list(reader.get_high_watermark_allocation_records())\n"
        "TreeReporter.from_snapshot(records, native_traces=False).get_app().run()\n"
    )
    screen, terminal = pty.openpty()
    environment = {**os.environ, "PAGER": "sed s/^/paged:/", "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-c", code, str(capture)]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, env=environment) as process:
        os.close(terminal)
        text = b""
        while True:
            try:
                piece = os.read(screen, 4096)
            except OSError:
                break
            text += piece
    os.close(screen)
    assert process.returncode == 0
    lines = text.decode().splitlines()
    assert len(lines) > 3 and all(line.startswith("paged:") for line in lines)


@needs_memray
@pytest.mark.parametrize("merge_threads", [False, True])
def test_rows_are_memrays(records: Records, merge_threads: bool) -> None:
    from memray.reporters.table import TableReporter as Theirs

    ours, theirs = (
        reporter.from_snapshot(
            iter(records()), memory_records=[], native_traces=False, merge_threads=merge_threads
        ).data
        for reporter in (TableReporter, Theirs)
    )
    assert ours == theirs


@needs_memray
def test_summaries_are_memrays(records: Records) -> None:
    from memray.reporters.summary import SummaryReporter as Theirs

    ours, theirs = (reporter.from_snapshot(iter(records())) for reporter in (SummaryReporter, Theirs))
    assert ours.current_memory_size == theirs.current_memory_size
    assert ours.total_allocations == theirs.total_allocations

    def plain(data: Any) -> list[Any]:
        return [(asdict(place), asdict(entry)) for place, entry in data.items()]

    assert plain(ours.snapshot_data) == plain(theirs.snapshot_data)


def test_a_summary_by_hand() -> None:
    reporter = SummaryReporter(MADE[:3], native=False)
    assert (reporter.current_memory_size, reporter.total_allocations) == (250, 5)
    assert reporter.snapshot_data[Location("b", __file__)] == AllocationEntry(100, 250, 5, {1, 2})
    assert aggregate_allocations([]) == {}
    first = aggregate_allocations(MADE, memory_threshold=1)
    assert {place.function for place in first} == {"a<b>", "b", "<module>"}
