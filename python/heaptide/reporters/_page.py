"""What the reports that are pages have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from heaptide._enums import FileFormat
from heaptide._heaptide import RecordSums
from heaptide._metadata import Metadata
from heaptide._records import MemorySnapshot

__all__ = ["Page"]


class Page:
    """A page on records, of any class that has what is asked of those of `AllocationRecord`: ``size``,
    ``n_allocations``, ``tid``, ``thread_name``, a stack, and perhaps an ``allocator``."""

    report = ""
    """Which page it is."""

    def __init__(
        self,
        sums: RecordSums,
        memory_records: Iterable[MemorySnapshot],
        *,
        merge_threads: bool,
        inverted: bool = False,
        confidential_files: str = "default",
    ) -> None:
        self.memory_records = tuple(memory_records)
        self._sums = sums
        self._merge_threads = merge_threads
        self._inverted = inverted
        self._confidential_files = confidential_files

    def render(
        self,
        outfile: TextIO,
        metadata: Metadata,
        show_memory_leaks: bool,
        merge_threads: bool,
        inverted: bool,
        no_web: bool = False,
    ) -> None:
        """Writes the page.

        Args:
            outfile: Where to.
            metadata: Facts about the run.
            show_memory_leaks: Whether the records are of what was not given back; else the page says only that they
                are records. Of no effect where the records themselves say when.
            merge_threads: Whether threads cannot be told apart in the page.
            inverted: Whether the page begins with what allocates.
            no_web: Of no effect: the page never needs the network.
        """
        page = self._sums.page(
            self.report,
            metadata,
            start_ms=int(metadata.start_time.timestamp() * 1000),
            end_ms=int(metadata.end_time.timestamp() * 1000),
            aggregated=metadata.file_format == FileFormat.AGGREGATED_ALLOCATIONS,
            snapshots=[(record.time, record.rss, record.heap) for record in self.memory_records],
            leaks=show_memory_leaks,
            inverted=inverted or self._inverted,
            split_threads=not (merge_threads or self._merge_threads),
            confidential_files=self._confidential_files,
        )
        outfile.write(page)
