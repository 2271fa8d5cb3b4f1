"""FileReader, on the captures of a program with a known answer."""

from __future__ import annotations

import copy
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

import heaptide
from conftest import EXTRA, needs_gil
from heaptide import AllocatorType, FileFormat, FileReader
from heaptide._memray import Interval, MemorySnapshot, TemporalAllocationRecord, compute_statistics, size_fmt


def of(function: str, records):  # type: ignore[no-untyped-def]
    """Records whose innermost frame is a function of the program."""
    found = []
    for record in records:
        if record.allocator in (AllocatorType.FREE, AllocatorType.MUNMAP):
            continue
        stack = record.stack_trace(max_stacks=1)
        if stack and stack[0][0] == function and stack[0][1].endswith("program.py"):
            found.append(record)
    return found


BLOCK = 1000 + EXTRA
LARGE = 3_000_000 + EXTRA


@needs_gil
def test_sums_by_stack(capture: Path) -> None:
    with FileReader(capture) as reader:
        (peak,) = of("grow_and_shrink", reader.get_high_watermark_allocation_records())
        assert (peak.size, peak.n_allocations, peak.address) == (LARGE, 1, 0)
        assert AllocatorType(peak.allocator) in (AllocatorType.MALLOC, AllocatorType.CALLOC)
        assert not of("grow_and_shrink", reader.get_leaked_allocation_records())
        blocks = [record for record in of("many", reader.get_leaked_allocation_records()) if record.size >= BLOCK]
        assert [(record.size, record.n_allocations) for record in blocks] == [(7 * BLOCK, 7)]
        (fleeting,) = of("fleeting", reader.get_temporary_allocation_records())
        assert (fleeting.size, fleeting.n_allocations) == (11 * (5000 + EXTRA), 11)
        (total,) = of("fleeting", reader.get_total_allocation_records())
        assert (total.size, total.n_allocations) == (11 * (5000 + EXTRA), 11)


def test_threads_apart_and_merged(capture: Path) -> None:
    reader = FileReader(capture)
    apart = [it for it in of("many", reader.get_total_allocation_records(merge_threads=False)) if it.size >= BLOCK]
    assert sorted((record.thread_name, record.n_allocations) for record in apart) == [("MainThread", 7), ("worker", 3)]
    main = next(record for record in apart if record.thread_name == "MainThread")
    assert main.tid == reader.metadata.main_thread_id
    # Another caller, another stack: these are not merged.
    merged = [it for it in of("many", reader.get_total_allocation_records()) if it.size >= BLOCK]
    assert sorted(record.n_allocations for record in merged) == [3, 7]


@needs_gil
def test_records_as_python_objects(capture: Path) -> None:
    reader = FileReader(capture)
    (record,) = of("fleeting", reader.get_total_allocation_records())
    (again,) = of("fleeting", FileReader(capture).get_total_allocation_records())
    assert record == again and hash(record) == hash(again) and record in {again}
    (other,) = of("grow_and_shrink", reader.get_total_allocation_records())
    assert record != other and record != 1
    size = size_fmt(11 * (5000 + EXTRA))
    numbers = f"tid={record.tid:#x}, address=0x0, size={size}, allocator={record.allocator}, allocations=11"
    assert repr(record) == f"AllocationRecord<{numbers}>"
    assert (record.native_stack_id, record.native_segment_generation, record.native_stack_trace()) == (0, 0, [])
    with pytest.raises(AttributeError):
        record.size = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        sorted([record, other])  # type: ignore[type-var]


@needs_gil
def test_frames_are_tuples_that_know_more(capture: Path) -> None:
    (record,) = of("fleeting", FileReader(capture).get_total_allocation_records())
    stack = record.stack_trace()
    assert [frame[0] for frame in stack] == ["fleeting", "<module>"]
    frame = stack[0]
    assert frame == ("fleeting", frame.file, 14) and hash(frame) == hash(("fleeting", frame.file, 14))
    function, file, line = frame
    assert (function, file, line) == (frame.function, frame.file, frame.line)
    assert frame.qualified_name == "fleeting"
    if sys.version_info >= (3, 11):
        assert (frame.column, frame.end_column, frame.end_line) == (8, 23, 14)
    assert record.stack_trace(max_stacks=1) == stack[:1] and record.stack_trace(0) == []
    assert record.hybrid_stack_trace() == stack
    assert copy.copy(frame) == frame


@needs_gil
def test_every_record_in_order(captures: dict[str, Path]) -> None:
    reader = FileReader(captures["all"])
    live: dict[int, int] = {}
    peak = total = heap = 0
    for record in reader.get_allocation_records():
        assert record.n_allocations == 1
        if record.allocator == AllocatorType.FREE:
            heap -= live.pop(record.address, 0)
            with pytest.raises(NotImplementedError, match=r"Stack traces for deallocations aren't captured\."):
                record.stack_trace()
        elif record.allocator != AllocatorType.MUNMAP:
            total += 1
            if record.allocator == AllocatorType.MMAP:
                continue
            assert record.address not in live
            live[record.address] = record.size
            heap += record.size
            peak = max(peak, heap)
    assert total == reader.metadata.total_allocations == compute_statistics(captures["all"]).total_num_allocations
    mapped = sum(
        record.size
        for record in reader.get_high_watermark_allocation_records()
        if record.allocator == AllocatorType.MMAP
    )
    assert peak + mapped == reader.metadata.peak_memory


def test_deallocations_by_python_allocators_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.tide"
    command = [sys.executable, "-m", "heaptide", "run", "-q", "--trace-python-allocators", "-o", str(path)]
    subprocess.run([*command, "-c", "x = [object() for _ in range(100)]; del x"], check=True)
    reader = FileReader(path)
    assert reader.metadata.trace_python_allocators
    kinds = {AllocatorType(record.allocator).name for record in reader.get_allocation_records()}
    assert {"PYMALLOC_MALLOC", "PYMALLOC_FREE", "PYMALLOC_REALLOC"} <= kinds


def test_history(captures: dict[str, Path]) -> None:
    reader = FileReader(captures["all"])
    snapshots = list(reader.get_memory_snapshots())
    assert snapshots and all(isinstance(snapshot, MemorySnapshot) for snapshot in snapshots)
    records, peaks = reader.get_temporal_high_water_mark_allocation_records()
    assert len(peaks) == len(snapshots) + 1 and max(peaks) == reader.metadata.peak_memory
    held = [0] * len(peaks)
    for record in records:
        assert isinstance(record, TemporalAllocationRecord) and (record.tid, record.thread_name) == (0, "")
        for interval in record.intervals:
            end = len(peaks) if interval.deallocated_before_snapshot is None else interval.deallocated_before_snapshot
            assert interval.allocated_before_snapshot < end
            for index in range(interval.allocated_before_snapshot, end):
                held[index] += interval.n_bytes
    assert held == peaks
    alive = sum(
        interval.n_bytes
        for record in reader.get_temporal_allocation_records(merge_threads=False)
        for interval in record.intervals
        if interval.deallocated_before_snapshot is None
    )
    assert alive == sum(record.size for record in reader.get_leaked_allocation_records())


def test_snapshots_are_thinned(captures: dict[str, Path]) -> None:
    all_of_them = list(FileReader(captures["all"]).get_memory_snapshots())
    reader = FileReader(captures["all"], max_memory_records=2)
    few = list(reader.get_memory_snapshots())
    stride = -(-len(all_of_them) // 2)
    assert few == all_of_them[::stride]
    _, peaks = reader.get_temporal_high_water_mark_allocation_records()
    assert len(peaks) == len(few) + 1


def test_what_counters_cannot_answer(captures: dict[str, Path]) -> None:
    reader = FileReader(captures["aggregated"])
    with pytest.raises(NotImplementedError, match="Can't get all allocations from a pre-aggregated capture file"):
        list(reader.get_allocation_records())
    with pytest.raises(NotImplementedError, match="Can't find temporary allocations using a pre-aggregated capture"):
        list(reader.get_temporary_allocation_records(threshold=3))
    history = "Can't get allocation history using a pre-aggregated capture file"
    with pytest.raises(NotImplementedError, match=history):
        list(reader.get_temporal_allocation_records())
    with pytest.raises(NotImplementedError, match=history):
        reader.get_temporal_high_water_mark_allocation_records()


def test_both_modes_say_the_same_of_totals(captures: dict[str, Path]) -> None:
    both = [compute_statistics(path, num_largest=3) for path in captures.values()]
    assert both[0].total_memory_allocated == both[1].total_memory_allocated
    assert both[0].allocation_count_by_allocator == both[1].allocation_count_by_allocator
    assert both[0].top_locations_by_size == both[1].top_locations_by_size
    assert len(both[0].top_modules_by_allocation_count) <= 3
    assert both[0].top_locations_by_size[0][0][0] == "grow_and_shrink"
    assert both[0].allocation_count_by_size[LARGE] == 1
    for stats in both:
        assert sum(stats.allocation_count_by_size.values()) == stats.total_num_allocations


@needs_gil
def test_metadata(capture: Path) -> None:
    before_now = datetime.now(timezone.utc)
    reader = FileReader(capture)
    metadata = reader.metadata
    assert metadata.start_time <= metadata.end_time <= before_now
    assert metadata.command_line.endswith("program.py")
    assert metadata.file_format is FileFormat.__members__[f"{capture.stem.upper()}_ALLOCATIONS"]
    assert (metadata.has_native_traces, metadata.trace_python_allocators) == (False, False)
    assert metadata.python_allocator == "pymalloc"
    assert metadata.total_frames > 0 and metadata.pid > 0
    assert reader.status == "finished" and reader.warnings == []
    assert metadata == compute_statistics(capture).metadata


def test_closed_readers(capture: Path) -> None:
    reader = FileReader(str(capture))
    with reader as entered:
        assert entered is reader and not reader.closed
        records = reader.get_leaked_allocation_records()
    assert reader.closed and reader.metadata.pid
    assert list(records)
    for query in (reader.get_allocation_records, reader.get_memory_snapshots, reader.get_object_lifetime_events):
        with pytest.raises(ValueError, match="Operation on a closed FileReader"):
            query()
    reader.close()
    assert "closed" in repr(reader)


def test_files_that_are_no_captures(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Could not open file .*nothing: No such file or directory"):
        FileReader(tmp_path / "nothing")
    text = tmp_path / "text"
    for content in (b"", b"hello" * 1000):
        text.write_bytes(content)
        with pytest.raises(OSError, match="does not look like a binary generated by heaptide"):
            FileReader(text)
        with pytest.raises(OSError):
            compute_statistics(text)
    with pytest.raises(OSError, match="No such file: "):
        heaptide.dump_all_records(tmp_path / "nothing")
    with pytest.raises(ValueError, match="num_largest"):
        compute_statistics(text, num_largest=0)
    with pytest.raises(TypeError):
        FileReader(3)  # type: ignore[arg-type]


def test_a_damaged_capture_is_read_as_far_as_it_goes(
    captures: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = captures["all"].read_bytes()
    part = tmp_path / "part.tide"
    part.write_bytes(whole[: len(whole) * 2 // 3])
    heaptide.set_log_level(logging.WARNING)
    reader = FileReader(part)
    assert reader.warnings and list(reader.get_leaked_allocation_records()) is not None
    reader.metadata  # noqa: B018
    assert [record.name for record in caplog.records] == ["heaptide"] * len(reader.warnings)
    list(reader.get_allocation_records())


@needs_gil
def test_captures_of_running_and_killed_programs(tmp_path: Path) -> None:
    path = tmp_path / "x.tide"
    text = "x = bytearray(2_000_000)\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()"
    command = [sys.executable, "-m", "heaptide", "run", "-q", "-o", str(path), "-c", text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        running = FileReader(path)
        assert running.status.startswith("running")
        os.kill(running.metadata.pid, signal.SIGKILL)
    killed = FileReader(path)
    assert "SIGKILL" in killed.status
    for reader in (running, killed):
        sizes = [record.size for record in reader.get_leaked_allocation_records()]
        assert 2_000_000 + EXTRA in sizes
        assert 2_000_000 + EXTRA in [record.size for record in reader.get_allocation_records()]


def test_dump_all_records(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heaptide.dump_all_records(capture)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("HEADER ") and any("grow_and_shrink" in line for line in printed)


def test_progress_is_told_on_stderr(captures: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    list(FileReader(captures["all"], report_progress=True).get_leaked_allocation_records())
    assert "100%" in capfd.readouterr().err
    list(FileReader(captures["all"]).get_leaked_allocation_records())
    assert capfd.readouterr().err == ""


def test_sizes_for_people() -> None:
    cases = {0: "0.000B", 999: "999.000B", 1000: "1.000kB", -5555: "-5.555kB", 10**30: "1000000.0YB"}
    assert {number: size_fmt(number) for number in cases} == cases
    assert size_fmt(10**12, "x") == "1.000Tx"


def test_intervals_are_values() -> None:
    interval = Interval(1, None, 2, 3)
    assert interval == Interval(1, None, 2, 3) != Interval(1, 2, 2, 3)
    expected = "Interval(allocated_before_snapshot=1, deallocated_before_snapshot=None, n_allocations=2, n_bytes=3)"
    assert repr(interval) == expected


def test_many_readers_at_once(in_process: Callable[[str], str], captures: dict[str, Path]) -> None:
    printed = in_process(f"""
import threading
from heaptide import FileReader
reader = FileReader({str(captures["all"])!r})
counts = []
def work():
    counts.append(sum(1 for record in reader.get_allocation_records() if record.size or record.thread_name))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(counts), len(set(counts)))
""")
    assert printed.split() == ["8", "1"]
