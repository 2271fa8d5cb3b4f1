"""docs/memray-compatibility.md is true of commands: of the program, and of Memray's where that is installed."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from compatibility import PACKAGES, Row, cells, rows
from heaptide import _ipython

FLAGS = rows("Commands and flags")
POSITIONALS = rows("Other arguments of commands")
MAGIC = rows("In Jupyter and IPython")
EXITS = cells("Exit behaviour")

needs_memray = pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")


def call(package: str, *arguments: str, cwd: Optional[Path] = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", package, *arguments]
    return subprocess.run(
        command, cwd=cwd, text=True, errors="replace", stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


@pytest.fixture(scope="module")
def helps() -> dict[tuple[str, str], str]:
    """What each package says of each command; nothing of commands that it does not have."""
    texts = {}
    for package in PACKAGES:
        for command in sorted({row.name.rpartition(" ")[0] for row in FLAGS}):
            done = call(package, *command.split(), "--help")
            texts[package, command] = done.stdout if done.returncode == 0 else ""
    return texts


def described(text: str, flag: str) -> Optional[str]:
    """How a help shows a flag, with what follows it."""
    for line in text.splitlines():
        head = re.split(r"\s{2,}", line.strip())[0]
        if head.startswith("-") and flag in re.findall(r"--?[\w-]+", head):
            return head
    # Those which say what is run are in the line above.
    usage = re.search(rf"(?<![\w-]){flag} [A-Z]+", text)
    return usage.group() if usage else None


def test_the_tables_are_read() -> None:
    assert len(FLAGS) > 80 and len(POSITIONALS) > 10 and len(MAGIC) > 10 and len(EXITS) > 45


@pytest.mark.parametrize("row", FLAGS, ids=lambda row: row.name)
def test_flags(helps: dict[tuple[str, str], str], row: Row) -> None:
    command, _, flag = row.name.rpartition(" ")
    for package in PACKAGES:
        shown = described(helps[package, command], flag)
        assert (shown is not None) == (package == "memray" or row.there), package
        if shown is None or package == "memray" or row.name in ("run -c", "run -m"):
            # Those two are run below. Memray's parsers are asked, which takes less time.
            continue
        # It is taken, and what follows is its value where it says that it has one.
        values = {"--confidential-files": "all", "--method": "auto"}
        value = [values.get(flag, "1")] if re.search(r"[<{A-Z]", shown.replace(flag, "")) else []
        done = call(package, *command.split(), flag, *value, "--help")
        assert done.returncode == 0 and done.stdout, (package, done.stderr)


@needs_memray
def test_the_same_flags_have_values(helps: dict[tuple[str, str], str]) -> None:
    for row in FLAGS:
        command, _, flag = row.name.rpartition(" ")
        if row.there and row.name not in ("run -c", "run -m"):
            shown = [described(helps[package, command], flag) or "" for package in PACKAGES]
            ours, theirs = (bool(re.search(r"[<{A-Z]", text.replace(flag, ""))) for text in shown)
            assert ours == theirs, shown


def parsers() -> dict[str, argparse.ArgumentParser]:
    from memray.commands import get_argument_parser

    parser = get_argument_parser()
    (commands,) = (it for it in parser._actions if isinstance(it, argparse._SubParsersAction))
    # A second name of a command would be one more choice that is not listed by itself.
    assert len(commands.choices) == len(commands._choices_actions)
    return {"": parser, **commands.choices}


@needs_memray
def test_nothing_of_memray_is_left_out() -> None:
    flags = {row.name for row in FLAGS}
    positionals = {row.name for row in POSITIONALS}
    for command, parser in parsers().items():
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                continue
            if action.dest == "help" and command:
                continue
            for option in action.option_strings:
                assert f"{command} {option}".strip() in flags
            if not action.option_strings:
                assert f"{command} {action.dest}" in positionals


@pytest.mark.parametrize("command", sorted({row.name.split()[0] for row in POSITIONALS if row.there}))
def test_what_must_be_given(command: str, tmp_path: Path) -> None:
    wanted = [row.name for row in POSITIONALS if row.name.startswith(f"{command} ") and row.name != "run script_args"]
    for package in PACKAGES:
        for count in range(len(wanted)):
            done = call(package, command, *["csv"] * count, cwd=tmp_path)
            assert done.returncode == 2 and "error" in done.stderr, (package, count)
        # What is named is not there: that is another failure.
        done = call(package, command, *["csv"] * len(wanted), cwd=tmp_path)
        assert done.returncode == 1 and "No such file" in done.stderr, (package, done.stderr)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("how", [["program.py"], ["-m", "program"], ["-c", "import sys; print(sys.argv[1:])"]])
def test_what_follows_belongs_to_the_program(package: str, how: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; print(sys.argv[1:])")
    arguments = ["-o", "--leaks", "-c", "x", "-m", "--", "-q", "--help"]
    done = call(package, "run", "-q", "-o", "new.bin", *how, *arguments, cwd=tmp_path)
    assert (done.stdout, done.returncode) == (f"{arguments}\n", 0), done.stderr


def options_of(parser: argparse.ArgumentParser) -> dict[str, tuple[str, Any, Any]]:
    return {
        option: (action.dest, action.nargs, action.const)
        for action in parser._actions
        for option in action.option_strings
    }


def test_options_of_the_magic() -> None:
    ours = options_of(_ipython._parser("memray_flamegraph"))
    assert set(ours) == {row.name for row in MAGIC}
    if "memray" in PACKAGES:
        pytest.importorskip("IPython")
        from memray._ipython.flamegraph import argument_parser

        theirs = options_of(argument_parser())
        assert set(ours) == set(theirs)
        assert {option: facts[1:] for option, facts in ours.items()} == {
            option: facts[1:] for option, facts in theirs.items()
        }


PROGRAM = "kept = [bytearray(1000) for _ in range(9)]"


@pytest.fixture(scope="module", params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def recorded(package: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the table of exits needs."""
    directory = tmp_path_factory.mktemp(package)
    for name, flags in {"all.bin": [], "aggregated.bin": ["--aggregate"]}.items():
        done = call(package, "run", "-q", *flags, "-o", name, "-c", PROGRAM, cwd=directory)
        assert done.returncode == 0, done.stderr
    (directory / "junk.bin").write_text("junk")
    (directory / "raises.py").write_text("open('nowhere')")
    return directory


@pytest.mark.parametrize("row", EXITS, ids=lambda row: row[1].strip("`"))
def test_exits(package: str, recorded: Path, tmp_path: Path, row: list[str]) -> None:
    _, command, theirs, ours = row
    expected = theirs if package == "memray" else ours
    code = -signal.Signals[expected] if expected.startswith("SIG") else int(expected)
    directory = tmp_path / "copy"
    shutil.copytree(recorded, directory)
    done = call(package, *shlex.split(command.strip("`")), cwd=directory)
    assert done.returncode == code, done.stderr
    # Who fails says why: the program itself, or the one that runs it.
    silent = ("os._exit(3)", "sys.exit(7)", "9)", "15)", "os.abort()")
    if code != 0 and not any(word in command for word in silent):
        assert done.stderr
