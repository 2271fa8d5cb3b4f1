"""Blocks that only the helper makes, among as many of the interpreter's own as there are."""
import known
from known import expect, h

known.program(__file__)
COUNT = 2000 if known.ORACLE else 100000
held = []
for number in range(COUNT):
    block = h.memalign(64, 77)  # ALLOC:block
    if number % 10:
        held.append((block, {"a": number}, [number] * 3))
    else:
        h.free(block)
expect("<module>@block", "MEMALIGN", size=77, made=COUNT, live=COUNT * 9 // 10, peak=COUNT * 9 // 10, temporary=COUNT // 10)
h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
