"""Runs `walk_scenarios.py <libwalk_probe.so>` with a walk at every allocation. `walk_stress.py <walk_scenarios.py> <libwalk_stress.so> <libwalk_probe.so>`,
with the second preloaded."""

import ctypes
import runpy
import sys

scenarios, stress = sys.argv[1:3]
library = ctypes.PyDLL(stress)
assert library.heaptide_stress_start() == 0
# Every frame that the check itself handles is an allocation, and every allocation walks them all.
sys.argv = [scenarios, sys.argv[3], "150"]
try:
    runpy.run_path(scenarios, run_name="__main__")
finally:
    counters = (ctypes.c_uint64 * 7)()
    library.heaptide_stress_stop(counters)
names = ("walks", "frames", "hidden", "compared", "without_gil", "without_state", "failures")
counts = dict(zip(names, counters))
print(*(f"{name}={count}" for name, count in counts.items()))
assert counts["failures"] == 0
assert counts["walks"] > 10_000 and counts["frames"] > counts["walks"] and counts["without_gil"] and counts["without_state"]
assert (counts["hidden"] > 0) == (sys.version_info >= (3, 11))
assert (counts["compared"] > 0) == (sys.version_info[:2] != (3, 11))
print("every walk made sense")
