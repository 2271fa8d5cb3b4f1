"""The nodes of a flame graph as Memray's page has them: columns of numbers, and the strings that they stand for."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Optional

from heaptide.reporters._stacks import (
    MOST_FRAMES,
    StackFrame,
    is_interesting,
    is_of_imports,
    method_of,
    source_line,
    thread_of,
)

__all__ = ["nodes_of"]

Interval = tuple[int, Optional[int], int, int, int]


@dataclass
class _Node:
    name: str
    place: StackFrame
    thread: str
    interesting: bool = True
    of_imports: bool = False
    children: list[int] = field(default_factory=list)
    bytes: int = 0
    blocks: int = 0


class _Graph:
    """Nodes in the order in which the records lead to them; the first one is the root."""

    def __init__(self, confidential_files: str, inverted: bool) -> None:
        # Its place is markup as it stands, and nobody else's is.
        self.nodes = [_Node("<root>", (html.escape("<tracker>"), "<b>memray</b>", 0), "0x0")]
        self.intervals: list[Interval] = []
        self._numbers: dict[tuple[int, StackFrame, str], int] = {}
        self._confidential_files = confidential_files
        self._inverted = inverted

    def add(self, record: Any, frames: Iterable[StackFrame], temporal: bool) -> None:
        thread = thread_of(record)
        number = 0
        self._count(number, record, temporal)
        for depth, frame in enumerate(frames):
            number = self._child(number, tuple(frame), thread)  # type: ignore[arg-type]
            self._count(number, record, temporal)
            if depth > MOST_FRAMES:
                self.nodes[number].name, self.nodes[number].place = "<STACK TOO DEEP>", ("...", "...", 0)
                break
        for interval in record.intervals if temporal else ():
            self.intervals.append(
                (
                    interval.allocated_before_snapshot,
                    interval.deallocated_before_snapshot,
                    number,
                    interval.n_allocations,
                    interval.n_bytes,
                )
            )

    def _count(self, number: int, record: Any, temporal: bool) -> None:
        if not temporal:
            self.nodes[number].bytes += record.size
            self.nodes[number].blocks += record.n_allocations

    def _child(self, parent: int, frame: StackFrame, thread: str) -> int:
        number = self._numbers.setdefault((parent, frame, thread), len(self.nodes))
        if number == len(self.nodes):
            function, file, line = frame
            # What an import runs belongs to it; from within nobody knows.
            of_imports = not self._inverted and (self.nodes[parent].of_imports or is_of_imports(frame))
            self.nodes[parent].children.append(number)
            self.nodes.append(
                _Node(
                    source_line(frame, self._confidential_files),
                    (html.escape(function), html.escape(file), line),
                    thread,
                    is_interesting(frame),
                    of_imports,
                )
            )
        return number

    def columns(self, strings: _Strings, temporal: bool) -> dict[str, list[Any]]:
        rows = [
            (*map(strings.number, (node.name, *node.place[:2])), node.place[2], strings.number(node.thread), node)
            for node in self.nodes
        ]
        names, functions, files, lines, threads, _ = zip(*rows)
        columns: dict[str, list[Any]] = {
            "name": list(names),
            "function": list(functions),
            "filename": list(files),
            "lineno": list(lines),
            "children": [node.children for node in self.nodes],
        }
        if not temporal:
            columns["value"] = [node.bytes for node in self.nodes]
            columns["n_allocations"] = [node.blocks for node in self.nodes]
        columns["thread_id"] = list(threads)
        columns["interesting"] = [int(node.interesting) for node in self.nodes]
        columns["import_system"] = [int(node.of_imports) for node in self.nodes]
        return columns


class _Strings:
    """Each string once, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, string: str) -> int:
        return self._numbers.setdefault(string, len(self._numbers))

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)


def nodes_of(
    records: Iterable[Any], *, native_traces: bool, inverted: bool, confidential_files: str, temporal: bool
) -> dict[str, Any]:
    """``nodes``, ``inverted_no_imports_nodes``, ``unique_threads`` and ``strings``; with ``temporal`` also
    ``intervals`` and ``no_imports_interval_list``."""
    whole = _Graph(confidential_files, inverted)
    without_imports = _Graph(confidential_files, inverted)
    threads = set()
    for record in records:
        threads.add(thread_of(record))
        stack: Sequence[StackFrame] = tuple(getattr(record, method_of(native_traces))())
        whole.add(record, stack if inverted else reversed(stack), temporal)
        if inverted:
            outer = list(takewhile(lambda frame: not is_of_imports(frame), reversed(stack)))
            without_imports.add(record, reversed(outer), temporal)
    strings = _Strings()
    data: dict[str, Any] = {
        "nodes": whole.columns(strings, temporal),
        "inverted_no_imports_nodes": without_imports.columns(strings, temporal) if inverted else {},
        "unique_threads": tuple(map(strings.number, sorted(threads))),
    }
    if temporal:
        data["intervals"] = whole.intervals
        data["no_imports_interval_list"] = without_imports.intervals
    data["strings"] = list(strings)
    return data
