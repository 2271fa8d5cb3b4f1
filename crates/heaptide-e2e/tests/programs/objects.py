"""Memory that Python's own objects ask for: large ones go to malloc one by one, mappings by the mmap module.

Without the GIL all objects are mimalloc's, which asks for gigabytes at once: only mappings are to be seen there."""
import mmap
import sys
import sysconfig

import known
from known import expect, h

known.program(__file__)
ONE = dict(made=1, live=1, peak=1, observed=False)
GONE = dict(made=1, temporary=1, observed=False)
HEADER = 33  # of a bytes object, with its terminating zero
IN_MALLOC = not sysconfig.get_config_var("Py_GIL_DISABLED")

zeroes = bytes(1000003)  # ALLOC:bytes
if IN_MALLOC:
    expect("<module>@bytes", "CALLOC", size=1000003 + HEADER, **ONE)
# A bytearray holds a zero more than asked for; from 3.15 on it holds a whole bytes object
array = bytearray(1000007)  # ALLOC:bytearray
extra = HEADER if sys.version_info >= (3, 15) else 1
if IN_MALLOC:
    expect("<module>@bytearray", "MALLOC", size=1000007 + extra, **ONE)


def build():
    return bytearray(500009)  # ALLOC:nested


kept = [build() for _ in range(4)]  # ALLOC:build
stack = "build@nested < " + known.comprehension("listcomp", "build") + "<module>@build"
if IN_MALLOC:
    expect(stack, "MALLOC", size=500009 + extra, made=4, live=4, peak=4, observed=False)

mapping = mmap.mmap(-1, 1234 * 4096)  # ALLOC:mmap
expect("<module>@mmap", "MMAP", size=1234 * 4096, **ONE)
closed = mmap.mmap(-1, 777 * 4096)  # ALLOC:mmap_closed
closed.close()
expect("<module>@mmap_closed", "MMAP", size=777 * 4096, **GONE)
resized = mmap.mmap(-1, 10 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # ALLOC:mmap_resized
resized.resize(5000 * 4096)  # ALLOC:mmap_grown
expect("<module>@mmap_resized", "MMAP", size=10 * 4096, **GONE)
expect("<module>@mmap_grown", "MMAP", size=5000 * 4096, **ONE)
with open(__file__, "rb") as file:
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)  # ALLOC:mmap_file
expect("<module>@mmap_file", "MMAP", size=len(view), **ONE)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
