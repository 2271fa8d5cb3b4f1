"""Tracks stretches of its own process by the functions of the agent, as the extension module of the Python package does."""
import ctypes
import os

U32, TEXT = ctypes.c_uint32, ctypes.c_char_p
OK, ALREADY, SUPERVISED, NOT_TRACKING, BUSY, CONFIG, NO_GIL, UNSUPPORTED, CAPTURE, FOREIGN, RESOURCES, UNUSABLE, ENDED_EARLY, OTHER_TRACER = range(14)
IDLE, TRACKING, ENDED, CHANGING, RUN, _ = range(6)
FOLLOW = 1


class Config(ctypes.Structure):
    _fields_ = [
        ("bytes", U32), ("flags", U32), ("frames_below", U32), ("os_error", ctypes.c_int32),
        ("path", TEXT), ("cgroup_usage", TEXT), ("cgroup_limit", TEXT),
    ]


_agent = _without_gil = None
# The children of a program do not track themselves
_path = os.environ.pop("HEAPTIDE_STRETCH_AGENT", None)
_whole = os.environ.pop("HEAPTIDE_STRETCH_WHOLE", None)
_flags = int(os.environ.pop("HEAPTIDE_STRETCH_FLAGS", "0"))


def agent():
    global _agent, _without_gil
    if _agent is None:
        _agent = ctypes.PyDLL(_path, mode=ctypes.RTLD_GLOBAL)
        _without_gil = ctypes.CDLL(_path, mode=ctypes.RTLD_GLOBAL)
    return _agent


def config(path, flags=None, below=0):
    return Config(ctypes.sizeof(Config), _flags if flags is None else flags, below, 0, os.fsencode(os.path.abspath(path)))


def start(path, flags=None, below=0):
    return agent().heaptide_start(ctypes.byref(config(path, flags, below)))


def stop():
    return agent().heaptide_stop()


def survivors():
    """The list, or None."""
    function = agent().heaptide_survivors
    function.restype = ctypes.py_object
    try:
        return function()
    except ValueError:
        return None


def state():
    return agent().heaptide_state()


def without_gil():
    agent()
    return _without_gil


def begin_whole():
    """From before the program's first line to after its last (`sitecustomize`)."""
    if _whole:
        code = start(_whole)
        assert code == OK, code
