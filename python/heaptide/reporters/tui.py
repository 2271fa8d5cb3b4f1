"""Sums by function, by the names that Memray's screen has for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from heaptide.reporters._stacks import method_of

__all__ = ["AllocationEntry", "Location", "aggregate_allocations"]


@dataclass(frozen=True)
class Location:
    """A function."""

    function: str
    file: str


@dataclass
class AllocationEntry:
    """What a function holds: bytes of its own, with those of whatever it has called, and how many blocks that is."""

    own_memory: int = 0
    total_memory: int = 0
    n_allocations: int = 0
    thread_ids: set[int] = field(default_factory=set)


def aggregate_allocations(
    allocations: Iterable[Any], memory_threshold: float = float("inf"), native_traces: Optional[bool] = False
) -> dict[Location, AllocationEntry]:
    """Sums records by function.

    Args:
        allocations: The records.
        memory_threshold: Records that come when so many bytes have been seen are left out.
        native_traces: Whether to take the hybrid stacks of the records.
    """
    entries: dict[Location, AllocationEntry] = {}
    seen = 0
    for record in allocations:
        if seen >= memory_threshold:
            break
        seen += record.size
        stack = getattr(record, method_of(bool(native_traces)))()
        functions = [Location(frame[0], frame[1]) for frame in stack] or [Location("???", "???")]
        # A function that has called itself holds what it holds once.
        for function in dict.fromkeys(functions):
            entry = entries.setdefault(function, AllocationEntry())
            entry.total_memory += record.size
            entry.n_allocations += record.n_allocations
            entry.thread_ids.add(record.tid)
        entries[functions[0]].own_memory += record.size
    return entries
