"""Holds a million blocks, then says how much memory the process has."""
import ctypes
import sys

import bare

count = int(sys.argv[1])
blocks = (ctypes.c_void_p * count)()
bare.many(count, 40, blocks)  # held
with open("/proc/self/status") as file:
    print(next(line for line in file if line.startswith("VmHWM")).split()[1])
