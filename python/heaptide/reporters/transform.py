"""Formats of other tools, of records that a program has chosen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, TextIO

from heaptide._heaptide import RecordSums
from heaptide._metadata import Metadata
from heaptide._records import MemorySnapshot
from heaptide.reporters._stacks import method_of

__all__ = ["TransformReporter"]


class TransformReporter:
    """Records as CSV, as JSON for gprof2dot, or as JSON for https://www.speedscope.app."""

    SUFFIX_MAP: ClassVar[dict[str, str]] = {
        "gprof2dot": ".json",
        "csv": ".csv",
        "speedscope": ".speedscope.json",
    }
    """The formats, and how names of files end that have them."""

    def __init__(
        self,
        allocations: Iterable[object],
        *,
        format: str,
        native_traces: bool,
        memory_records: Iterable[MemorySnapshot],
        **kwargs: Any,
    ) -> None:
        """Reads records.

        Args:
            allocations: The records, or what is like them; see `FlameGraphReporter`.
            format: What `render` writes, of `SUFFIX_MAP`.
            native_traces: Whether to take the hybrid stacks of the records.
            memory_records: Of no effect: none of the formats has them.
            kwargs: Of no effect.

        Raises:
            NotImplementedError: When there are deallocations among the records: they have no stacks.
        """
        self.format = format
        self.native_traces = native_traces
        self.memory_records = memory_records
        self._sums = RecordSums(allocations, method_of(native_traces))

    def render(
        self,
        outfile: TextIO,
        metadata: Metadata,
        show_memory_leaks: bool,
        merge_threads: bool,
        inverted: bool,
        no_web: bool = False,
    ) -> None:
        """Writes the format. All arguments but these are of no effect.

        Args:
            outfile: Where to.
            metadata: Facts about the run.

        Raises:
            AttributeError: When there is no such format.
        """
        getattr(self, f"render_as_{self.format}")(outfile, metadata=metadata)

    def render_as_csv(self, outfile: TextIO, **kwargs: Any) -> None:
        """Writes a line per stack, allocator and thread; columns are ``allocator``, ``num_allocations``, ``size``
        (bytes), ``tid``, ``thread_name``, ``stack_trace`` (``function;file;line|...``, the innermost first)."""
        outfile.write(self._sums.transform("csv", ""))

    def render_as_gprof2dot(self, outfile: TextIO, **kwargs: Any) -> None:
        """Writes bytes by stack of functions, for ``gprof2dot -f json``."""
        outfile.write(self._sums.transform("gprof2dot", ""))

    def render_as_speedscope(self, outfile: TextIO, *, metadata: Metadata, **kwargs: Any) -> None:
        """Writes two profiles, bytes and allocations, by the name of the program's command line."""
        outfile.write(self._sums.transform("speedscope", metadata.command_line))
