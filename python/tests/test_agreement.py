"""FileReader on our captures, and Memray's on Memray's, of the same programs: the same records.

Compared is what lies below functions of the program. What the two profilers' own starts add is set aside, and threads
are compared by name; see docs/differences-from-memray.md. Only where Memray can be imported.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heaptide import AllocatorType, FileReader

memray = pytest.importorskip("memray")

PROGRAMS = {
    "objects": """
class Node:
    def __init__(self, size): self.data = bytearray(size)
def build(n): return [Node(3000 + i) for i in range(n)]
def main():
    kept = build(50)
    build(30)
    return kept
kept = main()
""",
    "threads": """
import threading
def block(size): return bytearray(size)
kept = []
def work(size):
    for _ in range(20): block(size)
    kept.append(block(2 * size))
def main():
    for number in range(3):
        thread = threading.Thread(target=work, args=(10_000 * (number + 1),), name=f"worker {number}")
        thread.start()
        thread.join()
main()
""",
    "growth": """
def grow(n):
    text = bytearray()
    for _ in range(n): text += b"x" * 5000
    return text
def main():
    kept = grow(40)
    grow(60)
    return kept
kept = main()
""",
    "mappings": """
import mmap
def whole(): return mmap.mmap(-1, 1 << 20)
def main():
    kept = whole()
    for _ in range(5): whole().close()
    return kept
kept = main()
""",
    "recursion": """
def down(depth):
    here = bytearray(1500)
    return [here, down(depth - 1)] if depth else [here]
def main():
    kept = down(20)
    down(30)
    return kept
kept = main()
""",
}

Key = tuple


def stack_of(record: Any) -> Key | None:
    """The frames up to the outermost function of the program."""
    frames = [tuple(frame) for frame in record.stack_trace(max_stacks=1000)]
    ours = [i for i, (name, file, _) in enumerate(frames) if file.endswith("program.py") and name != "<module>"]
    # What the C library keeps for a thread goes when the thread does, which is some time after `join`.
    if not ours or (frames[0][0], os.path.basename(frames[0][1])) == ("start", "threading.py"):
        return None
    return tuple(frames[: ours[-1] + 1])


def sums(records: Any, by_thread: bool = False, by_allocator: bool = False) -> dict[Key, list[int]]:
    found: dict[Key, list[int]] = collections.defaultdict(lambda: [0, 0])
    for record in records:
        if record.allocator in (AllocatorType.FREE, AllocatorType.MUNMAP):
            continue
        stack = stack_of(record)
        if stack is None:
            continue
        key: Key = (stack,)
        if by_thread:
            key += (record.thread_name.removeprefix("MainThread") if record.thread_name else "",)
        if by_allocator:
            key += (record.allocator,)
        found[key][0] += record.n_allocations
        found[key][1] += record.size
    return dict(found)


def sequence(records: Any) -> list[Key]:
    """What the program did, in order: blocks by number instead of address."""
    numbers: dict[int, int] = {}
    done: list[Key] = []
    for record in records:
        if record.allocator in (AllocatorType.FREE, AllocatorType.MUNMAP):
            number = numbers.pop(record.address, None)
            if number is not None:
                done.append(("given back", number))
            continue
        stack = stack_of(record)
        if stack is None:
            continue
        numbers[record.address] = len(done)
        done.append((stack, record.size, record.allocator, record.n_allocations))
    return done


def held_at_the_end(records: Any) -> dict[Key, list[int]]:
    """Of a history of lifetimes: what never ended."""
    found: dict[Key, list[int]] = collections.defaultdict(lambda: [0, 0])
    for record in records:
        stack = stack_of(record)
        for interval in record.intervals:
            if stack is not None and interval.deallocated_before_snapshot is None:
                found[stack,][0] += interval.n_allocations
                found[stack,][1] += interval.n_bytes
    return dict(found)


@pytest.fixture(scope="module", params=PROGRAMS)
def readers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FileReader, Any]:
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "program.py").write_text(PROGRAMS[request.param])
    for name in ("heaptide", "memray"):
        command = [sys.executable, "-m", name, "run", "-q", "-o", f"{name}.capture", str(directory / "program.py")]
        subprocess.run(command, check=True, cwd=directory)
    ours, theirs = directory / "heaptide.capture", directory / "memray.capture"
    return FileReader(ours), memray.FileReader(theirs)


QUERIES = ("high_watermark", "leaked", "temporary")


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("merge", [True, False])
def test_sums(readers: tuple[FileReader, Any], query: str, merge: bool) -> None:
    ours, theirs = (
        sums(getattr(reader, f"get_{query}_allocation_records")(merge_threads=merge), by_thread=not merge)
        for reader in readers
    )
    assert ours == theirs
    assert ours or query == "temporary"


@pytest.mark.parametrize("threshold", [0, 2, 9])
def test_temporary_by_threshold(readers: tuple[FileReader, Any], threshold: int) -> None:
    ours, theirs = (sums(reader.get_temporary_allocation_records(threshold=threshold)) for reader in readers)
    assert ours == theirs


def test_every_record(readers: tuple[FileReader, Any]) -> None:
    ours, theirs = (sequence(reader.get_allocation_records()) for reader in readers)
    assert len(ours) > 5
    assert ours == theirs
    by_allocator = [sums(reader.get_allocation_records(), by_thread=True, by_allocator=True) for reader in readers]
    assert by_allocator[0] == by_allocator[1]


def test_what_lived_to_the_end(readers: tuple[FileReader, Any]) -> None:
    ours, theirs = (held_at_the_end(reader.get_temporal_allocation_records()) for reader in readers)
    assert ours == theirs and ours


def test_the_history_of_peaks_is_of_the_same_form(readers: tuple[FileReader, Any]) -> None:
    peaks = []
    for reader in readers:
        records, by_snapshot = reader.get_temporal_high_water_mark_allocation_records()
        # Of Memray's there is none for what comes after the last snapshot where that comes after all events.
        more = len(by_snapshot) - len(list(reader.get_memory_snapshots()))
        assert more == 1 or (more == 0 and not isinstance(reader, FileReader))
        at = max(range(len(by_snapshot)), key=lambda index, peaks=by_snapshot: (peaks[index], index))
        held: dict[Key, list[int]] = collections.defaultdict(lambda: [0, 0])
        for record in records:
            stack = stack_of(record)
            for interval in record.intervals if stack else ():
                end = interval.deallocated_before_snapshot
                if interval.allocated_before_snapshot <= at and (end is None or at < end):
                    held[stack,][0] += interval.n_allocations
                    held[stack,][1] += interval.n_bytes
        # Memray also tells of stacks that held nothing.
        peaks.append({key: sums for key, sums in held.items() if sums != [0, 0]})
    assert peaks[0] == peaks[1] and peaks[0]


def test_captures_of_memray_are_read_like_memray_reads_them(readers: tuple[FileReader, Any], tmp_path: Path) -> None:
    path = next(Path(readers[0]._path).parent.glob("memray.capture"))
    foreign = FileReader(path)
    for query in QUERIES:
        name = f"get_{query}_allocation_records"
        assert sums(getattr(foreign, name)()) == sums(getattr(readers[1], name)())
    assert sequence(foreign.get_allocation_records()) == sequence(readers[1].get_allocation_records())
