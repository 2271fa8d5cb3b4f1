"""Tables of records that a program has chosen."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from heaptide._enums import AllocatorType
from heaptide._heaptide import RecordSums
from heaptide._records import MemorySnapshot
from heaptide.reporters._page import Page
from heaptide.reporters._stacks import method_of

__all__ = ["TableReporter"]


class TableReporter(Page):
    """A table of records, by thread, allocator and the place that allocated: as a page, and as `data`."""

    report = "table"

    data: list[dict[str, Any]]
    """The rows: ``tid``, ``size`` (bytes), ``allocator``, ``n_allocations``, ``stack_trace`` (the place). Texts are
    escaped for HTML, as Memray's."""

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
        reporter.data = _rows(records, native_traces)
        return reporter


def _rows(records: Iterable[Any], native_traces: bool) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        stack = record.hybrid_stack_trace(max_stacks=1) if native_traces else record.stack_trace(max_stacks=1)
        place = "{} at {}:{}".format(*stack[0]) if stack else "???"
        texts = (_thread(record), AllocatorType(record.allocator).name.lower(), place)
        tid, allocator, stack_trace = map(html.escape, texts)
        row = rows.setdefault(
            (tid, allocator, stack_trace),
            {"tid": tid, "size": 0, "allocator": allocator, "n_allocations": 0, "stack_trace": stack_trace},
        )
        row["size"] += record.size
        row["n_allocations"] += record.n_allocations
    return list(rows.values())


def _thread(record: Any) -> str:
    if record.tid == -1:
        return "merged thread"
    return f"{record.tid:#x} ({record.thread_name})" if record.thread_name else f"{record.tid:#x}"
