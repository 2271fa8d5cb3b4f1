"""Prints, as JSON, what Memray's own reader finds in a capture of every event: its first argument. The others are thresholds of
temporary allocations."""
import json
import sys

from memray import AllocatorType, FileReader

reader = FileReader(sys.argv[1])


def rows(records):
    sums = {}
    for record in records:
        allocator = AllocatorType(record.allocator).name
        if allocator in ("FREE", "MUNMAP"):
            continue
        key = (tuple(record.stack_trace()), allocator, record.thread_name or "MainThread")
        row = sums.setdefault(key, [0, 0])
        row[0] += record.n_allocations
        row[1] += record.size
    for (stack, allocator, thread), (count, size) in sums.items():
        frames = [dict(function=function, file=file, line=line) for function, file, line in stack]
        yield dict(stack=frames, allocator=allocator, thread=thread, count=count, bytes=size)


figures = dict(
    allocated=reader.get_allocation_records(),
    peak=reader.get_high_watermark_allocation_records(merge_threads=False),
    live=reader.get_leaked_allocation_records(merge_threads=False),
    temporary=reader.get_temporary_allocation_records(merge_threads=False, threshold=1),
)
for threshold in sys.argv[2:]:
    figures["temporary_" + threshold] = reader.get_temporary_allocation_records(merge_threads=False, threshold=int(threshold))
json.dump({name: list(rows(records)) for name, records in figures.items()}, sys.stdout)
