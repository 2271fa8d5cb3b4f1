"""Exceptions, under the names that Memray has for them."""

from __future__ import annotations

from typing import Any

__all__ = ["HeaptideCommandError", "HeaptideError", "MemrayCommandError", "MemrayError"]


class HeaptideError(Exception):
    """Something that this package could not do."""


class HeaptideCommandError(HeaptideError):
    """Something that a command could not do; `exit_code` is what the command would exit with."""

    def __init__(self, *args: Any, exit_code: int) -> None:
        super().__init__(*args)
        self.exit_code = exit_code


MemrayError = HeaptideError
MemrayCommandError = HeaptideCommandError
