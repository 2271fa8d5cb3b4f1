"""Allocates known blocks, then ends in the way that its argument names."""
import os
import signal
import sys

import bare

# Freed by hand or never: 100 blocks made, 40 freed, the first 10 of them at once
blocks = []
blocks.extend(range(100))
for n in range(100):
    blocks[n] = bare.malloc(70001)  # made
    if n < 10:
        bare.free(blocks[n])
for n in range(10, 40):
    bare.free(blocks[n])
print("before the end", flush=True)


def recurse(n):
    return recurse(n + 1) + 1


way = sys.argv[1]
if way == "segv":
    bare.function("segv", None)()
elif way == "abort":
    bare.function("abort", None)()
elif way == "overflow":
    bare.function("overflow", bare.I, bare.I)(1)
elif way == "_exit":
    os._exit(7)
elif way == "c_exit":
    bare.function("exit", None, bare.I)(9)
elif way == "c__exit":
    bare.function("exit_now", None, bare.I)(11)
elif way == "sys.exit":
    sys.exit(3)
elif way == "exit text":
    sys.exit("a message")
elif way == "exception":
    raise ValueError("as it should")
elif way == "recursion":
    recurse(0)
elif way.startswith("SIG"):
    os.kill(os.getpid(), getattr(signal, way))
    signal.pause()
elif way == "exec":
    os.execv("/bin/sh", ["sh", "-c", "exit 5"])
elif way == "failed exec":
    try:
        os.execv("/does/not/exist", ["x"])
    except OSError:
        pass
elif way == "handler":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(21))
    os.kill(os.getpid(), signal.SIGTERM)
elif way == "thread":
    import threading

    threading.Thread(target=os._exit, args=(13,)).start()
    signal.pause()
else:
    assert way == "normal", way
