"""Who called whom, of records that a program has chosen."""

from __future__ import annotations

import io
import pydoc
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Optional

from heaptide._heaptide import RecordSums
from heaptide.reporters._stacks import MOST_FRAMES, StackFrame, is_interesting, is_of_imports, method_of, thread_of
from heaptide.reporters._terminal import text_options

__all__ = ["ROOT_NODE", "ElidedLocations", "Frame", "TreeApp", "TreeReporter"]

ROOT_NODE = ("<ROOT>", "", 0)
"""The place of the root."""


@dataclass
class Frame:
    """A node of the tree: bytes and blocks of its own and of those that it has called."""

    location: Optional[StackFrame]
    value: int
    children: dict[StackFrame, Frame] = field(default_factory=dict)
    n_allocations: int = 0
    thread_id: str = ""
    interesting: bool = True
    import_system: bool = False


@dataclass
class ElidedLocations:
    """What records hold that are not in the tree, as there are ``cutoff`` larger ones."""

    cutoff: int = 0
    n_locations: int = 0
    n_allocations: int = 0
    n_bytes: int = 0


class TreeApp:
    """What `TreeReporter.get_app` gives: something that can be run, and no more of what Memray's can (that is an
    application of Textual, which is not needed here)."""

    def __init__(self, reporter: TreeReporter) -> None:
        self._reporter = reporter

    def run(self) -> None:
        """Shows the tree in the pager (``PAGER``, else ``less``) and returns when that is left; prints it where stdout
        is no terminal."""
        if not sys.stdout.isatty():
            return self._reporter.render()
        text = io.StringIO()
        self._reporter.render(file=text)
        return pydoc.pager(text.getvalue())


class TreeReporter:
    """A tree of calls: as text, and as `data`. Of a whole capture ``heaptide tree`` has a full screen, too."""

    data: Frame
    """The root of the tree."""
    elided_locations: ElidedLocations
    """What is not in the tree. The root's figures have it, too."""

    def __init__(self, data: Frame, elided_locations: ElidedLocations) -> None:
        """Of a tree that is there already."""
        self.data = data
        self.elided_locations = elided_locations
        self._sums = RecordSums(_records_of(data), method_of(False))
        self._kept = self._stacks = 0

    @classmethod
    def from_snapshot(
        cls, allocations: Iterable[object], *, biggest_allocs: int = 200, native_traces: bool
    ) -> TreeReporter:
        """Reads records.

        Args:
            allocations: The records, or what is like them; see `FlameGraphReporter`.
            biggest_allocs: How many to keep, those that have most: records in `data`, stacks in the text.
            native_traces: Whether to take the hybrid stacks of the records.

        Raises:
            NotImplementedError: When there are deallocations among the records: they have no stacks.
        """
        records: list[Any] = list(allocations)
        sums = RecordSums(records, method_of(native_traces))
        records.sort(key=lambda record: record.size, reverse=True)
        data = Frame(ROOT_NODE, 0)
        for record in records[:biggest_allocs]:
            _add(data, record, getattr(record, method_of(native_traces))())
        elided = ElidedLocations(cutoff=biggest_allocs)
        for record in records[biggest_allocs:]:
            data.value += record.size
            data.n_allocations += record.n_allocations
            elided.n_locations += 1
            elided.n_bytes += record.size
            elided.n_allocations += record.n_allocations
        reporter = cls(data, elided)
        reporter._sums = sums
        reporter._kept, reporter._stacks = sums.keep_biggest(biggest_allocs)
        return reporter

    def get_app(self) -> TreeApp:
        """Something to ``run()``, which shows the tree."""
        return TreeApp(self)

    def render(self, *, file: Optional[IO[str]] = None) -> None:
        """Prints the tree: shares, bytes and blocks by function and place. Branches of less than 1 % are counted.

        Args:
            file: Where to, instead of stdout.
        """
        stream = sys.stdout if file is None else file
        stream.write(self._sums.tree(**text_options(stream)))
        if self._kept < self._stacks:
            stream.write(f"({self._kept:,} of {self._stacks:,} stacks, those that have most)\n")


def _add(root: Frame, record: Any, stack: Iterable[StackFrame]) -> None:
    def count(node: Frame) -> None:
        node.value += record.size
        node.n_allocations += record.n_allocations

    node = root
    count(node)
    for depth, frame in enumerate(reversed(tuple(stack))):
        if frame not in node.children:
            node.children[frame] = Frame(
                frame, 0, interesting=is_interesting(frame), import_system=is_of_imports(frame)
            )
        node = node.children[frame]
        count(node)
        node.thread_id = thread_of(record)
        if depth > MOST_FRAMES:
            break


@dataclass
class _Own:
    """What a node of the tree holds itself, as a record."""

    size: int
    n_allocations: int
    stack: tuple[StackFrame, ...]
    tid: int = -1
    thread_name: str = ""

    def stack_trace(self, max_stacks: Optional[int] = None) -> tuple[StackFrame, ...]:
        return self.stack[:max_stacks]


def _records_of(root: Frame) -> Iterator[_Own]:
    nodes: list[tuple[Frame, tuple[StackFrame, ...]]] = [(root, ())]
    while nodes:
        node, stack = nodes.pop()
        children = node.children.values()
        size = node.value - sum(child.value for child in children)
        blocks = node.n_allocations - sum(child.n_allocations for child in children)
        if size or blocks:
            yield _Own(size, blocks, stack)
        nodes.extend((child, (frame, *stack)) for frame, child in node.children.items())
