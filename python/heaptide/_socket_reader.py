"""Reading from a program while it runs."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from types import TracebackType
from typing import Optional

from heaptide._heaptide import AllocationRecord, LiveReader

__all__ = ["SocketReader"]


class SocketReader:
    """Reads from a program that tracks to a `SocketDestination` of this machine::

        with heaptide.SocketReader(port=12345) as reader:
            records = reader.get_current_snapshot(merge_threads=True)

    Args:
        port: The port at which the program listens.

    A program that does not listen yet is waited for when the block is entered. Several readers may read from the same
    program, one after the other or, up to four, at the same time, and the program goes on when they leave. Where the
    capture of the program can be opened, which is so for the same user, nothing of it is sent: it is read, also when
    the program was killed meanwhile.
    """

    _everything_sent = False

    def __init__(self, port: int) -> None:
        self._port = operator.index(port)
        self._reader: Optional[LiveReader] = None
        self._command_line: Optional[str] = None
        self._pid: Optional[int] = None
        self._has_native_traces = False

    def __repr__(self) -> str:
        return f"<heaptide.SocketReader port={self._port}{'' if self._reader else ' (not connected)'}>"

    def __enter__(self) -> SocketReader:
        """Connects, and waits for a tracker that is not there yet.

        Raises:
            OSError: When something else listens at the port.
            ValueError: When the block is entered twice at the same time.
        """
        if self._reader is not None:
            raise ValueError("Can not enter the context of a SocketReader object more than once, at the same time.")
        self._reader = LiveReader(self._port, self._everything_sent)
        self._command_line = self._reader.command_line
        self._pid = self._reader.pid
        self._has_native_traces = self._reader.has_native_traces
        return self

    def __exit__(
        self,
        exctype: Optional[type[BaseException]],
        excinst: Optional[BaseException],
        exctb: Optional[TracebackType],
    ) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def get_current_snapshot(self, *, merge_threads: bool) -> Iterator[AllocationRecord]:
        """What is live in the program at this moment, by stack and allocator; what was live at the end, when tracking
        has ended; nothing, without a connection.

        Args:
            merge_threads: Whether the same stack in several threads is one record, which has the thread of one of
                them.
        """
        records = None if self._reader is None else self._reader.current(merge_threads)
        return iter(()) if records is None else records

    @property
    def command_line(self) -> Optional[str]:
        """The arguments of the program, joined by blanks; ``None`` before a connection."""
        return self._command_line

    @property
    def is_active(self) -> bool:
        """Whether there is a connection, and the program tracks."""
        return self._reader is not None and self._reader.is_active()

    @property
    def pid(self) -> Optional[int]:
        """The process; ``None`` before a connection."""
        return self._pid

    @property
    def has_native_traces(self) -> bool:
        """Whether native stacks are recorded; ``False`` before a connection."""
        return self._has_native_traces
