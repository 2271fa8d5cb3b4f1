"""What programs written for Memray ask for, and what has nothing to do here."""

from __future__ import annotations

from typing import Any

from heaptide._enums import SymbolicSupport
from heaptide._heaptide import symbolic_support

__all__ = ["get_symbolic_support", "greenlet_trace_function", "print_greenlet_warning"]


def get_symbolic_support() -> SymbolicSupport:
    """What native stacks of this interpreter can tell: by the symbols of the function that evaluates Python, as in
    Memray."""
    return SymbolicSupport(symbolic_support())


def greenlet_trace_function(event: str, args: Any) -> None:
    """Does nothing: what a greenlet's stack is can be seen in the interpreter. Memray's is installed by
    ``greenlet.settrace``, and follows which greenlet runs."""


def print_greenlet_warning() -> None:
    """Prints nothing: stacks of greenlets are as good as others. Memray's says that they are experimental there."""
