"""Flame graphs of records that a program has chosen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Optional

from heaptide._records import MemorySnapshot
from heaptide.reporters._page import Page

__all__ = ["FlameGraphReporter"]


class FlameGraphReporter(Page):
    """A flame graph of records::

        with heaptide.FileReader("report.tide") as reader:
            records = reader.get_leaked_allocation_records(merge_threads=True)
            reporter = FlameGraphReporter.from_snapshot(
                (record for record in records if record.size > 1000),
                memory_records=reader.get_memory_snapshots(),
                native_traces=False,
            )
        with open("leaks.html", "w") as file:
            reporter.render(file, reader.metadata, show_memory_leaks=True, merge_threads=True, inverted=False)

    Of a whole capture ``heaptide flamegraph`` shows more: all metrics, and with ``--temporal`` stretches of time.
    """

    report = "flamegraph"

    @classmethod
    def from_snapshot(
        cls,
        allocations: Iterable[object],
        *,
        memory_records: Iterable[MemorySnapshot],
        native_traces: bool,
        merge_threads: bool = True,
        inverted: Optional[bool] = None,
        confidential_files: Literal["all", "none", "default"] = "default",
    ) -> FlameGraphReporter:
        """Reads records.

        Args:
            allocations: The records, or what is like them.
            memory_records: The memory over time, for the chart.
            native_traces: Whether to take the hybrid stacks of the records.
            merge_threads: Whether threads cannot be told apart in the page.
            inverted: Whether the page begins with what allocates.
            confidential_files: Of which files the page has no source lines.

        Raises:
            NotImplementedError: When there are deallocations among the records: they have no stacks.
        """
        return cls(
            allocations,
            memory_records,
            native_traces=native_traces,
            merge_threads=merge_threads,
            inverted=bool(inverted),
            confidential_files=confidential_files,
        )
