"""What markers demand of a test, and whether its capture keeps to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Protocol

from heaptide import AllocationRecord, FileReader
from heaptide.pytest_plugin._amounts import parse_bytes, text

__all__ = [
    "Finding",
    "LeaksFilterFunction",
    "Limit",
    "LimitLeaks",
    "LimitMemory",
    "Stack",
    "StackFrame",
    "frames_of",
    "stacks_text",
]


class StackFrame(NamedTuple):
    """A frame of a stack."""

    function: str
    filename: str
    lineno: int


class Stack(NamedTuple):
    """A stack that memory was allocated by, the innermost frame first."""

    frames: tuple[StackFrame, ...]


LeaksFilterFunction = Callable[[Stack], bool]
"""Says whether what a stack leaks counts."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with a test."""

    section: str
    """The name of the section in the report of the test."""
    message: str
    details: str


class Limit(Protocol):
    """A demand."""

    @property
    def trace_python_allocators(self) -> bool:
        """Whether requests to Python's own allocators count."""

    def check(self, reader: FileReader, most: int, depth: int) -> Optional[Finding]:
        """What is wrong, if anything; at most `most` stacks (0: all) of `depth` frames are named."""


_OURS = str(Path(__file__).parent)


def frames_of(record: AllocationRecord) -> tuple[StackFrame, ...]:
    """The frames of the test: those of this plugin and of what has called it are left out."""
    frames = []
    for function, file, line in record.stack_trace():
        if file.startswith(_OURS):
            break
        frames.append(StackFrame(function, file, line))
    return tuple(frames)


def _of_test(reader: FileReader, records: Iterable[AllocationRecord], own_thread: bool) -> list[AllocationRecord]:
    # The thread in which tracking started is the one that runs the test.
    thread = reader.metadata.main_thread_id
    return [record for record in records if not own_thread or record.tid == thread]


def stacks_text(sizes: Collection[tuple[tuple[StackFrame, ...], int]], most: int, depth: int) -> str:
    """The stacks that have most, one frame a line where `depth` is more than 1."""
    largest = sorted(sizes, key=lambda item: item[1], reverse=True)
    shown = largest[:most] if most else largest
    lines = []
    for frames, size in shown:
        lines.append(f"    - {text(size)}")
        lines += [f"        {frame.function}  {frame.filename}:{frame.lineno}" for frame in frames[:depth]]
        if not frames:
            lines.append("        (no frame of the test)")
        elif len(frames) > depth > 1:
            lines.append(f"        ({len(frames) - depth} callers more)")
    left = largest[len(shown) :]
    if left:
        lines.append(f"    - {text(sum(size for _, size in left))} by {len(left)} stacks more")
    return "\n".join(lines)


def _merged(records: Iterable[AllocationRecord]) -> dict[tuple[StackFrame, ...], int]:
    sizes: dict[tuple[StackFrame, ...], int] = {}
    for record in records:
        frames = frames_of(record)
        sizes[frames] = sizes.get(frames, 0) + record.size
    return sizes


@dataclass(frozen=True)
class LimitMemory:
    """``limit_memory("24 MB")``: what the test holds at its peak is less."""

    limit: int
    own_thread: bool
    trace_python_allocators: bool = False

    @classmethod
    def of(cls, limit: str, *, current_thread_only: bool = False) -> LimitMemory:
        """From the arguments of the marker."""
        return cls(parse_bytes(limit), current_thread_only)

    def check(self, reader: FileReader, most: int, depth: int) -> Optional[Finding]:
        """See `Limit`."""
        records = reader.get_high_watermark_allocation_records(merge_threads=not self.own_thread)
        held = _of_test(reader, records, self.own_thread)
        peak = sum(record.size for record in held)
        if peak < self.limit:
            return None
        return Finding(
            "heaptide-max-memory",
            f"the test held {text(peak)} at its peak, and its limit is {text(self.limit)}",
            f"Held at the peak, {text(peak)} in all:\n{stacks_text(_merged(held).items(), most, depth)}",
        )


@dataclass(frozen=True)
class LimitLeaks:
    """``limit_leaks("1 MB")``: no stack leaves as much behind."""

    limit: int
    keep: Optional[LeaksFilterFunction]
    own_thread: bool
    trace_python_allocators: bool = True

    @classmethod
    def of(
        cls, location_limit: str, *, filter_fn: Optional[LeaksFilterFunction] = None, current_thread_only: bool = False
    ) -> LimitLeaks:
        """From the arguments of the marker."""
        return cls(parse_bytes(location_limit), filter_fn, current_thread_only)

    def check(self, reader: FileReader, most: int, depth: int) -> Optional[Finding]:
        """See `Limit`."""
        records = reader.get_leaked_allocation_records(merge_threads=not self.own_thread)
        left = _of_test(reader, records, self.own_thread)
        leaks = [
            (frames, size)
            for frames, size in _merged(left).items()
            if size >= self.limit and (self.keep is None or self.keep(Stack(frames)))
        ]
        if not leaks:
            return None
        total = sum(size for _, size in leaks)
        places = "1 place" if len(leaks) == 1 else f"{len(leaks)} places"
        return Finding(
            "heaptide-leaked-memory",
            f"the test left {text(total)} behind, in {places} of {text(self.limit)} or more",
            f"Live when the test had ended:\n{stacks_text(leaks, most, depth)}",
        )
