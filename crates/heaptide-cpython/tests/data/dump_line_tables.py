"""Prints one JSON object a line for every code object of many modules: its line table, and what the interpreter reads out of it.

`lines` has the line of the instruction at -2 (before the first), 0, 2, 4, ... and past the end; `positions`, from 3.11 on, the four numbers of
every code unit. The lines come from the interpreter's own C function, so that no decoder written in Python stands between."""

import ctypes
import glob
import json
import os
import sys

line_of = ctypes.pythonapi.PyCode_Addr2Line
line_of.argtypes = [ctypes.py_object, ctypes.c_int]
line_of.restype = ctypes.c_int

SYNTHETIC = [
    "a = 1\n" + "\n" * 70_000 + "b = 2\n",
    "x = [" + " " * 300 + "call(1)," + " " * 9000 + "\n" * 400 + "other(2, (yield_ + 1))]",
    "def f(a,\n  b=(1,\n 2)):\n  return (\n\n\n a\n +\n b\n)\n",
    "x = 'äöü€😀' + f(y)\ntry:\n  a()\nfinally:\n  b()\n",
    "if 1:\n" + "".join(f"  if a{i}:\n    pass\n" for i in range(300)),
    "for i in x:\n  while y:\n    continue\n  else:\n    break\nwith a as b, c as d: e\n",
    "async def f():\n  async with a: pass\n  async for b in c: yield d\n  return_ = await e\n",
    "",
]


def sources():
    for number, text in enumerate(SYNTHETIC):
        yield text, f"<synthetic {number}>"
    library = os.path.dirname(os.__file__)
    files = glob.glob(library + "/*.py") + glob.glob(library + "/asyncio/*.py") + glob.glob(library + "/email/*.py")
    for file in sorted(files)[:: int(sys.argv[1])]:
        with open(file, "rb") as opened:
            yield opened.read(), file


def nested(code):
    yield code
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from nested(constant)


for text, file in sources():
    for code in nested(compile(text, file, "exec", dont_inherit=True)):
        size = len(code.co_code)
        print(json.dumps({
            "what": f"{file}:{code.co_firstlineno} {code.co_name}",
            "hexversion": sys.hexversion,
            "table": list(code.co_lnotab if sys.version_info < (3, 10) else code.co_linetable),
            "first_line": code.co_firstlineno,
            "lines": [line_of(code, offset) for offset in range(-2, size + 4, 2)],
            "positions": list(code.co_positions()) if sys.version_info >= (3, 11) else None,
        }))
