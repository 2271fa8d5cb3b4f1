"""Where a `Tracker` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Union

__all__ = ["Destination", "FileDestination", "SocketDestination"]


@dataclass(frozen=True)
class Destination:
    """Where a `Tracker` writes: a `FileDestination` or a `SocketDestination`."""


@dataclass(frozen=True)
class FileDestination(Destination):
    """A capture file.

    Args:
        path: The file.
        overwrite: Whether a file that is there already is replaced; else that is an ``OSError``.
        compress_on_exit: Whether the file is made small when tracking has ended.
        buffered: Whether the file is written, and not mapped: for file systems without shared mappings (some network
            and FUSE ones). A process of its own does it, ten times in a second. It is no child of this one, and when
            this one is killed it writes everything there is. What it has not written is lost only if it is killed
            itself, or the machine dies. Where this process is PID 1 or a subreaper, it has that process as a child
            while tracking goes on, and ``os.wait()`` waits for it too.
    """

    path: Union[Path, str]
    overwrite: bool = False
    compress_on_exit: bool = True
    buffered: bool = False


@dataclass(frozen=True)
class SocketDestination(Destination):
    """A TCP port that readers may connect to: a `SocketReader` on the same machine.

    Args:
        server_port: The port.
        address: The address to listen at. Whoever can connect can read what the program allocates where, so it is this
            machine's own unless told otherwise.
    """

    server_port: int
    address: str = "127.0.0.1"
