"""What `compute_statistics` finds, as text and as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from heaptide._enums import FileFormat
from heaptide._reader import size_fmt
from heaptide._stats import Stats

__all__ = ["StatsReporter"]

BINS = 10
BAR_CELLS = 25

Place = tuple[str, str, int]


class StatsReporter:
    """Totals, sizes, allocators and what allocated most::

    stats = heaptide._memray.compute_statistics("report.tide", num_largest=10)
    StatsReporter(stats, 10).render()
    """

    def __init__(self, stats: Stats, num_largest: int) -> None:
        """
        Args:
            stats: The figures.
            num_largest: How many places and modules the text names, of those that the figures have. JSON has all of
                them, as Memray's.

        Raises:
            ValueError: When that is none.
        """
        if num_largest < 1:
            raise ValueError(f"Invalid input num_largest={num_largest}, should be >=1")
        self.num_largest = num_largest
        self._stats = stats

    def render(self, json_output_file: Optional[Path] = None) -> None:
        """Prints the figures, or writes them to a file as JSON, by Memray's names.

        Args:
            json_output_file: The file.

        Raises:
            OSError: When it cannot be written.
        """
        if json_output_file is None:
            sys.stdout.write("".join(f"{line}\n" for line in self._lines()))
        else:
            Path(json_output_file).write_text(json.dumps(self._document(), indent=2) + "\n")

    def _lines(self) -> Iterator[str]:
        stats = self._stats
        yield f"Total allocations:      {stats.total_num_allocations:,}"
        yield f"Total memory allocated: {size_fmt(stats.total_memory_allocated)}"
        yield f"Peak memory usage:      {size_fmt(stats.peak_memory_allocated)}"
        bins = _histogram(stats.allocation_count_by_size)
        most = max((each.count for each in bins), default=0)
        yield ""
        aggregated = stats.metadata.file_format == FileFormat.AGGREGATED_ALLOCATIONS
        yield "Allocations by size" + (", each counted as the smallest of its kind" if aggregated else "")
        for each in bins:
            bar = "#" * math.ceil(each.count * BAR_CELLS / most) if most else ""
            yield f"  up to {size_fmt(each.max_bytes):>10}  {each.count:>12,}  {bar}".rstrip()
        yield ""
        yield "Allocations by allocator"
        for name, count in self._allocators():
            yield f"  {name:<16}  {count:>12,}"
        largest = self.num_largest
        yield ""
        yield f"Top {largest} places by size"
        for place, size in stats.top_locations_by_size[:largest]:
            yield f"  {size_fmt(size):>12}  {_place(place)}"
        yield ""
        yield f"Top {largest} places by number of allocations"
        for place, count in stats.top_locations_by_count[:largest]:
            yield f"  {count:>12,}  {_place(place)}"
        for title, rows in (
            ("size", stats.top_modules_by_allocation_size),
            ("number of allocations", stats.top_modules_by_allocation_count),
        ):
            yield ""
            yield f"Top {largest} modules by {title}"
            for module, count, size in rows[:largest]:
                yield f"  {size_fmt(size):>12}  {count:>12,}  {module}"

    def _document(self) -> dict[str, Any]:
        stats = self._stats
        facts = asdict(stats.metadata)
        facts.update({name: str(facts[name]) for name in ("start_time", "end_time")})
        facts["file_format"] = int(stats.metadata.file_format)
        return {
            "total_num_allocations": stats.total_num_allocations,
            "total_bytes_allocated": stats.total_memory_allocated,
            "allocation_size_histogram": [asdict(each) for each in _histogram(stats.allocation_count_by_size)],
            "allocator_type_distribution": dict(self._allocators()),
            "top_allocations_by_size": [
                {"location": _place(place), "size": size} for place, size in stats.top_locations_by_size
            ],
            "top_allocations_by_count": [
                {"location": _place(place), "count": count} for place, count in stats.top_locations_by_count
            ],
            "top_modules_by_allocation_size": _modules(stats.top_modules_by_allocation_size),
            "top_modules_by_allocation_count": _modules(stats.top_modules_by_allocation_count),
            "metadata": facts,
        }

    def _allocators(self) -> list[tuple[str, int]]:
        """The one that was called most first."""
        return sorted(self._stats.allocation_count_by_allocator.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Bin:
    """How many allocations are of some sizes."""

    min_bytes: int
    max_bytes: int
    count: int


def _histogram(count_by_size: dict[int, int]) -> list[Bin]:
    """Classes of sizes, each as many times larger than the one before: as many as Memray has, fewer where there are
    not so many sizes."""
    if not count_by_size:
        return []
    smallest, largest = min(count_by_size), max(count_by_size)
    low, high = math.log(max(smallest, 1)), math.log(max(largest, 1))
    ends = [int(math.exp(low + (high - low) * index / BINS)) - 1 for index in range(1, BINS)]
    bins, start = [], 0
    for end in (*ends, largest):
        if end >= start:
            count = sum(count for size, count in count_by_size.items() if start <= size <= end)
            bins.append(Bin(start, end, count))
            start = end + 1
    return bins


def _modules(rows: list[tuple[str, int, int]]) -> list[dict[str, Any]]:
    return [{"module": module, "num_allocations": count, "total_bytes": size} for module, count, size in rows]


def _place(place: Place) -> str:
    function, file, line = place
    return f"{function}:{file}:{line}" if file != "<unknown>" else "<stack trace unavailable>"
