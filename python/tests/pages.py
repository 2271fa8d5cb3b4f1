"""What is in the pages of reports."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections import Counter
from typing import Any

from heaptide import AllocationRecord


class Data:
    """What is in a page; see crates/heaptide-report/src/page/block.rs."""

    def __init__(self, page: str) -> None:
        text = page.split('id="data">')[1].split("</script>")[0]
        data = zlib.decompress(base64.b64decode(text))
        (length,) = struct.unpack_from("<I", data)
        self.head: dict[str, Any] = json.loads(data[4 : 4 + length])
        self.columns: dict[str, list[int]] = {}
        numbers = iter(self._numbers(data[4 + length :]))
        for name, encoding, count in self.head["columns"]:
            values = [next(numbers) for _ in range(count)]
            if encoding == "delta":
                last = 0
                for index, value in enumerate(values):
                    last += (value >> 1) ^ -(value & 1)
                    values[index] = last
            self.columns[name] = values

    @staticmethod
    def _numbers(data: bytes) -> list[int]:
        numbers, value, shift = [], 0, 0
        for byte in data:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                numbers.append(value)
                value, shift = 0, 0
        return numbers

    def stack(self, node: int) -> tuple[tuple[str, str, int], ...]:
        """The frames of a node, the innermost first."""
        frames = []
        while node != 0:
            location = self.columns["node.location"][node]
            function = self.head["functions"][self.columns["location.function"][location]]
            file = self.head["files"][self.columns["location.file"][location]]
            # A node stands for the stack of none, too.
            if function != "<no Python frame>":
                frames.append((function, file, self.columns["location.line"][location]))
            node -= self.columns["node.up"][node]
        return tuple(frames)

    def figures(self, metric: str) -> Counter[tuple[Any, ...]]:
        """Bytes by stack and allocator."""
        sums: Counter[tuple[Any, ...]] = Counter()
        columns = (self.columns[name] for name in ("entry.node", "entry.allocator", f"{metric}.bytes"))
        for node, allocator, size in zip(*columns):
            sums[self.stack(node), self.head["allocators"][allocator]] += size
        return without_nothing(sums)


def without_nothing(sums: Counter[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    """Before Python 3.10 a counter with a zero is not equal to one that has no such key."""
    return +sums


def rendered(reporter: Any, metadata: Any, *, leaks: bool = False, merged: bool = True, inverted: bool = False) -> Data:
    file = io.StringIO()
    reporter.render(file, metadata, show_memory_leaks=leaks, merge_threads=merged, inverted=inverted)
    return Data(file.getvalue())


def expected(records: list[AllocationRecord]) -> Counter[tuple[Any, ...]]:
    names = {6: "malloc", 7: "realloc", 8: "calloc", 14: "mmap"}
    sums: Counter[tuple[Any, ...]] = Counter()
    for record in records:
        stack = tuple((frame.qualified_name, frame.file, frame.line) for frame in record.stack_trace())
        sums[stack, names[record.allocator]] += record.size
    return without_nothing(sums)
