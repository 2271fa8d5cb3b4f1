"""The cell magics ``%%heaptide_flamegraph`` and, for notebooks written for Memray, ``%%memray_flamegraph``."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from heaptide import _program
from heaptide._destination import FileDestination
from heaptide._enums import FileFormat
from heaptide._tracker import Tracker

__all__ = ["load_ipython_extension"]

RESULTS = "heaptide-results"
"""Pages are written below this directory of the notebook's."""

MAGICS = ("heaptide_flamegraph", "memray_flamegraph")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _usage_error(message)


def _usage_error(message: str) -> Exception:
    from IPython.core.error import UsageError

    error: Exception = UsageError(message)
    return error


def _parser(name: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"%%{name}", description="Runs the cell and shows who allocated the memory.")
    parser.add_argument("--native", action="store_true", help="record the native functions of each stack, too")
    parser.add_argument(
        "--follow-fork", action="store_true", help="track forked children, each in a capture of its own"
    )
    parser.add_argument(
        "--trace-python-allocators", action="store_true", help="record every request to Python's own allocators"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--leaks", action="store_true", help="show what was not given back, instead of the peak")
    which.add_argument(
        "--temporary-allocation-threshold",
        metavar="N",
        type=int,
        help="show what was freed after at most N other allocations of its thread",
    )
    which.add_argument(
        "--temporary-allocations",
        action="store_const",
        const=1,
        dest="temporary_allocation_threshold",
        help="the same as --temporary-allocation-threshold=1",
    )
    parser.add_argument("--temporal", action="store_true", help="let a stretch of time be chosen in the page")
    parser.add_argument("--split-threads", action="store_true", help="do not merge the stacks of threads")
    parser.add_argument("--inverted", action="store_true", help="begin with what allocates, instead of what calls")
    parser.add_argument("--max-memory-records", metavar="N", type=int, help="show at most N moments of time")
    return parser


def _flags(options: argparse.Namespace) -> list[str]:
    """What ``heaptide flamegraph`` is told."""
    flags = [
        f"--{name.replace('_', '-')}"
        for name in ("leaks", "temporal", "split_threads", "inverted")
        if getattr(options, name)
    ]
    if options.temporary_allocation_threshold is not None:
        flags += ["--temporary-allocation-threshold", str(options.temporary_allocation_threshold)]
    if options.max_memory_records is not None:
        flags += ["--max-memory-records", str(options.max_memory_records)]
    return flags


def _run_cell(ipython: Any, name: str, line: str, cell: str) -> None:
    from IPython.display import IFrame, display

    try:
        options = _parser(name).parse_args(line.split())
    except SystemExit:
        # It has printed its help.
        return
    threshold = options.temporary_allocation_threshold
    if options.temporal and threshold is not None:
        raise _usage_error("Can't create a temporal flame graph of temporary allocations")
    # Counters answer all but what has to know each event.
    every_event = options.temporal or threshold not in (None, 1)
    results = Path(RESULTS)
    results.mkdir(exist_ok=True)
    # Not the absolute path that Python 3.12 gives: the page is shown by an address that is relative to the notebook.
    directory = results / Path(tempfile.mkdtemp(dir=results)).name
    capture, page = directory / "capture.tide", directory / "flamegraph.html"
    with Tracker(
        destination=FileDestination(capture, compress_on_exit=False),
        native_traces=options.native,
        follow_fork=options.follow_fork,
        trace_python_allocators=options.trace_python_allocators,
        file_format=FileFormat.ALL_ALLOCATIONS if every_event else FileFormat.AGGREGATED_ALLOCATIONS,
    ):
        ipython.run_cell(cell)
    command = [_program.find(), "flamegraph", *_flags(options), "-o", str(page), str(capture)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(f"no flame graph was made (the capture is {capture}):\n{made.stderr.strip()}")
    capture.unlink()
    print(f"Results saved to {page}")
    display(IFrame(page, width="100%", height="600"))


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext heaptide``: adds the cell magics.

    Args:
        ipython: The running shell.
    """
    for name in MAGICS:

        def magic(line: str, cell: str, name: str = name) -> None:
            """Runs the cell and shows who allocated the memory; ``--help`` lists the options."""
            _run_cell(ipython, name, line, cell)

        ipython.register_magic_function(magic, magic_kind="cell", magic_name=name)
