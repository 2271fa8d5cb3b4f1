"""Frames of stacks."""

from __future__ import annotations

from typing import Optional

__all__ = ["Frame"]


class Frame(tuple[str, str, int]):
    """A frame of a stack: the tuple ``(function, file, line)``, as in Memray, with more to ask for.

    The line counts from 1 and is 0 where it is not known.
    """

    qualified_name: str
    """The function with its classes and functions around it (3.11 and later, else its name)."""
    end_line: Optional[int]
    """The last line of the expression; ``None`` where it is not known."""
    column: Optional[int]
    """Where the expression begins, in bytes of UTF-8 from 0; ``None`` before Python 3.11."""
    end_column: Optional[int]
    """Where it ends; ``None`` before Python 3.11."""

    @property
    def function(self) -> str:
        """``co_name``"""
        return self[0]

    @property
    def file(self) -> str:
        """``co_filename``"""
        return self[1]

    @property
    def line(self) -> int:
        """The line."""
        return self[2]
