"""Prints, as JSON, the native stacks that Memray's own reader finds in the capture that is its argument."""
import json
import sys

from memray import AllocatorType, FileReader

stacks = {}
records = []
for record in FileReader(sys.argv[1]).get_allocation_records():
    if "FREE" in AllocatorType(record.allocator).name or record.allocator == AllocatorType.MUNMAP:
        records.append(None)
        continue
    stack = tuple(record.native_stack_trace())
    records.append(stacks.setdefault(stack, len(stacks)))
print(json.dumps(dict(stacks=list(stacks), records=records)))
