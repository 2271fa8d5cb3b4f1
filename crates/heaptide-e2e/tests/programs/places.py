"""One function that allocates at many places, in their order, against it and at random, from several callers and depths:
each place's count is its own."""
import random

import known
from known import expect, h

known.program(__file__)
PLACES = 40
SOURCE = "def places(order, h):\n    for place in order:\n" + "".join(
    "        if place == %d: h.free(h.malloc(%d))\n" % (place, 50000 + place) for place in range(PLACES))
namespace = {}
exec(compile(SOURCE, "<places>", "exec"), namespace)
places = namespace["places"]

in_order = list(range(PLACES))
dice = random.Random(7)
ORDERS = [in_order * 5, in_order[::-1] * 4, [dice.randrange(PLACES) for _ in range(3000)], [3, 4] * 500, [11] * 100,
          [place for pair in zip(in_order, in_order) for place in pair]]


def one(order):
    places(order, h)  # ALLOC:one


def other(order):
    places(order, h)  # ALLOC:other


def down(depth, order):
    if depth:
        down(depth - 1, order)  # ALLOC:down
    places(order, h)  # ALLOC:deep


made = [0] * PLACES
for order in ORDERS:
    for place in order:
        made[place] += 1
    for start in range(0, len(order), 7):
        one(order[start:start + 7])  # ALLOC:first
        other(order[start:start + 7])  # ALLOC:second
for place, count in enumerate(made):
    for name, call in (("one", "first"), ("other", "second")):
        expect("places@<places>:%d < %s@%s < <module>@%s" % (place + 3, name, name, call), "MALLOC", size=50000 + place,
               made=count, temporary=count)

DEPTH = 50
for turn in range(6):
    down(DEPTH, in_order[::1 - turn % 2 * 2])  # ALLOC:top
for place in range(PLACES):
    for depth in range(DEPTH + 1):
        stack = "places@<places>:%d < down@deep" % (place + 3) + " < down@down" * (DEPTH - depth) + " < <module>@top"
        expect(stack, "MALLOC", size=50000 + place, made=6, temporary=6)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
