"""heaptide, under the name of Memray."""

import sys

from heaptide import (
    AllocationRecord,
    AllocatorType,
    Destination,
    FileDestination,
    FileFormat,
    FileReader,
    MemorySnapshot,
    Metadata,
    SocketDestination,
    SocketReader,
    Tracker,
    __version__,
    _destination,
    _errors,
    _memray,
    _metadata,
    _stats,
    _version,
    commands,
    dump_all_records,
    load_ipython_extension,
    reporters,
    set_log_level,
    start_thread_trace,
)
from heaptide.reporters import flamegraph, table

__all__ = [
    "AllocationRecord",
    "AllocatorType",
    "Destination",
    "FileDestination",
    "FileFormat",
    "FileReader",
    "MemorySnapshot",
    "Metadata",
    "SocketDestination",
    "SocketReader",
    "Tracker",
    "__version__",
    "dump_all_records",
    "load_ipython_extension",
    "set_log_level",
    "start_thread_trace",
]

# The very modules, so that classes and exceptions are the same under both names.
_PRIVATE = (_destination, _errors, _memray, _metadata, _stats, _version)
for _module in (*_PRIVATE, commands, reporters, flamegraph, table):
    sys.modules[_module.__name__.replace("heaptide", __name__, 1)] = _module
