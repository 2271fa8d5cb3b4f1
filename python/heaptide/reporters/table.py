"""Tables of records that a program has chosen."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from heaptide._enums import AllocatorType
from heaptide._heaptide import RecordSums
from heaptide._records import MemorySnapshot
from heaptide.reporters._page import Page
from heaptide.reporters._stacks import method_of, thread_of

__all__ = ["TableReporter"]


class TableReporter(Page):
    """A table of records, by thread, allocator and the place that allocated: as a page, and as `data`."""

    report = "table"

    data: list[dict[str, Any]]
    """The rows: ``tid``, ``size`` (bytes), ``allocator``, ``n_allocations``, ``stack_trace`` (the place). The place
    is escaped for HTML, as Memray's."""

    @classmethod
    def from_snapshot(
        cls,
        allocations: Iterable[Any],
        *,
        memory_records: Iterable[MemorySnapshot],
        native_traces: bool,
        merge_threads: bool = True,
        **kwargs: Any,
    ) -> TableReporter:
        """Reads records; see `FlameGraphReporter.from_snapshot`. Other arguments are of no effect."""
        records = list(allocations)
        sums = RecordSums(records, method_of(native_traces))
        reporter = cls(sums, memory_records, merge_threads=merge_threads)
        reporter.data = _rows(records, native_traces, merge_threads)
        return reporter


def _rows(records: Iterable[Any], native_traces: bool, merge_threads: bool) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        stack = getattr(record, method_of(native_traces))(max_stacks=1)
        place = "{} at {}:{}".format(*stack[0]) if stack else "???"
        thread, allocator = thread_of(record), AllocatorType(record.allocator).name.lower()
        # A record of several threads has the number of one of them.
        key = ("" if merge_threads else thread, allocator, place)
        row = rows.setdefault(
            key,
            {"tid": thread, "size": 0, "allocator": allocator, "n_allocations": 0, "stack_trace": html.escape(place)},
        )
        row["size"] += record.size
        row["n_allocations"] += record.n_allocations
    return list(rows.values())
