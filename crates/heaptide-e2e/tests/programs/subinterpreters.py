"""Code in subinterpreters: its stack is its own, its blocks are counted like any other's."""
import sys
import sysconfig

import known
from known import expect, h

known.program(__file__)
ISOLATED = sys.version_info >= (3, 13)
if ISOLATED:
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters

# Without the GIL bytes are mimalloc's
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    MAKE, ALLOCATOR, HEADER, STEP, FIRST = "__import__('mmap').mmap(-1, %d)", "MMAP", 0, 4096, 500 * 4096
else:
    MAKE, ALLOCATOR, HEADER, STEP, FIRST = "bytes(%d)", "CALLOC", 33, 2, 2000003
CODE = """
def inside():
    return {}
def outside():
    return inside()
kept = outside()
gone = inside(); del gone
""".format(MAKE)
alive = []
asked = [FIRST + STEP * n for n in range(3)]
for number in range(3):
    interpreter = interpreters.create()
    alive.append(interpreter)
    result = interpreters.run_string(interpreter, CODE % asked[number])  # ALLOC:run
    assert result is None, result
sizes = [size + HEADER for size in asked]
total = (3, sum(sizes))
# What the code is said to come from
FILE = "<script>" if sys.version_info >= (3, 14) else "<string>"
kept = "inside@%s:3 < outside@%s:5 < <module>@%s:6" % (FILE, FILE, FILE)
expect(kept, ALLOCATOR, made=total, live=total, peak=total, observed=False)
expect("inside@%s:3 < <module>@%s:7" % (FILE, FILE), ALLOCATOR, made=total, temporary=total, observed=False)

block = h.malloc(84001)  # ALLOC:back_in_main
expect("<module>@back_in_main", "MALLOC", size=84001, made=1, live=1, peak=1)
h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")

known.finish()
