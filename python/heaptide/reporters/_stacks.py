"""What reports take of records: stacks, threads, and what there is to know of frames."""

from __future__ import annotations

import functools
import linecache
import os
import sys
from typing import Any

__all__ = ["MOST_FRAMES", "StackFrame", "is_interesting", "is_of_imports", "method_of", "source_line", "thread_of"]

StackFrame = tuple[str, str, int]
"""Function, file, line."""

MOST_FRAMES = int(sys.getrecursionlimit() // 2.5)
"""Deeper stacks are cut in data that is nested, as in Memray's."""


def method_of(native_traces: bool) -> str:
    """The name of the records' method that gives their stacks."""
    return "hybrid_stack_trace" if native_traces else "stack_trace"


def thread_of(record: Any) -> str:
    """The thread of a record as reports name it."""
    if record.tid == -1:
        return "merged thread"
    return f"{record.tid:#x} ({record.thread_name})" if record.thread_name else f"{record.tid:#x}"


def is_of_imports(frame: StackFrame) -> bool:
    """Whether a frame is of the machinery of imports."""
    return "frozen importlib" in frame[1]


def is_interesting(frame: StackFrame) -> bool:
    """Whether a frame is neither of imports nor of what runs a module as a program."""
    return not (is_of_imports(frame) or frame[1] == "<frozen runpy>" or frame[1].endswith("runpy.py"))


def source_line(frame: StackFrame, confidential_files: str) -> str:
    """The line of source that a frame is at, or its place where there is none, or none that is to be shown."""
    function, file, line = frame
    shown = confidential_files == "none" or (confidential_files != "all" and not _is_confidential(file))
    return (shown and linecache.getline(file, line)) or f"{function} at {file}:{line}"


@functools.cache
def _is_confidential(file: str) -> bool:
    """What is no Python, and not for everybody to read or execute, may hold secrets."""
    if file.endswith(".py"):
        return False
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return True
    return not mode & 0o115
