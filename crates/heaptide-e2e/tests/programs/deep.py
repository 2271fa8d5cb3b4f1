"""Recursion, 50,000 deep: one whole stack, and the same stack again from another line."""
import sys
import threading

import known
from known import expect, h

known.program(__file__)
DEPTH = 50000
sys.setrecursionlimit(DEPTH + 1000)
threading.stack_size(1 << 30)


def down(depth):
    if depth == 0:
        h.malloc(81001)  # ALLOC:bottom
        h.malloc(81003)  # ALLOC:bottom_again
        return
    down(depth - 1)  # ALLOC:down
    if depth == DEPTH // 2:
        h.malloc(81005)  # ALLOC:half_way_up


def work():
    known.note_thread()
    down(DEPTH)  # ALLOC:work
    h.malloc(81007)  # ALLOC:top


# In a thread with a large stack, for before 3.11 every Python call takes some of the C stack
thread = threading.Thread(target=work, name="deep")
thread.start()
thread.join()
one = dict(made=1, live=1, peak=1, thread="deep")
expect("down@bottom < down@down*%d < work@work" % DEPTH, "MALLOC", size=81001, **one)
expect("down@bottom_again < down@down*%d < work@work" % DEPTH, "MALLOC", size=81003, **one)
expect("down@half_way_up < down@down*%d < work@work" % (DEPTH // 2), "MALLOC", size=81005, **one)
expect("work@top", "MALLOC", size=81007, **one)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
