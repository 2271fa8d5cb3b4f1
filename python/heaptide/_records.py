"""What queries give besides records of allocations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional

__all__ = ["Interval", "MemorySnapshot"]


class MemorySnapshot(NamedTuple):
    """The memory of the program at a moment."""

    time: int
    """Milliseconds since the Unix epoch."""
    rss: int
    """Resident bytes."""
    heap: int
    """Bytes that are allocated."""


@dataclass
class Interval:
    """How much was held for how long. Snapshots are counted from 0, in the order of ``get_memory_snapshots``."""

    allocated_before_snapshot: int
    """The first snapshot that comes after the allocation."""
    deallocated_before_snapshot: Optional[int]
    """The first snapshot that comes after the deallocation; ``None``: it was not given back."""
    n_allocations: int
    n_bytes: int
