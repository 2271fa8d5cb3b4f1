"""Memory by function, of records that a program has chosen."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any, ClassVar, Optional

from heaptide._heaptide import RecordSums
from heaptide.reporters._stacks import method_of
from heaptide.reporters._terminal import rows_that_fit, text_options
from heaptide.reporters.tui import aggregate_allocations

__all__ = ["SummaryReporter"]

SHARE = 0.95


class SummaryReporter:
    """A table of functions: what they hold with what they have called, and themselves::

    with heaptide.FileReader("report.tide") as reader:
        reporter = SummaryReporter.from_snapshot(reader.get_high_watermark_allocation_records())
    reporter.render(sort_column=3, max_rows=10)
    """

    KEY_TO_COLUMN_NAME: ClassVar[dict[int, str]] = {
        1: "total_memory",
        2: "total_memory",
        3: "own_memory",
        4: "own_memory",
        5: "n_allocations",
    }
    """What the table can be sorted by."""
    N_COLUMNS: ClassVar[int] = len(KEY_TO_COLUMN_NAME)

    def __init__(self, data: Iterable[object], native: bool) -> None:
        """As `from_snapshot`."""
        records: list[Any] = list(data)
        self.current_memory_size: int = sum(record.size for record in records)
        """Bytes of all records."""
        self.total_allocations: int = sum(record.n_allocations for record in records)
        """Blocks of all records."""
        self.snapshot_data = aggregate_allocations(records, SHARE * self.current_memory_size, native)
        """What functions hold, of the records that come until `SHARE` of the bytes have been seen. What is printed is
        of all records."""
        self._sums = RecordSums(records, method_of(native))

    @classmethod
    def from_snapshot(cls, allocations: Iterable[object], native: bool = False) -> SummaryReporter:
        """Reads records.

        Args:
            allocations: The records, or what is like them; see `FlameGraphReporter`.
            native: Whether to take the hybrid stacks of the records.

        Raises:
            NotImplementedError: When there are deallocations among the records: they have no stacks.
        """
        return cls(allocations, native)

    def render(self, sort_column: int, *, max_rows: Optional[int] = None, file: Optional[IO[str]] = None) -> None:
        """Prints the table.

        Args:
            sort_column: By which column, from the largest; a number of `KEY_TO_COLUMN_NAME`.
            max_rows: How many functions; ``None``: as many as fit the terminal, else all.
            file: Where to, instead of stdout.

        Raises:
            ValueError: When there is no such column.
        """
        if sort_column not in self.KEY_TO_COLUMN_NAME:
            raise ValueError(f"there are columns 1 to {self.N_COLUMNS}, and not {sort_column}")
        stream = sys.stdout if file is None else file
        rows = rows_that_fit(stream) if max_rows is None else max_rows
        stream.write(self._sums.summary(sort_column, rows, **text_options(stream)))
