"""Which stacks of records reports take."""

from __future__ import annotations

__all__ = ["method_of"]


def method_of(native_traces: bool) -> str:
    """The name of the records' method that gives them."""
    return "hybrid_stack_trace" if native_traces else "stack_trace"
