"""Tracking a stretch of a program from inside it."""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Optional, Union

from heaptide import _program
from heaptide._destination import Destination, FileDestination, SocketDestination
from heaptide._enums import FileFormat
from heaptide._heaptide import Tracking

__all__ = ["Tracker", "start_thread_trace"]

_log = logging.getLogger("heaptide")


class Tracker:
    """Tracks what is allocated while its ``with`` block runs, by all threads::

        with heaptide.Tracker("some_output_file.tide"):
            ...

    Only one tracker can be active in a process. Another one can be used when its block has ended; none can be used
    twice.

    Args:
        file_name: The capture to write; the same as ``destination=FileDestination(file_name)``.
        destination: Where to write instead: a `FileDestination`, or a `SocketDestination`, with which the first reader
            is waited for when the tracker is made.
        native_traces: Whether to record which functions of C, C++ or Rust have allocated below the Python frames, too.
            Takes more time and memory. Readers name the functions by the files that they are in: read where these are.
        memory_interval_ms: How many milliseconds lie between samples of the resident memory; 0: none are taken.
        follow_fork: Whether forked children are tracked as well, each in a capture ``<file_name>.<pid>``.
        trace_python_allocators: Whether to record every request to Python's own allocators. Always so in a Python
            without the GIL, where nothing of its objects is seen otherwise.
        track_object_lifetimes: Whether to record which Python objects that are made in the block are alive when it
            ends, see `get_surviving_objects`; in captures of every event also each creation and destruction of an
            object, see `FileReader.get_object_lifetime_events`. Needs Python 3.13.3 or later, with the GIL. Forked
            children do not record it.
        file_format: Every event, or counters for each stack. Both can be read at any time, also while the block runs.

    Raises:
        TypeError: When not exactly one of ``file_name`` and ``destination`` is given, or it is no destination.
        OSError: When the file exists (and ``overwrite`` is not set) or cannot be made, or the port cannot be used, or
            (with ``buffered``) the ``heaptide`` program is not where it was installed.
        RuntimeError: When something is asked for that needs a file. (When the block is entered) when something is
            tracked in this process already, by another tracker or by ``heaptide run``; when this tracker was used
            before.
    """

    def __init__(
        self,
        file_name: Optional[Union[str, Path]] = None,
        *,
        destination: Optional[Destination] = None,
        native_traces: bool = False,
        memory_interval_ms: int = 10,
        follow_fork: bool = False,
        trace_python_allocators: bool = False,
        track_object_lifetimes: bool = False,
        file_format: FileFormat = FileFormat.ALL_ALLOCATIONS,
    ) -> None:
        if (file_name is None) == (destination is None):
            raise TypeError("Exactly one of 'file_name' or 'destination' argument must be specified")
        if file_name is not None:
            destination = FileDestination(file_name)
        if not isinstance(destination, (FileDestination, SocketDestination)):
            raise TypeError("destination must be a SocketDestination or FileDestination")
        file_format = FileFormat(file_format)
        if isinstance(destination, SocketDestination):
            _refuse_what_needs_a_file(follow_fork, file_format)
        if track_object_lifetimes:
            _refuse_old_python()
        if isinstance(destination, SocketDestination):
            # Counters are what a reader asks for: what is live, by stack. They are as exact, and do not grow with time.
            file_format = FileFormat.AGGREGATED_ALLOCATIONS
            listen = (destination.address, operator.index(destination.server_port))
            destination = FileDestination("", compress_on_exit=False)
        else:
            listen = None
        self._compress = destination.compress_on_exit
        self._buffered = destination.buffered
        self._tracking = Tracking(
            destination.path,
            listen=listen,
            writer=_program.find() if destination.buffered else None,
            overwrite=destination.overwrite,
            aggregated=file_format == FileFormat.AGGREGATED_ALLOCATIONS,
            memory_interval_ms=memory_interval_ms,
            native_stacks=native_traces,
            # Without the GIL nothing of Python's objects is seen otherwise, be they large.
            trace_python_allocators=trace_python_allocators or not has_gil(),
            track_object_lifetimes=track_object_lifetimes,
            follow_fork=follow_fork,
            arguments=list(getattr(sys, "argv", [])),
            executable=sys.executable or "",
        )
        self._track_object_lifetimes = track_object_lifetimes
        self._survivors: Optional[list[object]] = None
        self._stopped = False
        self._used = False
        self._pid = 0

    def __enter__(self) -> Tracker:
        tracking = self._tracking
        # Asked first, so that a tracker that cannot be used now can be used later.
        if not tracking.is_on():
            if self._used:
                raise RuntimeError("Attempting to use stale output handle")
            self._used = True
            self._pid = os.getpid()
        tracking.start(_frames_below(sys._getframe(1)))
        return self

    def __exit__(
        self,
        exctype: Optional[type[BaseException]],
        excinst: Optional[BaseException],
        exctb: Optional[TracebackType],
    ) -> None:
        try:
            ended_early, self._survivors = self._tracking.stop()
            # A child does not know, whatever its parent does.
            self._stopped = os.getpid() == self._pid
        except RuntimeError:
            # A child that was forked in the block leaves it, too, and is not tracked unless that was asked for.
            if os.getpid() != self._pid:
                return
            raise
        if ended_early:
            _log.warning("tracking ended before its block did: the capture says why")
        if os.getpid() != self._pid:
            return
        if self._buffered:
            problem = self._tracking.arrive(self._compress)
            if problem is not None:
                _log.warning("%s", problem)
        elif self._compress:
            problem = self._tracking.compress()
            if problem is not None:
                _log.warning("the capture is whole, but was not made small: %s", problem)

    def get_surviving_objects(self) -> tuple[object, ...]:
        """The objects that were made in the block and were alive when it ended, in the order in which they were made.

        They are kept alive for as long as this tracker is. Where each was made is told by
        `FileReader.get_object_lifetime_events`, most directly of an aggregated capture. Objects of other interpreters
        than the one of the block are left out.

        Raises:
            RuntimeError: When ``track_object_lifetimes`` was not given; while the block has not ended; when it is not
                known, as another tracer of objects (that of ``tracemalloc``, for instance) was set in the block.
        """
        if not self._track_object_lifetimes:
            raise RuntimeError("track_object_lifetimes=True was not provided at Tracker construction")
        if not self._stopped:
            raise RuntimeError("Tracking was never started or has not finished yet or failed.")
        if self._survivors is None:
            raise RuntimeError(
                "Which objects survived is not known: another tracer of objects (tracemalloc, or another tool) was set "
                "while tracking was on, or there was no memory"
            )
        return tuple(self._survivors)


def _frames_below(frame: FrameType) -> int:
    """How many frames stand below the one that has the ``with`` statement."""
    caller: Optional[FrameType] = frame
    # `ExitStack` and its kind enter for somebody else.
    while caller is not None and caller.f_code.co_filename == contextlib.__file__:
        caller = caller.f_back
    count = -1
    while caller is not None:
        count += 1
        caller = caller.f_back
    return max(count, 0)


def _refuse_what_needs_a_file(follow_fork: bool, file_format: FileFormat) -> None:
    if follow_fork:
        raise RuntimeError("follow_fork requires an output file")
    if file_format == FileFormat.AGGREGATED_ALLOCATIONS:
        raise RuntimeError("AGGREGATED_ALLOCATIONS requires an output file")


def has_gil() -> bool:
    """Whether this interpreter was built with a GIL."""
    return not sysconfig.get_config_var("Py_GIL_DISABLED")


def _refuse_old_python() -> None:
    if not has_gil():
        raise RuntimeError("Python object reference tracking requires a Python with the GIL")
    if sys.version_info < (3, 13, 3):
        version = ".".join(map(str, sys.version_info[:3]))
        raise RuntimeError(
            f"Python object reference tracking requires Python 3.13.3 or later. Current version: {version}"
        )


def start_thread_trace(frame: FrameType, event: str, arg: Any) -> None:
    """Does nothing: stacks of all threads are known without a profile function. Memray's programs install this one in
    threads that were there before."""
