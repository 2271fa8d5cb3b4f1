"""Reports that are text, beside those of the program on the same capture, and of Memray where that is installed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from compatibility import PACKAGES
from heaptide import FileReader, _program
from heaptide._memray import compute_statistics
from heaptide.reporters.stats import StatsReporter
from heaptide.reporters.summary import SummaryReporter
from heaptide.reporters.transform import TransformReporter
from heaptide.reporters.tree import TreeReporter

needs_memray = pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")


def printed_by_the_program(*arguments: object) -> str:
    command = [_program.find(), *map(str, arguments)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, text=True, capture_output=True, check=True, env=environment).stdout


def summary(path: Path, column: int, **options: Any) -> str:
    with FileReader(path) as reader:
        reporter = SummaryReporter.from_snapshot(reader.get_high_watermark_allocation_records())
    file = io.StringIO()
    reporter.render(column, file=file, **options)
    return file.getvalue()


@pytest.mark.parametrize("column", SummaryReporter.KEY_TO_COLUMN_NAME)
def test_the_summary_is_the_programs(capture: Path, column: int) -> None:
    theirs = printed_by_the_program("summary", "-s", column, capture)
    # In which order functions come that have the same is not said.
    assert sorted(summary(capture, column).splitlines()) == sorted(theirs.splitlines())
    assert summary(capture, column).splitlines()[0] == theirs.splitlines()[0]


def test_the_summary_is_sorted_and_cut(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = summary(capture, 3, max_rows=2).splitlines()
    assert len(few) == 4 and few[1].startswith("grow_and_shrink (")
    assert few[-1].startswith("(") and few[-1].endswith(" more functions)")
    with FileReader(capture) as reader:
        reporter = SummaryReporter(reader.get_high_watermark_allocation_records(), native=True)
    reporter.render(1)
    # No terminal: all of it, and no colours.
    assert capsys.readouterr().out == summary(capture, 1)
    for column in (0, 6):
        with pytest.raises(ValueError, match=f"and not {column}"):
            reporter.render(column)


ON_A_TERMINAL = """
import sys
from heaptide import FileReader
from heaptide.reporters.summary import SummaryReporter
SummaryReporter.from_snapshot(FileReader(sys.argv[1]).get_high_watermark_allocation_records()).render(1)
"""


def test_the_summary_fits_a_terminal(capture: Path) -> None:
    ours, terminal = pty.openpty()
    environment = {**os.environ, "LINES": "15", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-c", ON_A_TERMINAL, str(capture)]
    with open(ours, closefd=True) as screen:
        with subprocess.Popen(command, stdout=terminal, env=environment) as process:
            os.close(terminal)
            text = ""
            with contextlib.suppress(OSError):  # The other end is closed.
                for line in screen:
                    text += line
        assert process.returncode == 0
    assert len(text.splitlines()) <= 12 and "\x1b[" in text


def test_the_tree_is_the_programs(capture: Path) -> None:
    with FileReader(capture) as reader:
        records = list(reader.get_high_watermark_allocation_records())
    file = io.StringIO()
    reporter = TreeReporter.from_snapshot(iter(records), biggest_allocs=10_000, native_traces=False)
    reporter.render(file=file)
    assert file.getvalue() == printed_by_the_program("tree", "--text", capture)


def test_the_tree_of_the_biggest(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileReader(capture) as reader:
        records = list(reader.get_high_watermark_allocation_records())
    stacks = {tuple(record.stack_trace()) for record in records}
    reporter = TreeReporter.from_snapshot(iter(records), biggest_allocs=1, native_traces=False)
    for _ in range(2):
        reporter.render()
        *lines, last = capsys.readouterr().out.splitlines()
        assert "grow_and_shrink" in lines[-1] and last == f"(1 of {len(stacks):,} stacks, those that have most)"


def transformed(path: Path, form: str) -> str:
    with FileReader(path) as reader:
        reporter = TransformReporter(
            reader.get_high_watermark_allocation_records(merge_threads=False),
            format=form,
            native_traces=False,
            memory_records=[],
        )
    file = io.StringIO()
    reporter.render(file, reader.metadata, show_memory_leaks=False, merge_threads=True, inverted=False)
    return file.getvalue()


def weights(text: str) -> Counter[tuple[Any, ...]]:
    """Of speedscope's or gprof2dot's format: by stack, the outermost frame first."""
    document = json.loads(text)
    sums: Counter[tuple[Any, ...]] = Counter()
    if "functions" in document:
        names = [(each["name"], each["module"]) for each in document["functions"]]
        for event in document["events"]:
            sums[tuple(names[index] for index in reversed(event["callchain"]))] += event["cost"][0]
        return sums
    frames = [tuple(sorted(frame.items())) for frame in document["shared"]["frames"]]
    for profile in document["profiles"]:
        assert profile["endValue"] == sum(profile["weights"])
        for sample, weight in zip(profile["samples"], profile["weights"]):
            sums[(profile["unit"], *(frames[index] for index in sample))] += weight
    return sums


def lines(text: str) -> Counter[tuple[str, ...]]:
    """Of CSV. Stacks that differ in columns only have lines of their own, or one."""
    head, *rows = csv.reader(io.StringIO(text))
    assert head == ["allocator", "num_allocations", "size", "tid", "thread_name", "stack_trace"]
    sums: Counter[tuple[str, ...]] = Counter()
    for allocator, blocks, size, *where in rows:
        sums[(allocator, *where, "blocks")] += int(blocks)
        sums[(allocator, *where, "size")] += int(size)
    return sums


@pytest.mark.parametrize("form", TransformReporter.SUFFIX_MAP)
def test_other_formats_are_the_programs(capture: Path, form: str) -> None:
    ours, theirs = transformed(capture, form), printed_by_the_program("transform", form, "-o", "-", capture)
    if form == "csv":
        assert lines(ours) == lines(theirs)
    else:
        assert weights(ours) == weights(theirs)
    if form == "speedscope":
        assert json.loads(ours)["name"] == FileReader(capture).metadata.command_line


def test_a_format_that_is_not_there(capture: Path) -> None:
    with FileReader(capture) as reader, pytest.raises(AttributeError, match="render_as_foo"):
        reporter = TransformReporter([], format="foo", native_traces=False, memory_records=[])
        reporter.render(io.StringIO(), reader.metadata, False, True, False)


def test_deallocations_are_refused(captures: dict[str, Path]) -> None:
    with FileReader(captures["all"]) as reader:
        for report in (
            lambda records: SummaryReporter.from_snapshot(records),
            lambda records: TreeReporter.from_snapshot(records, native_traces=False),
            lambda records: TransformReporter(records, format="csv", native_traces=False, memory_records=[]),
        ):
            with pytest.raises(NotImplementedError):
                report(reader.get_allocation_records())


def test_statistics_as_text(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stats = compute_statistics(capture, num_largest=5)
    StatsReporter(stats, 2).render()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["Total", "allocations:", f"{stats.total_num_allocations:,}"]
    (start,) = (number + 1 for number, line in enumerate(lines) if line.startswith("Allocations by size"))
    # Of those only the smallest that it may be is known.
    assert ("smallest" in lines[start - 1]) == (capture.stem == "aggregated")
    sizes = lines[start : lines.index("", start)]
    counts = [int(line.split()[3].replace(",", "")) for line in sizes]
    assert sum(counts) == stats.total_num_allocations
    bars = [line.count("#") for line in sizes]
    assert max(bars) == 25 and all((bar > 0) == (count > 0) for bar, count in zip(bars, counts))
    places = lines[lines.index("Top 2 places by size") + 1 :][:3]
    assert "grow_and_shrink" in places[0] and places[2] == ""
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"Invalid input num_largest={number}, should be >=1"):
            StatsReporter(stats, number)


def test_classes_of_sizes(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stats = compute_statistics(capture)
    cases: list[dict[int, int]] = [{}, {0: 3}, {1: 2}, {5: 1, 6: 2}, {7: 1, 9_000_000: 1}]
    for sizes in cases:
        stats.allocation_count_by_size = sizes
        StatsReporter(stats, 1).render(tmp_path / "stats.json")
        classes = json.loads((tmp_path / "stats.json").read_text())["allocation_size_histogram"]
        # Each begins where the one before ends.
        starts = [each["min_bytes"] for each in classes]
        assert starts == [0, *(each["max_bytes"] + 1 for each in classes)][: len(classes)]
        for each in classes:
            inside = range(each["min_bytes"], each["max_bytes"] + 1)
            assert inside and each["count"] == sum(count for size, count in sizes.items() if size in inside)
        assert sum(each["count"] for each in classes) == sum(sizes.values())
        StatsReporter(stats, 1).render()
        assert capsys.readouterr().out.count("up to") == len(classes)


THEIRS = """
import io, pathlib, sys
from memray import FileReader
from memray._memray import compute_statistics
from memray.reporters.stats import StatsReporter
from memray.reporters.transform import TransformReporter
path, target = sys.argv[1], pathlib.Path(sys.argv[2])
StatsReporter(compute_statistics(path, num_largest=5), 3).render(target / "stats.json")
for form in TransformReporter.SUFFIX_MAP:
    with FileReader(path) as reader, (target / form).open("w", newline="") as file:
        records = reader.get_high_watermark_allocation_records(merge_threads=False)
        reporter = TransformReporter(records, format=form, native_traces=False, memory_records=[])
        reporter.render(file, reader.metadata, False, True, False)
"""


@pytest.fixture(scope="module")
def memrays(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a capture of Memray's, and Memray's reports on it."""
    directory = tmp_path_factory.mktemp("memrays")
    path = directory / "memray.bin"
    command = [sys.executable, "-m", "memray", "run", "-q", "-o", str(path), str(program)]
    subprocess.run(command, check=True)
    subprocess.run([sys.executable, "-c", THEIRS, str(path), str(directory)], check=True)
    return directory


@needs_memray
def test_statistics_are_memrays(memrays: Path, tmp_path: Path) -> None:
    theirs = json.loads((memrays / "stats.json").read_text())
    StatsReporter(compute_statistics(memrays / "memray.bin"), 3).render(tmp_path / "ours.json")
    ours = json.loads((tmp_path / "ours.json").read_text())
    assert ours.keys() == theirs.keys() and ours["metadata"].keys() >= theirs["metadata"].keys()
    # Which of several that have the same is named is not said.
    same = [*theirs][:4]
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    for name, figure in (("top_allocations_by_size", "size"), ("top_allocations_by_count", "count")):
        assert [each[figure] for each in ours[name]] == [each[figure] for each in theirs[name]]
        assert ours[name][0] == theirs[name][0]
    for name in ("top_modules_by_allocation_size", "top_modules_by_allocation_count"):
        assert ours[name][0].keys() == theirs[name][0].keys()
    named = ("command_line", "pid", "python_allocator", "has_native_traces", "trace_python_allocators", "file_format")
    for name in (*named, "start_time", "end_time", "peak_memory"):
        assert ours["metadata"][name] == theirs["metadata"][name], name


@needs_memray
@pytest.mark.parametrize("form", TransformReporter.SUFFIX_MAP)
def test_other_formats_are_memrays(memrays: Path, form: str) -> None:
    ours, theirs = transformed(memrays / "memray.bin", form), (memrays / form).read_text()
    if form != "csv":
        assert weights(ours) == weights(theirs)
        return
    sums: list[Counter[tuple[str, ...]]] = [Counter(), Counter()]
    for text, merged in zip((ours, theirs), sums):
        for (_, tid, name, stack, figure), amount in lines(text).items():
            # Memray's have the allocator of any block of a stack, and no name of the main thread.
            merged[tid, name.replace(" (MainThread)", ""), stack, figure] += amount
    assert sums[0] == sums[1]
