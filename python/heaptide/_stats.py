"""What `compute_statistics` finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from heaptide._metadata import Metadata

__all__ = ["Stats"]


@dataclass
class Stats:
    """Totals of a capture, and where most of it comes from. Deallocations do not count."""

    metadata: Metadata
    total_num_allocations: int
    total_memory_allocated: int
    """Bytes."""
    peak_memory_allocated: int
    """Bytes."""
    allocation_count_by_size: dict[int, int]
    """By size in bytes. An aggregated capture has classes of sizes: the smallest of each stands for it."""
    allocation_count_by_allocator: dict[str, int]
    """By the name of the `AllocatorType`."""
    top_locations_by_size: list[tuple[tuple[str, str, int], int]]
    """``((function, file, line), bytes)``, the largest first."""
    top_locations_by_count: list[tuple[tuple[str, str, int], int]]
    """``((function, file, line), allocations)``, the most first."""
    top_modules_by_allocation_size: list[tuple[str, int, int]] = field(default_factory=list)
    """``(module, allocations, bytes)``"""
    top_modules_by_allocation_count: list[tuple[str, int, int]] = field(default_factory=list)
    """``(module, allocations, bytes)``"""
