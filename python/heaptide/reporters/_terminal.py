"""What texts may use of where they are printed."""

from __future__ import annotations

import os
import shutil
from typing import IO, Optional

__all__ = ["rows_that_fit", "text_options"]


def text_options(file: IO[str]) -> dict[str, bool]:
    """Whether colours, and lines drawn with other characters than ASCII, come out right."""
    encoding = (getattr(file, "encoding", None) or "utf-8").lower()
    return {"color": file.isatty() and not os.environ.get("NO_COLOR"), "unicode": encoding.startswith("utf")}


def rows_that_fit(file: IO[str]) -> Optional[int]:
    """How many rows of a table fit the screen; ``None`` where there is none."""
    other_lines, at_least = 5, 10
    return max(shutil.get_terminal_size().lines - other_lines, at_least) if file.isatty() else None
