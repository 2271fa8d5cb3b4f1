"""Flame graphs of records that a program has chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Optional

from heaptide._heaptide import RecordSums
from heaptide._records import MemorySnapshot
from heaptide.reporters._nodes import nodes_of
from heaptide.reporters._page import Page
from heaptide.reporters._stacks import method_of

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

    Of a whole capture ``heaptide flamegraph`` shows more: all metrics.
    """

    report = "flamegraph"
    _data: Optional[dict[str, Any]] = None
    _make_data: Callable[[], dict[str, Any]]

    @property
    def data(self) -> dict[str, Any]:
        """The nodes of Memray's page, by its names: ``nodes`` in columns (the root first; ``name``, ``function``,
        ``filename`` and ``thread_id`` are indices of ``strings``), and so on. Made when it is asked for; the page that
        is written does not need it."""
        if self._data is None:
            self._data = self._make_data()
        return self._data

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
        records = list(allocations)
        reporter = cls(
            RecordSums(records, method_of(native_traces)),
            memory_records,
            merge_threads=merge_threads,
            inverted=bool(inverted),
            confidential_files=confidential_files,
        )
        reporter._make_data = reporter._nodes(records, native_traces, temporal=False)
        return reporter

    def _nodes(self, records: list[Any], native_traces: bool, temporal: bool) -> Callable[[], dict[str, Any]]:
        return lambda: nodes_of(
            records,
            native_traces=native_traces,
            inverted=self._inverted,
            confidential_files=self._confidential_files,
            temporal=temporal,
        )

    @classmethod
    def from_temporal_snapshot(
        cls,
        allocations: Iterable[object],
        *,
        memory_records: Iterable[MemorySnapshot],
        native_traces: bool,
        high_water_mark_by_snapshot: Optional[list[int]],
        inverted: Optional[bool] = None,
        confidential_files: Literal["all", "none", "default"] = "default",
    ) -> FlameGraphReporter:
        """Reads records that say when, for a page that takes the run apart::

            records, peaks = reader.get_temporal_high_water_mark_allocation_records()
            reporter = FlameGraphReporter.from_temporal_snapshot(
                records,
                memory_records=reader.get_memory_snapshots(),
                native_traces=False,
                high_water_mark_by_snapshot=peaks,
            )

        Args:
            allocations: The records, or what is like them: instead of a size and a number of blocks they have
                ``intervals``, as `TemporalAllocationRecord`.
            memory_records: The snapshots that the intervals are counted by.
            native_traces: Whether to take the hybrid stacks of the records.
            high_water_mark_by_snapshot: How many bytes were held at the peak before each snapshot, and after the last
                one: the records say who held them. ``None``: the records are of
                ``get_temporal_allocation_records``, and say when what was allocated was given back.
            inverted: Whether the page begins with what allocates.
            confidential_files: Of which files the page has no source lines.

        Raises:
            ValueError: When there are other snapshots than the intervals are counted by.
        """
        snapshots = tuple(memory_records)
        rows = [(record.time, record.rss, record.heap) for record in snapshots]
        records = list(allocations)
        sums = RecordSums.over_time(records, method_of(native_traces), rows, high_water_mark_by_snapshot)
        reporter = cls(
            sums, snapshots, merge_threads=False, inverted=bool(inverted), confidential_files=confidential_files
        )
        nodes = reporter._nodes(records, native_traces, temporal=True)
        reporter._make_data = lambda: {**nodes(), "high_water_mark_by_snapshot": high_water_mark_by_snapshot}
        return reporter
