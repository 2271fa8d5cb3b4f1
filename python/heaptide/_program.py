"""The ``heaptide`` program that came with this package."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

__all__ = ["environment", "find"]


def _places() -> Iterator[Path]:
    # Where the scripts of this environment are, of a user's own installation, and of `pip install --target`.
    yield Path(sysconfig.get_path("scripts"))
    user_scheme = "posix_user"
    yield Path(sysconfig.get_path("scripts", scheme=user_scheme))
    yield Path(sys.executable).parent
    yield Path(__file__).resolve().parents[1] / "bin"


def find() -> str:
    """The path of the program.

    Raises:
        FileNotFoundError: When the package was installed without its scripts.
    """
    places = list(dict.fromkeys(_places()))
    for place in places:
        program = place / "heaptide"
        if os.access(program, os.X_OK):
            return str(program)
    looked = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"the heaptide program that comes with this package is not where scripts are installed ({looked}): "
        "install the package again, with pip"
    )


def environment() -> dict[str, str]:
    """The environment to run the program in: scripts are run by this interpreter, unless another one is named."""
    return {"HEAPTIDE_PYTHON": sys.executable, **os.environ}
