"""Prints, as JSON, all that Memray's own reader finds in the capture that is its argument."""
import json
import re
import subprocess
import sys

from memray import AllocatorType, FileReader

reader = FileReader(sys.argv[1])
aggregated = len(sys.argv) > 2


def total(text, name):
    return sum(int(number) for number in re.findall(r"^AGGREGATED_ALLOCATION .*\b%s=(\d+)" % name, text, re.MULTILINE))


def stack_of(record):
    """The Python frames, and where native ones were recorded the functions of the native and of the hybrid stack behind them."""
    stack = record.stack_trace()
    if not reader.metadata.has_native_traces:
        return stack
    native = [("native", function, 0) for function, _, _ in record.native_stack_trace()]
    return stack + native + [("hybrid", function, 0) for function, _, _ in record.hybrid_stack_trace()]


def rows(records):
    sums = {}
    for record in records:
        key = (tuple(stack_of(record)), record.tid)
        row = sums.setdefault(key, [0, 0])
        row[0] += record.n_allocations
        row[1] += record.size
    for (stack, thread), (count, size) in sums.items():
        yield dict(stack=stack, thread=thread, count=count, bytes=size)


def event(record):
    allocator = AllocatorType(record.allocator).name
    stack = None if "FREE" in allocator or allocator == "MUNMAP" else stack_of(record)
    return [record.tid, record.address, record.size, allocator, stack]


answers = dict(
    peak=list(rows(reader.get_high_watermark_allocation_records(merge_threads=False))),
    live=list(rows(reader.get_leaked_allocation_records(merge_threads=False))),
    temporary=[],
    events=[],
    snapshots=[[int(s.time), s.rss, s.heap] for s in reader.get_memory_snapshots()],
    names=sorted({record.thread_name for record in reader.get_leaked_allocation_records(merge_threads=False)}),
    command_line=reader.metadata.command_line,
    pid=reader.metadata.pid,
    start=round(reader.metadata.start_time.timestamp() * 1000),
    end=round(reader.metadata.end_time.timestamp() * 1000),
    allocator=reader.metadata.python_allocator,
    counts=[0, 0],
    peak_bytes=reader.metadata.peak_memory,
)
if aggregated:
    text = subprocess.run([sys.executable, "-m", "memray", "parse", sys.argv[1]], capture_output=True, text=True, check=True).stdout
    answers["counts"] = [total(text, "n_allocations_in_high_water_mark"), total(text, "n_allocations_leaked")]
else:
    answers["temporary"] = list(rows(reader.get_temporary_allocation_records(merge_threads=False, threshold=1)))
    answers["events"] = [event(record) for record in reader.get_allocation_records()]
json.dump(answers, sys.stdout)
