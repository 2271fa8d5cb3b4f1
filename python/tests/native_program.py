"""A program with native stacks of all kinds, tracked by Memray or by us."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import ctypes, importlib, json, mmap, re, sys, threading, zlib

tracking = importlib.import_module(sys.argv[4])
library = ctypes.CDLL(sys.argv[1])
library.any_way.argtypes = [ctypes.c_int, ctypes.c_size_t]
library.fleeting.argtypes = [ctypes.c_size_t]
Function = ctypes.CFUNCTYPE(None, ctypes.c_int)
kept = []


def native(rounds):
    for number in range(rounds):
        for way in (0, 1, 5):
            library.any_way(way, 1000 + number)


def called_back(number):
    kept.append(bytearray(3000 + number))
    library.any_way(1, 77)


def from_c():
    wrapped = Function(called_back)
    for number in range(3):
        library.call_back(wrapped, number)


def work(number):
    native(number + 1)
    from_c()
    kept.append(zlib.compress(bytes(50_000)))
    kept.append(re.compile("(a|b)*c%d" % number))


def down(depth):
    if depth:
        return down(depth - 1)
    return sorted([3, 1, 2], key=lambda each: native(1) or each)


def everything():
    native(5)
    from_c()
    down(4)
    threads = [threading.Thread(target=work, args=(number,), name="worker %d" % number) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(30):
        library.fleeting(5000)
    kept.append(json.loads(json.dumps([{"number": number, "text": "x" * 600} for number in range(50)])))
    # Libraries that are loaded while it is tracked
    import array, decimal, sqlite3
    kept.append(array.array("d", range(10_000)))
    mappings = [mmap.mmap(-1, 4096 * (number + 1)) for number in range(5)]
    for mapping in mappings[::2]:
        mapping.close()
    big = bytearray(20_000_000)
    del big
    native(3)


def track():
    # This frame and what it calls are shown, the module's is not.
    with tracking.Tracker(
        destination=tracking.FileDestination(sys.argv[2], overwrite=True),
        native_traces=True,
        file_format=tracking.FileFormat(int(sys.argv[3])),
    ):
        everything()


def set_profile(*event):
    ctypes.pythonapi.PyEval_SetProfile(library.profile, None)


if tracking.__name__ != "memray":
    # As Memray does: the interpreter takes other ways to call functions where a profile function is set.
    threading.setprofile(set_profile)
    set_profile()
track()
"""

COMPILER = shutil.which("cc") or shutil.which("gcc")


class Program:
    """The program, with its library in C."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.library = directory / "libpaths.so"
        self._script = directory / "program.py"
        self._script.write_text(PROGRAM)
        source = Path(__file__).with_name("native_paths.c")
        assert COMPILER is not None
        subprocess.run([COMPILER, "-O2", "-g", "-shared", "-fPIC", "-o", self.library, source], check=True)

    def tracked(self, package: str, file_format: int) -> Path:
        """Its capture."""
        capture = self._directory / f"{package}-{file_format}"
        arguments = [sys.executable, self._script, self.library, capture, str(file_format), package]
        subprocess.run([str(argument) for argument in arguments], check=True, cwd=self._directory)
        return capture


def plain(name: str) -> str:
    """Without parameters of C++, which demanglers print in their ways."""
    return name if name.startswith("<") else re.split("[<(]", name)[0]
