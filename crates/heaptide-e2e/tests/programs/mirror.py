"""Says everything about itself that a profiler might disturb, then fails on purpose."""
import __main__
import gc
import json
import os
import signal
import sys
import threading


def descriptors():
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            target = os.readlink("/proc/self/fd/" + name).split(":")[0]
        except OSError:
            continue
        # The capture itself stays open, out of the way and not inherited
        if not (target.endswith("capture.tide") and int(name) >= 100 and not os.get_inheritable(int(name))):
            yield name, target


def masks():
    with open("/proc/self/status") as file:
        return [line.split() for line in file if line.startswith(("Sig", "Shd", "NoNewPrivs", "Seccomp:"))]


looks = dict(
    argv=sys.argv,
    orig_argv=getattr(sys, "orig_argv", None),
    main=sorted(__main__.__dict__),
    name=__name__,
    file=globals().get("__file__"),
    spec=repr(getattr(__main__.__spec__, "name", None)),
    path=sys.path,
    environment=dict(os.environ),
    flags=repr(sys.flags),
    executable=sys.executable,
    descriptors=list(descriptors()),
    signals=[repr(signal.getsignal(n)) for n in (1, 2, 10, 13, 15, 17)],
    masks=[row for row in masks() if row[0] != "SigQ:"],
    threads=[thread.name for thread in threading.enumerate()],
    tasks=len(os.listdir("/proc/self/task")),
    profile=repr((sys.getprofile(), sys.gettrace())),
    gc=repr((gc.isenabled(), gc.get_threshold())),
    modules=sorted(name for name in sys.modules if "heaptide" in name),
    recursion=sys.getrecursionlimit(),
    switch=sys.getswitchinterval(),
    umask=os.umask(0o22),
    cwd=os.getcwd(),
    group=os.getpgrp() == os.getpid() or os.getpgrp() == os.getppid(),
    stdin=sys.stdin.read(),
)
print(json.dumps(looks, indent=1, sort_keys=True))
print("to stderr", file=sys.stderr)


def fails():
    {}["missing"]


fails()
