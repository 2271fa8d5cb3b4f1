"""The same maximum reached several times: the last instant counts. First within a thread, then across threads."""
import sys

import known
from known import expect, h

known.program(__file__)
SIZE = 1 << 30
which = sys.argv[2]
if which == "allocators":
    h.tie(SIZE)  # ALLOC:tie
    expect("<module>@tie", "MALLOC", size=SIZE, made=1, temporary=1)
    expect("<module>@tie", "CALLOC", size=SIZE, made=1, temporary=1)
    expect("<module>@tie", "MEMALIGN", size=SIZE, made=1, peak=1, temporary=1)
else:
    ids = (known.ctypes.c_int * 2)()
    h.thread_tie(SIZE, ids)
    known.note_thread("tie 0", ids[0])
    known.note_thread("tie 1", ids[1])
    expect("", "MALLOC", size=SIZE, made=1, temporary=1, thread="tie 0")
    expect("", "MALLOC", size=SIZE, made=1, peak=1, temporary=1, thread="tie 1")
known.finish()
