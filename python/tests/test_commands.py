"""`commands.main`, beside Memray's where that is installed."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from compatibility import PACKAGES
from heaptide import _program
from heaptide.commands import main

RUN = ["run", "-q", "-f", "-o", "new.bin"]

CALL = """
import sys
from {package}.commands import main
try:
    print("returned", main({arguments}))
except BaseException as error:
    print("raised", type(error).__name__, error)
"""


def outcome(package: str, arguments: str, cwd: Path, *own: str) -> str:
    """What a call of `main` comes to, as the last line of a process of its own."""
    command = [sys.executable, "-c", CALL.format(package=package, arguments=arguments), *own]
    # Not its exit code: a Python in which Memray's program was interrupted ends by SIGINT whatever comes after.
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*RUN, "-c", "pass"], "returned 0"),
        ([*RUN, "nowhere.py"], "returned 1"),
        ([*RUN, "-c", "raise SystemExit(7)"], "raised SystemExit 7"),
        ([*RUN, "-c", "raise SystemExit(2)"], "raised SystemExit 2"),
        ([*RUN, "-c", "raise KeyboardInterrupt"], "raised KeyboardInterrupt "),
        (["stats", "nowhere.bin"], "returned 1"),
        (["stats"], "raised SystemExit 2"),
        (["stats", "--nothing", "x"], "raised SystemExit 2"),
        (["nothing"], "raised SystemExit 2"),
        ([], "raised SystemExit 2"),
        (["--help"], "raised SystemExit 0"),
        (["--version"], "raised SystemExit 0"),
        (["-V"], "raised SystemExit 0"),
        (["stats", "-h"], "raised SystemExit 0"),
        (["run", "-o", "new.bin", "-q", "--help"], "raised SystemExit 0"),
        ([*RUN, "-c", "pass", "--help"], "returned 0"),
    ],
    ids=str,
)
def test_what_it_comes_to(package: str, arguments: list[str], expected: str, tmp_path: Path) -> None:
    assert outcome(package, str(arguments), tmp_path) == expected


@pytest.mark.parametrize("package", PACKAGES)
def test_without_arguments_it_takes_those_of_the_process(package: str, tmp_path: Path) -> None:
    assert outcome(package, "", tmp_path, *RUN, "-c", "pass") == "returned 0"
    assert (tmp_path / "new.bin").exists()
    assert outcome(package, "None", tmp_path, "nothing") == "raised SystemExit 2"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_report_is_made(package: str, tmp_path: Path) -> None:
    assert outcome(package, str([*RUN, "-c", "pass"]), tmp_path) == "returned 0"
    arguments = ["flamegraph", "-o", "new.html", "new.bin"]
    assert outcome(package, str(arguments), tmp_path) == "returned 0"
    assert outcome(package, str(arguments), tmp_path) == "returned 1"
    assert "<html" in (tmp_path / "new.html").read_text()[:200]


def test_a_program_that_is_killed(tmp_path: Path) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    assert outcome("heaptide", str([*RUN, "-c", code]), tmp_path) == "raised SystemExit 137"


def test_what_is_in_the_place_of_the_streams(capture: Path, tmp_path: Path) -> None:
    direct = subprocess.run([_program.find(), "stats", str(capture)], text=True, capture_output=True, check=True)
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        assert main(["stats", str(capture)]) == 0
    assert stdout.getvalue() == direct.stdout
    assert stderr.getvalue() == direct.stderr
    path = tmp_path / "stats.txt"
    with path.open("w") as file, contextlib.redirect_stdout(file):
        print("before")
        assert main(["stats", str(capture)]) == 0
        print("after")
    assert path.read_text() == f"before\n{direct.stdout}after\n"


def test_the_descriptors_where_there_is_nothing_else(capture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open(os.dup(1), "w") as stdout, contextlib.redirect_stdout(stdout):
        assert main(["summary", str(capture)]) == 0
    assert "grow_and_shrink" in capfd.readouterr().out


# It does not sleep: a signal that comes just before that would not wake it.
CAREFUL = """
try:
    print("ready", flush=True)
    while True:
        pass
finally:
    print("tidied up", flush=True)
"""


def test_ctrl_c_is_the_programs(tmp_path: Path) -> None:
    arguments = [*RUN, "-c", CAREFUL]
    command = [sys.executable, "-c", CALL.format(package="heaptide", arguments=arguments)]
    # A real terminal: what a process sends to all in the foreground is passed on to the program besides.
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        text=True,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(terminal)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.write(keyboard, b"\x03")
        output, errors = process.communicate()
    os.close(keyboard)
    assert output == "tidied up\nraised KeyboardInterrupt \n", errors
