"""``python -m heaptide``: the ``heaptide`` program, with this interpreter as the one that runs scripts."""

from __future__ import annotations

import os
import sys

from heaptide import _program


def main() -> None:
    """Becomes the program."""
    try:
        program = _program.find()
    except FileNotFoundError as error:
        sys.exit(f"heaptide: error: {error}")
    os.execve(program, ["heaptide", *sys.argv[1:]], _program.environment())


if __name__ == "__main__":
    main()
