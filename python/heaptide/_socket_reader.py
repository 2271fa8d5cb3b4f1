"""Reading what a program sends while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from heaptide._heaptide import AllocationRecord

__all__ = ["SocketReader"]


@dataclass
class SocketReader:
    """Reads from a program that tracks to a `SocketDestination`: not there yet.

    Read the capture of the running program with `FileReader` instead: it is complete at every instant.

    Args:
        port: The port at which the program listens.
    """

    port: int

    def __enter__(self) -> NoReturn:
        raise NotImplementedError(
            "heaptide does not read from sockets yet: read the capture of the running program with FileReader"
        )

    def __exit__(self, *exc_info: object) -> None: ...

    def get_current_snapshot(self, *, merge_threads: bool) -> Iterator[AllocationRecord]:
        """What is live now.

        Raises:
            RuntimeError: Always: there is no connection.
        """
        raise RuntimeError("not connected")
