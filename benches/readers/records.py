"""Reads each record of a capture through the Python API, as `heaptide` and `memray` both have it.

    python records.py MODULE QUERY FILE

QUERY: `records` (goes through all of them), `figures` (and reads address, size and allocator of each) or `stacks` (and the
innermost frame of each allocation). Prints how many there were, and a sum of what was read.
"""
import importlib
import sys

module = importlib.import_module(sys.argv[1])
FREES = {int(module.AllocatorType[name]) for name in ("FREE", "MUNMAP", "PYMALLOC_FREE")}


def records(reader):
    count = 0
    for _ in reader.get_allocation_records():
        count += 1
    return count, 0


def figures(reader):
    count = bytes_allocated = 0
    for record in reader.get_allocation_records():
        count += 1
        if record.address and record.allocator not in FREES:
            bytes_allocated += record.size
    return count, bytes_allocated


def stacks(reader):
    count = lines = 0
    for record in reader.get_allocation_records():
        count += 1
        if record.allocator not in FREES:
            for _, _, line in record.stack_trace(1):
                lines += line
    return count, lines


print(*{"records": records, "figures": figures, "stacks": stacks}[sys.argv[2]](module.FileReader(sys.argv[3])))
