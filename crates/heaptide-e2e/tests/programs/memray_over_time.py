"""Prints, as JSON, what Memray's own reader finds between the states that `phases.py` held: for each pair of them, in order, the
peak inside and who held it, and what was allocated inside and lived at the end. Arguments: the capture, the file of `phases.py`."""
import json
import sys

from memray import FileReader

with open(sys.argv[2]) as file:
    holds = json.load(file)
reader = FileReader(sys.argv[1])
times = [snapshot.time for snapshot in reader.get_memory_snapshots()]
lives = list(reader.get_temporal_allocation_records(merge_threads=False))
records, peaks = reader.get_temporal_high_water_mark_allocation_records(merge_threads=False)
at_peaks = list(records)


def snapshot_within(hold):
    begin, end = hold
    # Snapshots have milliseconds.
    within = [index for index, time in enumerate(times) if begin // 1_000_000 < time < end // 1_000_000]
    assert within, "no snapshot fell into a state that was held"
    return within[len(within) // 2]


def rows(records, counts):
    for record in records:
        intervals = [interval for interval in record.intervals if counts(interval)]
        if intervals:
            stack = [dict(function=function, file=file, line=line) for function, file, line in record.stack_trace()]
            count = sum(interval.n_allocations for interval in intervals)
            size = sum(interval.n_bytes for interval in intervals)
            yield dict(stack=stack, thread=record.thread_name or "MainThread", count=count, bytes=size)


def outlives(moment):
    return lambda interval: interval.deallocated_before_snapshot is None or interval.deallocated_before_snapshot > moment


def stretch(first, last):
    # Interval i ends at snapshot i.
    peak = max(range(first + 1, last + 1), key=peaks.__getitem__)
    in_stretch = lambda interval: first < interval.allocated_before_snapshot <= last and outlives(last)(interval)
    at_peak = lambda interval: interval.allocated_before_snapshot <= peak and outlives(peak)(interval)
    return dict(
        begin=holds[boundaries.index(first)],
        end=holds[boundaries.index(last)],
        peak=list(rows(at_peaks, at_peak)),
        live=list(rows(lives, in_stretch)),
    )


boundaries = [snapshot_within(hold) for hold in holds]
pairs = [(first, last) for first in boundaries for last in boundaries if first < last]
json.dump([stretch(first, last) for first, last in pairs], sys.stdout)
