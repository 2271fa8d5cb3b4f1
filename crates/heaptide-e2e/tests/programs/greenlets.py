"""greenlet switches: the stack is that of the greenlet that runs, and of its parent only where greenlet says so."""
import greenlet

import known
from known import expect, h

known.program(__file__)
M = "MALLOC"


def allocate(size):
    return h.malloc(size)  # ALLOC:allocate


def first():
    allocate(85001)  # ALLOC:first_before
    two.switch()
    allocate(85003)  # ALLOC:first_after
    two.switch()


def second():
    allocate(85005)  # ALLOC:second_before
    one.switch()
    allocate(85007)  # ALLOC:second_after


one, two = greenlet.greenlet(first), greenlet.greenlet(second)
one.switch()  # ALLOC:switch
each = dict(made=1, live=1, peak=1)
expect("allocate@allocate < first@first_before", M, size=85001, **each)
expect("allocate@allocate < first@first_after", M, size=85003, **each)
expect("allocate@allocate < second@second_before", M, size=85005, **each)
expect("allocate@allocate < second@second_after", M, size=85007, **each)
allocate(85009)  # ALLOC:main
expect("allocate@allocate < <module>@main", M, size=85009, **each)


# Many greenlets with deep stacks of different depths, switched in turn
def deep(depth):
    if depth:
        deep(depth - 1)  # ALLOC:deep
    else:
        for _ in range(5):
            h.malloc(85101)  # ALLOC:deepest
            greenlet.getcurrent().parent.switch()


many = [greenlet.greenlet(deep) for _ in range(50)]
for depth, each_greenlet in enumerate(many):
    each_greenlet.switch(depth)
for _ in range(5):
    for each_greenlet in many:
        each_greenlet.switch()
for depth in range(50):
    stack = "deep@deepest" + " < deep@deep" * depth
    expect(stack, M, size=85101, made=5, live=5, peak=5)

# A greenlet that dies while suspended is unwound by an exception, on a stack of its own
def finally_allocates():
    try:
        greenlet.getcurrent().parent.switch()
    finally:
        h.malloc(85201)  # ALLOC:dying


dying = greenlet.greenlet(finally_allocates)
dying.switch()
dying = None
expect("finally_allocates@dying", M, size=85201, made=1, live=1, peak=1)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
