"""Tracks tests and says what they held."""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
import re
import sys
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Optional

from heaptide import FileDestination, FileFormat, FileReader, Tracker
from heaptide.pytest_plugin._amounts import text
from heaptide.pytest_plugin._limits import StackFrame, frames_of, stacks_text

__all__ = ["Captures", "Measured", "measure", "tracked"]

_LONGEST_NAME = 200


class Captures:
    """Where captures of tests are written, one a test."""

    def __init__(self, directory: Optional[Path], prefix: Optional[str]) -> None:
        self._temporary = None if directory else TemporaryDirectory(prefix="pytest-heaptide-")
        self.directory = directory or Path(self._temporary.name if self._temporary else "")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._prefix = uuid.uuid4().hex if prefix is None else prefix

    def path(self, test: str) -> Path:
        """Of the capture of a test."""
        name = re.sub(r"[^\w.\-\[\]]+", "-", test)
        if len(name.encode()) > _LONGEST_NAME:
            # Parametrised tests may have names longer than those of files.
            digest = hashlib.sha256(test.encode()).hexdigest()[:16]
            name = f"{name.encode()[:_LONGEST_NAME].decode(errors='ignore')}-{digest}"
        return self.directory / (f"{self._prefix}-{name}.tide" if self._prefix else f"{name}.tide")

    def used(self, path: Path) -> None:
        """A capture has been read."""
        if self._temporary:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """The session is over."""
        if self._temporary:
            self._temporary.cleanup()


def tracked(
    function: Callable[..., Any],
    path: Path,
    *,
    native_traces: bool,
    python_allocators: bool,
    survivors: Optional[list[object]],
) -> Callable[..., Any]:
    """The function, tracked while it runs. Objects that it leaves behind are appended to `survivors`, if given."""

    def tracker() -> Tracker:
        return Tracker(
            destination=FileDestination(path, overwrite=True, compress_on_exit=False),
            native_traces=native_traces,
            trace_python_allocators=python_allocators,
            track_object_lifetimes=survivors is not None,
            file_format=FileFormat.AGGREGATED_ALLOCATIONS,
        )

    def keep_survivors(tracker: Tracker) -> None:
        if survivors is not None:
            survivors.extend(tracker.get_surviving_objects())

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def track_it(*arguments: Any, **named: Any) -> Any:
            __tracebackhide__ = True
            with tracker() as active:
                try:
                    result = await function(*arguments, **named)
                finally:
                    if survivors is not None:
                        _settle()
            keep_survivors(active)
            return result
    else:

        @functools.wraps(function)
        def track_it(*arguments: Any, **named: Any) -> Any:
            __tracebackhide__ = True
            with tracker() as active:
                try:
                    result = function(*arguments, **named)
                finally:
                    if survivors is not None:
                        _settle()
            keep_survivors(active)
            return result

    return track_it


def _settle() -> None:
    """Lets go of objects that are only waiting for it: cycles, and what the interpreter keeps for later use."""
    gc.collect()
    clear: Callable[[], None] = getattr(sys, "_clear_internal_caches", lambda: None)
    clear()


@dataclass
class Measured:
    """What a test did, in a form that goes from a worker of xdist to its controller."""

    test: str
    peak: int
    """Bytes that were live when most were."""
    count: int
    """Blocks that were live then."""
    sizes: list[int] = field(default_factory=list)
    """How many of these blocks are in each class of sizes, by powers of 16 from 16 bytes on."""
    stacks: list[tuple[list[tuple[str, str, int]], int]] = field(default_factory=list)
    """The innermost frames of the stacks that held most, and what they held."""
    rest: tuple[int, int] = (0, 0)
    """Bytes and number of the other stacks."""

    def as_plain(self) -> dict[str, Any]:
        """As dictionaries and lists."""
        return asdict(self)

    def stacks_text(self, depth: int) -> str:
        """The stacks, for people."""
        sizes = [(tuple(StackFrame(*frame) for frame in frames), size) for frames, size in self.stacks]
        words = stacks_text(sizes, 0, depth)
        size, count = self.rest
        return f"{words}\n    - {text(size)} by {count} stacks more" if count else words


CLASSES = ("<16B", "<256B", "<4KiB", "<64KiB", "<1MiB", "≥1MiB")


def _class(size: float) -> int:
    index = 0
    limit = 16
    while index < len(CLASSES) - 1 and size >= limit:
        limit *= 16
        index += 1
    return index


def measure(test: str, reader: FileReader, most: int, depth: int, *, native: bool) -> Measured:
    """What the capture of a test says, by stacks with `native` frames or without."""
    measured = Measured(test, 0, 0, [0] * len(CLASSES))
    stacks: dict[tuple[StackFrame, ...], int] = {}
    for record in reader.get_high_watermark_allocation_records(merge_threads=True):
        measured.peak += record.size
        measured.count += record.n_allocations
        measured.sizes[_class(record.size / max(record.n_allocations, 1))] += record.n_allocations
        frames = frames_of(record, native)[:depth]
        stacks[frames] = stacks.get(frames, 0) + record.size
    largest = sorted(stacks.items(), key=lambda item: item[1], reverse=True)
    shown = largest[:most] if most else largest
    measured.stacks = [([(f.function, f.filename, f.lineno) for f in frames], size) for frames, size in shown]
    left = largest[len(shown) :]
    measured.rest = (sum(size for _, size in left), len(left))
    return measured
