"""Names that users of Memray import from ``memray._memray``."""

from heaptide._compatibility import get_symbolic_support, greenlet_trace_function, print_greenlet_warning
from heaptide._destination import Destination, FileDestination, SocketDestination
from heaptide._enums import AllocatorType, FileFormat, ObjectTrackingEvent, PythonAllocatorType, SymbolicSupport
from heaptide._heaptide import AllocationRecord, TemporalAllocationRecord, TrackedObjectRecord
from heaptide._metadata import Metadata
from heaptide._reader import FileReader, compute_statistics, dump_all_records, set_log_level, size_fmt
from heaptide._records import Interval, MemorySnapshot
from heaptide._socket_reader import SocketReader
from heaptide._stats import Stats
from heaptide._tracker import Tracker, start_thread_trace

__all__ = [
    "AllocationRecord",
    "AllocatorType",
    "Destination",
    "FileDestination",
    "FileFormat",
    "FileReader",
    "Interval",
    "MemorySnapshot",
    "Metadata",
    "ObjectTrackingEvent",
    "PythonAllocatorType",
    "SocketDestination",
    "SocketReader",
    "Stats",
    "SymbolicSupport",
    "TemporalAllocationRecord",
    "TrackedObjectRecord",
    "Tracker",
    "compute_statistics",
    "dump_all_records",
    "get_symbolic_support",
    "greenlet_trace_function",
    "print_greenlet_warning",
    "set_log_level",
    "size_fmt",
    "start_thread_trace",
]
