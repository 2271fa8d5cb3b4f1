"""Who called whom, of records that a program has chosen."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Optional

from heaptide._heaptide import RecordSums
from heaptide.reporters._stacks import method_of
from heaptide.reporters._terminal import text_options

__all__ = ["TreeReporter"]


class TreeReporter:
    """A tree of calls as text. Of a whole capture ``heaptide tree`` has a full screen, too."""

    def __init__(self, sums: RecordSums, biggest_allocs: int) -> None:
        """For `from_snapshot`."""
        self._sums = sums
        self._kept, self._stacks = sums.keep_biggest(biggest_allocs)

    @classmethod
    def from_snapshot(
        cls, allocations: Iterable[object], *, biggest_allocs: int = 200, native_traces: bool
    ) -> TreeReporter:
        """Reads records.

        Args:
            allocations: The records, or what is like them; see `FlameGraphReporter`.
            biggest_allocs: How many stacks to keep, those that have most.
            native_traces: Whether to take the hybrid stacks of the records.

        Raises:
            NotImplementedError: When there are deallocations among the records: they have no stacks.
        """
        return cls(RecordSums(allocations, method_of(native_traces)), biggest_allocs)

    def render(self, *, file: Optional[IO[str]] = None) -> None:
        """Prints the tree: shares, bytes and blocks by function and place. Branches of less than 1 % are counted.

        Args:
            file: Where to, instead of stdout.
        """
        stream = sys.stdout if file is None else file
        stream.write(self._sums.tree(**text_options(stream)))
        if self._kept < self._stacks:
            stream.write(f"({self._kept:,} of {self._stacks:,} stacks, those that have most)\n")
