"""docs/memray-compatibility.md is true: of this package, and of Memray where it can be imported."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heaptide import _program

TABLES = Path(os.environ.get("HEAPTIDE_DOCS", Path(__file__).parents[2] / "docs")) / "memray-compatibility.md"
ROWS = re.findall(r"^\| `([^`]+)` \| (same|better|missing) \|", TABLES.read_text(), re.MULTILINE)
ARGUMENTS = [(name, state) for name, state in ROWS if "(" in name]
FLAGS = [(name, state) for name, state in ROWS if "--" in name or name in ("attach", "detach", "live", "parse")]
NAMES = [row for row in ROWS if row not in ARGUMENTS and row not in FLAGS]
PACKAGES = ["heaptide", "memray"] if importlib.util.find_spec("memray") else ["heaptide"]
ABSENT = object()


def lookup(package: str, name: str) -> Any:
    """The value of a dotted name; modules on the way are imported."""
    value: Any = importlib.import_module(package)
    path = package
    for part in name.split("."):
        path += "." + part
        if inspect.ismodule(value) and not hasattr(value, part):
            if importlib.util.find_spec(path) is None:
                return ABSENT
            value = importlib.import_module(path)
        else:
            value = getattr(value, part, ABSENT)
        if value is ABSENT:
            return ABSENT
    return value


def test_the_tables_are_read() -> None:
    assert len(NAMES) > 60 and len(ARGUMENTS) > 15 and len(FLAGS) > 35


@pytest.mark.parametrize(("name", "state"), NAMES)
def test_names(name: str, state: str) -> None:
    if state != "missing":
        assert lookup("heaptide", name) is not ABSENT
    if "memray" in PACKAGES:
        assert lookup("memray", name) is not ABSENT


@pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")
def test_no_public_name_is_left_out() -> None:
    import memray

    listed = {name for name, _ in NAMES}
    assert set(memray.__all__) - {"__version__"} <= listed
    for owner in ("FileReader", "AllocationRecord", "Tracker", "SocketReader"):
        members = {member for member in dir(getattr(memray, owner)) if not member.startswith("_")}
        assert {f"{owner}.{member}" for member in members} <= listed


@pytest.mark.parametrize(("name", "state"), ARGUMENTS)
def test_arguments(name: str, state: str) -> None:
    owner, argument = name.rstrip(")").split("(")
    # Also what is missing is taken, and refused with a reason: other tests see to that.
    assert argument in inspect.signature(lookup("heaptide", owner)).parameters


@pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")
def test_memray_has_no_other_arguments(tmp_path: Path) -> None:
    import memray

    arguments: dict[str, dict[str, Any]] = {}
    for name, _ in ARGUMENTS:
        owner, argument = name.rstrip(")").split("(")
        arguments.setdefault(owner, {})[argument] = None
    # Cython's classes have no signatures: an unknown keyword is a TypeError that names it.
    for owner in ("Tracker", "FileReader"):
        for argument in arguments[owner]:
            with pytest.raises(Exception) as raised:
                getattr(memray, owner)(no_such_argument=1, **{argument: None})
            assert f"'{argument}'" not in str(raised.value) or "unexpected" not in str(raised.value)
    for owner in ("FileDestination", "SocketDestination"):
        assert set(arguments[owner]) == set(inspect.signature(getattr(memray, owner)).parameters)


def help_of(package: str, command: str) -> str:
    program = [_program.find()] if package == "heaptide" else [sys.executable, "-m", package]
    done = subprocess.run([*program, command, "--help"], text=True, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else ""


@pytest.fixture(scope="module")
def helps() -> dict[tuple[str, str], str]:
    commands = {name.split()[0] for name, _ in FLAGS}
    return {(package, command): help_of(package, command) for package in PACKAGES for command in commands}


@pytest.mark.parametrize(("name", "state"), FLAGS)
def test_flags(helps: dict[tuple[str, str], str], name: str, state: str) -> None:
    command, _, flag = name.partition(" ")
    for package in PACKAGES:
        there = (
            re.search(rf"{flag}(?![\w-])", helps[package, command]) is not None
            if flag
            else helps[package, command] != ""
        )
        assert there == (package == "memray" or state != "missing"), package


@pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")
def test_no_flag_of_memray_is_left_out() -> None:
    from memray.commands import get_argument_parser

    listed = {name for name, _ in FLAGS}
    (commands,) = (it for it in get_argument_parser()._actions if isinstance(it, argparse._SubParsersAction))
    for command, parser in commands.choices.items():
        options = {option for action in parser._actions for option in action.option_strings}
        flags = {f"{command} {option}" for option in options - {"--help"} if option.startswith("--")}
        assert flags <= listed, flags - listed


def exit_code(package: str, *arguments: str, cwd: Path) -> int:
    done = subprocess.run([sys.executable, "-m", package, *arguments], cwd=cwd, capture_output=True, check=False)
    return done.returncode


@pytest.mark.parametrize("package", PACKAGES)
def test_exit_codes(package: str, tmp_path: Path) -> None:
    def code(*arguments: str) -> int:
        return exit_code(package, *arguments, cwd=tmp_path)

    assert code("run", "-q", "-f", "-o", "x", "-c", "pass") == 0
    assert code("run", "--no-such-flag", "x.py") == 2
    assert code("run", "-q", "-f", "-o", "x", "-c", "1 / 0") == 1
    assert code("run", "-q", "-f", "-o", "x", "-c", "raise SystemExit(7)") == 7
    assert code("run", "-q", "-f", "-o", "x", "-c", "import os; os.kill(os.getpid(), 9)") in (-9, 137)
    assert code("stats", "no-such-file") == 1
