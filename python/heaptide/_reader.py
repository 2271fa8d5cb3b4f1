"""Reading captures."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Optional, Union

from heaptide._enums import FileFormat
from heaptide._heaptide import (
    AllocationRecord,
    ArrowTable,
    CaptureReader,
    TemporalAllocationRecord,
    TrackedObjectRecord,
)
from heaptide._metadata import Metadata
from heaptide._records import MemorySnapshot
from heaptide._stats import Stats

__all__ = ["FileReader", "compute_statistics", "dump_all_records", "set_log_level", "size_fmt"]

_log = logging.getLogger("heaptide")


class FileReader:
    """Reads a capture: a finished one, one that is still written, or what a killed program left behind.

    Args:
        file_name: The capture.
        report_progress: Whether to say on stderr how far the reading is.
        max_memory_records: At most so many snapshots; of more, every second, third, ... is taken, also as the
            boundaries of what is asked over time.

    Raises:
        OSError: When the file cannot be read, or is no capture, or one of a later version.

    What is seen of a capture that is still written is what was in it when the reader was made. Aggregated captures
    answer everything but ``get_allocation_records``, ``get_temporal_allocation_records``,
    ``get_temporal_high_water_mark_allocation_records`` and temporary allocations by another threshold than 1.
    """

    def __init__(
        self, file_name: Union[str, Path], *, report_progress: bool = False, max_memory_records: int = 10000
    ) -> None:
        self._path = os.fspath(file_name)
        self._reader: Optional[CaptureReader] = CaptureReader(self._path, report_progress, max_memory_records)
        self._metadata: Optional[Metadata] = None

    def __enter__(self) -> FileReader:
        return self

    def __exit__(
        self,
        exctype: Optional[type[BaseException]],
        excinst: Optional[BaseException],
        exctb: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<heaptide.FileReader {self._path!r}{' (closed)' if self.closed else ''}>"

    def close(self) -> None:
        """Lets the capture go. Records that are there stay as they are."""
        if self._reader is not None and self._metadata is None:
            # It can be asked for afterwards, too.
            self._metadata = _metadata(self._reader)
        self._reader = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._reader is None

    @property
    def metadata(self) -> Metadata:
        """Facts about the run."""
        if self._metadata is None:
            self._metadata = _metadata(self._open)
        return self._metadata

    @property
    def status(self) -> str:
        """How the program of the capture fares: whether it runs, how it ended, by what it was killed."""
        return self._open.status()

    @property
    def warnings(self) -> list[str]:
        """What was wrong with the capture and could be worked around."""
        return self._open.warnings()

    @property
    def _open(self) -> CaptureReader:
        if self._reader is None:
            raise ValueError("Operation on a closed FileReader")
        return self._reader

    def get_allocation_records(self) -> Iterator[AllocationRecord]:
        """Every allocation and deallocation, in the order in which they happened.

        Raises:
            NotImplementedError: (from the iterator) when the capture is aggregated.
        """
        return self._open.allocation_records()

    def get_high_watermark_allocation_records(self, merge_threads: bool = True) -> Iterator[AllocationRecord]:
        """What was live at the last instant at which the heap was at its largest, by stack and allocator.

        Args:
            merge_threads: Whether the same stack in several threads is one record, which has the thread of one of
                them.
        """
        return self._open.high_watermark(merge_threads)

    def get_leaked_allocation_records(self, merge_threads: bool = True) -> Iterator[AllocationRecord]:
        """What was live when tracking ended, or is now, by stack and allocator."""
        return self._open.leaked(merge_threads)

    def get_total_allocation_records(self, merge_threads: bool = True) -> Iterator[AllocationRecord]:
        """All that was ever allocated, by stack and allocator. (Memray has no such query.)"""
        return self._open.allocated(merge_threads)

    def get_temporary_allocation_records(
        self, merge_threads: bool = True, threshold: int = 1
    ) -> Iterator[AllocationRecord]:
        """What was freed by its own thread when at most ``threshold`` other allocations of that thread had come after
        it, by stack and allocator.

        Raises:
            NotImplementedError: (from the iterator) when the capture is aggregated and counted for another threshold.
        """
        return self._open.temporary(merge_threads, threshold)

    def get_temporal_allocation_records(self, merge_threads: bool = True) -> Iterator[TemporalAllocationRecord]:
        """When what was allocated was given back, by stack and allocator. What does not outlive the time between two
        snapshots is left out.

        Raises:
            NotImplementedError: (from the iterator) when the capture is aggregated.
        """
        return self._open.lifetimes(merge_threads)

    def get_temporal_high_water_mark_allocation_records(
        self, merge_threads: bool = True
    ) -> tuple[Iterator[TemporalAllocationRecord], list[int]]:
        """What was held when the heap was at its largest between each two snapshots, by stack and allocator; and how
        large it was then, in bytes: one number more than there are snapshots.

        Raises:
            NotImplementedError: When the capture is aggregated.
        """
        reader = self._open
        return reader.held_at_peaks(merge_threads), reader.peak_of_each_interval()

    def to_arrow(
        self,
        kind: Literal[
            "high_watermark", "leaked", "total", "temporary", "all", "temporal", "temporal_high_watermark"
        ] = "high_watermark",
        *,
        merge_threads: bool = True,
        threshold: int = 1,
        stacks: bool = True,
    ) -> ArrowTable:
        """The records of a query as columns, for what reads Arrow (its PyCapsule interface): ``pyarrow.table(...)``,
        ``polars.DataFrame(...)``. Nothing has to be installed for it. (Memray has no such query.)

        Args:
            kind: Which records: ``get_high_watermark_allocation_records`` and so on; ``"all"`` is
                ``get_allocation_records``, ``"temporal"`` has a row for each interval of each record.
            merge_threads: As for the query. What is merged has no thread.
            threshold: Of ``"temporary"``: after at most so many other allocations.
            stacks: Whether rows have their frames, or only the ``stack_id``.

        The columns are ``address`` (of ``"all"``), ``allocated_before_snapshot`` and ``deallocated_before_snapshot``
        (of those over time; null: never), ``size`` (bytes), ``count`` (allocations), ``allocator`` (a name of
        `AllocatorType`), ``thread_id``, ``thread_name``, ``stack_id`` and ``stack``: the frames, the innermost first,
        as structs of ``function``, ``qualified_name``, ``file``, ``line``, ``column``, ``end_line`` and
        ``end_column``; null for deallocations. Lines count from 1, columns from 0 in bytes of UTF-8; null is what is
        not known.

        No rows are held: whoever reads the table gets them in batches, worked out anew each time.

        Raises:
            ValueError: When there is no such kind.
            NotImplementedError: (when the table is read) when the capture is aggregated and does not know.
        """
        return self._open.columns(kind, merge_threads, threshold, stacks)

    def get_memory_snapshots(self) -> Iterator[MemorySnapshot]:
        """The memory of the program over time."""
        return map(MemorySnapshot._make, self._open.snapshots())

    def get_object_lifetime_events(
        self, included_objects: Optional[Iterable[object]] = None
    ) -> Iterator[TrackedObjectRecord]:
        """Every creation and destruction of a Python object, in the order in which they happened; of an aggregated
        capture the creations of those that were alive when tracking ended.

        Args:
            included_objects: Only what happened at the addresses of these (their `id`). An address is used again and
                again: some of it may be of others that lay there before.

        Destroyed are also objects that were made before tracking began. Destructions have no stacks and no types.

        Raises:
            RuntimeError: (from the iterator) when the capture does not say: it was made without
                ``track_object_lifetimes``; or, if it is aggregated, the program was killed or is not through yet. After
                the last event, when not all that happened is there: another tracer of objects was set meanwhile.
        """
        reader = self._open
        return reader.object_events(None if included_objects is None else {id(each) for each in included_objects})


def _metadata(reader: CaptureReader) -> Metadata:
    facts: dict[str, Any] = reader.facts()
    for name in ("start_time", "end_time"):
        facts[name] = datetime.fromtimestamp(facts[name] / 1000, timezone.utc)
    facts["file_format"] = FileFormat(facts["file_format"])
    for warning in reader.warnings():
        _log.warning("%s", warning)
    return Metadata(**facts)


def compute_statistics(file_name: Union[str, Path], *, report_progress: bool = False, num_largest: int = 5) -> Stats:
    """Totals of a capture and its ``num_largest`` largest places.

    Raises:
        OSError: When the file cannot be read or is no capture.
        ValueError: When ``num_largest`` is below 1.
    """
    if num_largest < 1:
        raise ValueError(f"Invalid input num_largest={num_largest}, should be greater than 0")
    reader = CaptureReader(os.fspath(file_name), report_progress, 10000)
    return Stats(metadata=_metadata(reader), **reader.statistics(num_largest))


def dump_all_records(file_name: Union[str, Path]) -> None:
    """Prints every record of a capture to ``sys.stdout``, a line each.

    Raises:
        OSError: When there is no such file, or it is no capture.
    """
    path = os.fspath(file_name)
    if not os.path.exists(path):
        raise OSError(f"No such file: {path}")
    CaptureReader(path, False, 10000).write_records(sys.stdout)


def set_log_level(level: int) -> None:
    """Sets from which level on (``logging.WARNING``, ...) the package logs; what is odd about captures is a warning of
    the logger ``heaptide``."""
    _log.setLevel(level)


def size_fmt(num: float, suffix: str = "B") -> str:
    """A number of bytes for people: in thousands, with three decimals."""
    for unit in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if abs(num) < 1000.0:
            return f"{num:5.3f}{unit}{suffix}"
        num /= 1000.0
    return f"{num:.1f}Y{suffix}"
