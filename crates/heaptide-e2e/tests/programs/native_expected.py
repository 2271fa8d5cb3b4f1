"""The libraries of `tests/native`, and the ledger of programs whose native stacks are known.

A program declares with `expect` which of its own functions, of Python and of C, are on a stack, innermost first: `"nt_inner@inner <
nt_middle@middle < caller@a_line"`. What stands behind the `@` is a line of the program with a comment `# AT:a_line`, or one of a
library. Everything between is the interpreter's and is not told. `finish` writes `expected.<pid>.json`.

What is declared to be `loose` need not be whole: native frames may be missing, from anywhere, but none may be there that is not told, and
none of Python's may be missing. Such stacks allocate by `nt_rare`, which nothing else does.
"""
import ctypes
import json
import os
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
TIDE = 1 << 28
INLINED = sys.version_info >= (3, 12)

_lines = {}
_expected = []
_program = None


def _scan(path):
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if "AT:" in line:
                name = line.rsplit("AT:", 1)[1].replace("*/", "").strip()
                place = path.endswith(".py"), name
                assert place not in _lines, "%s is marked twice" % name
                _lines[place] = number


def program(path):
    """To be called first, with the program's `__file__`."""
    global _program
    _program = os.path.basename(path)
    for name in ("frames.c", "throws.cpp", "comes_and_goes.c", _program):
        _scan(os.path.join(HERE, name))


Z, P, I, L, O, S = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.py_object, ctypes.c_char_p
CALLBACK = ctypes.CFUNCTYPE(None)
COMPARE = ctypes.CFUNCTYPE(I, ctypes.POINTER(I), ctypes.POINTER(I))
ARGUMENTS = dict(
    leaf=[Z], rare=[Z], inner=[Z], outer=[Z], two_lines=[Z], alternate=[Z, I], tail_caller=[Z], family=[Z], shapes=[Z], returns_by_jump=[Z],
    deep=[Z, I], stairs=[Z, I], jumps=[Z, I], callback=[CALLBACK], callback_deep=[CALLBACK, I], qsort=[P, Z, Z, COMPARE], next=[O],
    call=[O], get=[O, S], text=[O], less=[O, O], drop=[P], hold=[O], requests=[Z], in_thread=[Z, CALLBACK, Z], fork=[Z], raise_=[Z, Z],
    check_signals=[I], spin=[Z, I, L], in_context=[Z], through=[P, Z], through_framed=[P, Z], decoy=[], unharmed=[Z], free=[P], tide=[Z],
    temporary=[Z, I], catcher=[Z, I],
)
POINTERS = ("leaf", "inner", "outer", "deep", "decoy")


class Library:
    """A build of `frames.c` or `throws.cpp`: `library.leaf` is its `nt_leaf`, called without the GIL, `library.held.leaf` with it."""

    def __init__(self, name, kind=ctypes.CDLL):
        self.name, self.kind = name, kind
        self.loaded = kind(os.path.join(HERE, name + ".so"))
        if kind is ctypes.CDLL:
            self.held = Library(name, ctypes.PyDLL)

    def __getattr__(self, name):
        function = getattr(self.loaded, "nt_" + name.rstrip("_"))
        function.argtypes = ARGUMENTS[name]
        function.restype = P if name in POINTERS else I if name in ("unharmed", "fork", "spin") else None
        setattr(self, name, function)
        return function


def renamed(function, suffix):
    """The same function under a name of its own, so that its stacks are told from others."""
    name = "%s_%s" % (function.__name__, suffix)
    names = dict(co_name=name)
    if sys.version_info >= (3, 11):
        names["co_qualname"] = name
    return types.FunctionType(function.__code__.replace(**names), function.__globals__, name)


def comprehension(marker):
    """The frame that a list comprehension has before 3.12."""
    return "" if INLINED else "<listcomp>@%s < " % marker


def expect(stack, size, count=1, allocator="MALLOC", live=None, temporary=0, domain=None, main=True, lines=True, loose=False, end=" < <module>@run"):
    """`count` blocks of `size` bytes each, of which `live` are never freed."""
    frames = []
    for part in (stack + end).split(" < "):
        name, _, marker = part.partition("@")
        native = name.startswith("nt_")
        line = _lines[not native, marker] if lines or not native else None
        frames.append([name, line])
    live = count if live is None else live
    _expected.append(dict(
        stack=frames, allocator=allocator, domain=domain, main=main, loose=loose, allocated_count=count, allocated_bytes=size * count,
        live_count=live, live_bytes=size * live, temporary_count=temporary,
    ))


def forget():
    """In a child that was forked: what the parent expects is not its business."""
    _expected.clear()


def finish(pid=None):
    with open(os.path.join(HERE, "expected.%d.json" % (pid or os.getpid())), "w") as file:
        json.dump(dict(program=_program, stacks=_expected), file)
