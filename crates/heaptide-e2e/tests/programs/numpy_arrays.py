"""numpy's arrays: the data of each is one block of the C library's."""
import numpy

import known
from known import expect, h

known.program(__file__)
# Whatever numpy makes once, it makes here
for _ in range(5):
    arrays = [(numpy.add(numpy.empty(1000), 1), numpy.zeros((10, 10))) for _ in range(50)]
    del arrays
ONE = dict(made=1, live=1, peak=1, observed=False)

empty = numpy.empty(1000003, dtype=numpy.uint8)  # ALLOC:empty
expect("<module>@empty", "MALLOC", size=1000003, **ONE)
zeroes = numpy.zeros((1001, 101), dtype=numpy.float64)  # ALLOC:zeros
expect("<module>@zeros", "CALLOC", size=1001 * 101 * 8, **ONE)


def compute():
    a = numpy.empty(100003, dtype=numpy.float64)  # ALLOC:operand
    return numpy.add(a, 1)  # ALLOC:sum


total = compute()  # ALLOC:compute
expect("compute@operand < <module>@compute", "MALLOC", size=800024, made=1, observed=False, temporary=1)
expect("compute@sum < <module>@compute", "MALLOC", size=800024, **ONE)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
