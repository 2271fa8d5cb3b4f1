"""A thread started before tracking has its whole stack, and the program's own files are known; a block made before tracking
and freed after it is nobody's."""
import early
import known
from known import expect, h

known.program(__file__)
known._scan(early.__file__)


def work():
    known.note_thread("early")
    h.malloc(83003)  # ALLOC:in_early_thread
    h.free(h.malloc(83005))  # ALLOC:temporary


if not known.ORACLE:
    h.free(early.early_block)
assert early.early_block, "sitecustomize.py did not run"
early.work = work
early.go.set()
early.done.wait()
expect("work@in_early_thread < before_tracking@early_thread", "MALLOC", size=83003, made=1, live=1, peak=1, thread="early")
expect("work@temporary < before_tracking@early_thread", "MALLOC", size=83005, made=1, temporary=1, thread="early")
h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
