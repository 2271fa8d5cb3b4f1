"""heaptide: find out what holds the memory of a Python program, even of one that was killed.

Names and meanings are those of Memray: ``import heaptide as memray`` is meant to work. What is the same, what is
better and what is missing is in ``docs/memray-compatibility.md``.
"""

from heaptide._destination import Destination, FileDestination, SocketDestination
from heaptide._enums import AllocatorType, FileFormat
from heaptide._frame import Frame
from heaptide._heaptide import AllocationRecord
from heaptide._ipython import load_ipython_extension
from heaptide._metadata import Metadata
from heaptide._reader import FileReader, compute_statistics, dump_all_records, set_log_level, size_fmt
from heaptide._records import MemorySnapshot
from heaptide._socket_reader import SocketReader
from heaptide._tracker import Tracker, start_thread_trace
from heaptide._version import __version__

__all__ = [
    "AllocationRecord",
    "AllocatorType",
    "Destination",
    "FileDestination",
    "FileFormat",
    "FileReader",
    "Frame",
    "MemorySnapshot",
    "Metadata",
    "SocketDestination",
    "SocketReader",
    "Tracker",
    "__version__",
    "compute_statistics",
    "dump_all_records",
    "load_ipython_extension",
    "set_log_level",
    "size_fmt",
    "start_thread_trace",
]
