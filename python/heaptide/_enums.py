"""Enumerations, with Memray's names and numbers."""

from __future__ import annotations

import enum

__all__ = ["AllocatorType", "FileFormat", "ObjectTrackingEvent", "PythonAllocatorType", "SymbolicSupport"]


class AllocatorType(enum.IntEnum):
    """What made a block, or gave it back.

    Requests to Python's own allocators are ``PYMALLOC_*``, recorded with ``trace_python_allocators`` only.
    """

    PYMALLOC_FREE = 1
    PYMALLOC_MALLOC = 2
    PYMALLOC_CALLOC = 3
    PYMALLOC_REALLOC = 4
    FREE = 5
    MALLOC = 6
    REALLOC = 7
    CALLOC = 8
    POSIX_MEMALIGN = 9
    ALIGNED_ALLOC = 10
    MEMALIGN = 11
    VALLOC = 12
    PVALLOC = 13
    MMAP = 14
    MUNMAP = 15


class FileFormat(enum.IntEnum):
    """What a capture has."""

    ALL_ALLOCATIONS = 0
    """Every allocation and every deallocation."""
    AGGREGATED_ALLOCATIONS = 1
    """Counters for each stack. Unlike Memray's, such a capture is complete at every instant, and knows of temporary
    allocations and of all that was ever allocated."""


class PythonAllocatorType(enum.IntEnum):
    """The object allocator of an interpreter."""

    PYTHON_ALLOCATOR_PYMALLOC = 1
    PYTHON_ALLOCATOR_PYMALLOC_DEBUG = 2
    PYTHON_ALLOCATOR_MALLOC = 3
    PYTHON_ALLOCATOR_OTHER = 4
    PYTHON_ALLOCATOR_MIMALLOC = 5
    PYTHON_ALLOCATOR_MIMALLOC_DEBUG = 6


class SymbolicSupport(enum.IntEnum):
    """What is known of the interpreter's native functions."""

    NONE = 1
    FUNCTION_NAME_ONLY = 2
    TOTAL = 3


class ObjectTrackingEvent(enum.IntEnum):
    """What happened to a Python object, see `FileReader.get_object_lifetime_events`."""

    OBJECT_CREATED = -1
    OBJECT_DESTROYED = -2
