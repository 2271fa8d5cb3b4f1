"""Programs that are recorded by the installed package."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PROGRAM = """
import threading


def many(n):
    held = []
    for _ in range(n):
        held.append(bytearray(1000))
    return held


def fleeting(n):
    for _ in range(n):
        bytearray(5000)


def grow_and_shrink():
    held = bytearray(3_000_000)
    del held


worker = threading.Thread(target=many, args=(3,), name="worker")
worker.start()
worker.join()
kept = many(7)
fleeting(11)
grow_and_shrink()
"""

HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")
needs_gil = pytest.mark.skipif(not HAS_GIL, reason="figures of a build with the GIL")
# What it takes for the program's bytes to be seen.
SEEN = [] if HAS_GIL else ["--trace-python-allocators"]

# What a `bytearray` allocates besides its bytes: from 3.15 on they are a `bytes`.
EXTRA = 33 if sys.version_info >= (3, 15) else 1


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the interpreter that runs the tests."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, text=True, capture_output=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory, program: Path) -> dict[str, Path]:
    """The program's captures by mode."""
    directory = tmp_path_factory.mktemp("captures")
    found = {}
    for mode, flags in {"all": [], "aggregated": ["--aggregate"]}.items():
        found[mode] = directory / f"{mode}.tide"
        run("-m", "heaptide", "run", "-q", *flags, *SEEN, "-o", found[mode], program)
    return found


@pytest.fixture(params=["all", "aggregated"])
def capture(request: pytest.FixtureRequest, captures: dict[str, Path]) -> Path:
    """A capture of the program, in each mode."""
    return captures[request.param]


@pytest.fixture
def in_process(tmp_path: Path) -> Callable[[str], str]:
    """Runs a piece of Python in a process of its own, in an empty directory, and gives what it printed."""

    def run_piece(text: str) -> str:
        script = tmp_path / "piece.py"
        script.write_text(text)
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_piece
