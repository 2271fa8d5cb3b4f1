"""Runs before the program does, so before tracking starts; does something only for the program `early_threads.py`, and for
those that are to be tracked from inside."""
import os

with open("/proc/self/cmdline", "rb") as file:
    if b"early_threads.py" in file.read():
        import early

        early.start()
if "HEAPTIDE_STRETCH_AGENT" in os.environ:
    import stretch

    stretch.begin_whole()
