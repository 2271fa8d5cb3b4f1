"""Facts about a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from heaptide._enums import FileFormat

__all__ = ["Metadata"]


@dataclass
class Metadata:
    """Facts about a run."""

    start_time: datetime
    """When tracking began."""
    end_time: datetime
    """When it ended; of a running or killed program, the last moment that the capture knows of."""
    total_allocations: int
    """How many allocations there were. (Memray counts records, deallocations among them.)"""
    total_frames: int
    """How many different frames there are. (Memray has 0.)"""
    peak_memory: int
    """The most bytes that were allocated at the same time."""
    command_line: str
    """The arguments of the program, joined by blanks."""
    pid: int
    """The process."""
    main_thread_id: int
    """The kernel's id of the main thread."""
    python_allocator: str
    """The interpreter's object allocator."""
    has_native_traces: bool
    """Whether native stacks were recorded."""
    trace_python_allocators: bool
    """Whether requests to Python's own allocators were recorded."""
    file_format: FileFormat
    """What the capture has."""
    track_object_lifetimes: bool
    """Whether it was to be recorded which objects survive. (Memray has no such fact here.)"""
