"""dlopen and dlclose in a loop, with the library's allocations counted each time."""
import _ctypes
import ctypes
import os
import shutil

import bare
import known
from known import expect, h

known.program(__file__)
copies = []
for number in range(5):
    copy = os.path.join(known.HERE, "copy%d.so" % number)
    shutil.copy(os.path.join(known.HERE, "helper.so"), copy)
    copies.append(copy)
pointer = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)
for number in range(200):
    handle = _ctypes.dlopen(copies[number % 5], 0)
    other = pointer(_ctypes.dlsym(handle, "ht_malloc"))
    block = other(93001)  # ALLOC:other
    bare.free(block)
    del other
    _ctypes.dlclose(handle)
expect("<module>@other", "MALLOC", size=93001, made=200, temporary=200, observed=False)
block = h.malloc(93003)  # ALLOC:still
expect("<module>@still", "MALLOC", size=93003, made=1, live=1, peak=1)
h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
