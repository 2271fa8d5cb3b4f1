"""What markers demand of a test, and whether its capture keeps to it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Protocol, Union

from heaptide import AllocationRecord, FileReader
from heaptide._memray import TrackedObjectRecord
from heaptide._tracker import has_gil
from heaptide.pytest_plugin._amounts import parse_bytes, text

__all__ = [
    "Finding",
    "LeakedObjectsFilterFunction",
    "LeaksFilterFunction",
    "Limit",
    "LimitLeakedObjects",
    "LimitLeaks",
    "LimitMemory",
    "Shown",
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

LeakedObjectsFilterFunction = Callable[[Any], bool]
"""Says whether an object that is left behind counts."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with a test."""

    section: str
    """The name of the section in the report of the test."""
    message: str
    details: str


class Shown(NamedTuple):
    """How much is said of what is wrong."""

    most: int
    """So many stacks are named; 0: all."""
    depth: int
    """So many frames of each."""
    verbosity: int
    """As pytest's, for those who heed it."""
    native: bool
    """Native frames, too, where they were recorded."""


class Limit(Protocol):
    """A demand."""

    @property
    def native_traces(self) -> bool:
        """Whether native stacks tell blocks apart."""

    @property
    def trace_python_allocators(self) -> bool:
        """Whether requests to Python's own allocators count."""

    @property
    def track_objects(self) -> bool:
        """Whether objects count."""

    def check(self, reader: FileReader, survivors: Sequence[object], shown: Shown) -> Optional[Finding]:
        """What is wrong, if anything. `survivors`: the objects that the test has left behind, if they count."""


_OURS = str(Path(__file__).parent)


def frames_of(record: Union[AllocationRecord, TrackedObjectRecord], native: bool) -> tuple[StackFrame, ...]:
    """The frames of the test, native ones if they are wanted and were recorded: those of this plugin and of what has
    called it are left out."""
    frames = _above_ours(record.stack_trace())
    if not native:
        return frames
    hybrid = _above_ours(record.hybrid_stack_trace())
    if frames:
        # What calls the test is not of the test.
        while hybrid[-1] != frames[-1]:
            hybrid = hybrid[:-1]
    return hybrid


def _above_ours(stack: Iterable[tuple[str, str, int]]) -> tuple[StackFrame, ...]:
    frames = []
    for function, file, line in stack:
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


def _merged(records: Iterable[AllocationRecord], native: bool) -> dict[tuple[StackFrame, ...], int]:
    sizes: dict[tuple[StackFrame, ...], int] = {}
    for record in records:
        frames = frames_of(record, native)
        sizes[frames] = sizes.get(frames, 0) + record.size
    return sizes


_ALL_STACKS = 2
"""From this verbosity on ``limit_memory`` names every stack."""


@dataclass(frozen=True)
class LimitMemory:
    """``limit_memory("24 MB")``: what the test holds at its peak is less."""

    limit: int
    own_thread: bool
    native_traces: bool = False
    trace_python_allocators: bool = False
    track_objects: bool = False

    @classmethod
    def of(cls, limit: str, *, current_thread_only: bool = False) -> LimitMemory:
        """From the arguments of the marker."""
        return cls(parse_bytes(limit), current_thread_only)

    def check(self, reader: FileReader, survivors: Sequence[object], shown: Shown) -> Optional[Finding]:
        """See `Limit`."""
        records = reader.get_high_watermark_allocation_records(merge_threads=not self.own_thread)
        held = _of_test(reader, records, self.own_thread)
        peak = sum(record.size for record in held)
        if peak < self.limit:
            return None
        # As pytest-memray, whose setting it is.
        most = 0 if shown.verbosity >= _ALL_STACKS else shown.most
        details = f"Held at the peak, {text(peak)} in all"
        if shown.verbosity >= 0:
            details += f":\n{stacks_text(_merged(held, shown.native).items(), most, shown.depth)}"
        return Finding(
            "heaptide-max-memory",
            f"the test held {text(peak)} at its peak, and its limit is {text(self.limit)}",
            details,
        )


@dataclass(frozen=True)
class LimitLeaks:
    """``limit_leaks("1 MB")``: no stack leaves as much behind."""

    limit: int
    keep: Optional[LeaksFilterFunction]
    own_thread: bool
    native_traces: bool = True
    trace_python_allocators: bool = True
    track_objects: bool = False

    @classmethod
    def of(
        cls, location_limit: str, *, filter_fn: Optional[LeaksFilterFunction] = None, current_thread_only: bool = False
    ) -> LimitLeaks:
        """From the arguments of the marker."""
        return cls(parse_bytes(location_limit), filter_fn, current_thread_only)

    def check(self, reader: FileReader, survivors: Sequence[object], shown: Shown) -> Optional[Finding]:
        """See `Limit`."""
        records = reader.get_leaked_allocation_records(merge_threads=not self.own_thread)
        left = _of_test(reader, records, self.own_thread)
        # As pytest-memray: what differs in native frames only is held to the limit apart.
        python_frames = {frames_of(record, native=True): frames_of(record, native=False) for record in left}
        leaks = [
            (frames if shown.native else python_frames[frames], size)
            for frames, size in _merged(left, native=True).items()
            if size >= self.limit and (self.keep is None or self.keep(Stack(frames)))
        ]
        if not leaks:
            return None
        total = sum(size for _, size in leaks)
        places = "1 place" if len(leaks) == 1 else f"{len(leaks)} places"
        return Finding(
            "heaptide-leaked-memory",
            f"the test left {text(total)} behind, in {places} of {text(self.limit)} or more",
            f"Live when the test had ended:\n{stacks_text(leaks, shown.most, shown.depth)}",
        )


_LONGEST_REPR = 100


@dataclass(frozen=True)
class LimitLeakedObjects:
    """``limit_leaked_objects()``: no object that the test makes is alive after it."""

    keep: Optional[LeakedObjectsFilterFunction]
    native_traces: bool = False
    trace_python_allocators: bool = False
    track_objects: bool = True

    @classmethod
    def of(cls, *, filter_fn: Optional[LeakedObjectsFilterFunction] = None) -> LimitLeakedObjects:
        """From the arguments of the marker.

        Raises:
            ValueError: When the interpreter does not tell of objects.
        """
        if sys.version_info < (3, 13, 3):
            version = ".".join(map(str, sys.version_info[:3]))
            raise ValueError(f"it requires Python 3.13.3 or later, and this is {version}")
        if not has_gil():
            raise ValueError("it requires a Python with the GIL")
        return cls(filter_fn)

    def check(self, reader: FileReader, survivors: Sequence[object], shown: Shown) -> Optional[Finding]:
        """See `Limit`."""
        left = {id(each): each for each in survivors if self.keep is None or self.keep(each)}
        if not left:
            return None
        kinds: dict[tuple[str, tuple[StackFrame, ...]], list[object]] = {}
        for record in reader.get_object_lifetime_events(left.values()):
            each = left[record.address]
            kinds.setdefault((type(each).__name__, frames_of(record, native=False)), []).append(each)
        objects = "1 object" if len(left) == 1 else f"{len(left)} objects"
        return Finding(
            "heaptide-leaked-objects",
            f"the test left {objects} behind",
            f"Alive when the test had ended, {objects} in all:\n{_objects_text(kinds, shown.most, shown.depth)}",
        )


def _objects_text(kinds: dict[tuple[str, tuple[StackFrame, ...]], list[object]], most: int, depth: int) -> str:
    """How many of which type were made where, with one of them."""
    largest = sorted(kinds.items(), key=lambda item: len(item[1]), reverse=True)
    shown = largest[:most] if most else largest
    lines = []
    for (type_name, frames), objects in shown:
        lines.append(f"    - {len(objects)} {type_name}: {_repr(objects[0])}")
        lines += [f"        {frame.function}  {frame.filename}:{frame.lineno}" for frame in frames[:depth]]
        if not frames:
            lines.append("        (no frame of the test)")
    left = largest[len(shown) :]
    if left:
        lines.append(f"    - {sum(len(objects) for _, objects in left)} of {len(left)} kinds more")
    return "\n".join(lines)


def _repr(each: object) -> str:
    try:
        words = repr(each)
    except Exception as error:
        return f"<its repr fails: {type(error).__name__}>"
    return words if len(words) <= _LONGEST_REPR else f"{words[: _LONGEST_REPR - 3]}..."
