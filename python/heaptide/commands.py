"""The command line as a function, for programs that call Memray's: ``from memray.commands import main``."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any, Optional

from heaptide import _program

__all__ = ["main"]


def main(args: Optional[list[str]] = None) -> int:
    """Runs the ``heaptide`` program and waits for it. It has this process's standard streams; what Python has put in
    the place of stdout and stderr gets what is written there.

    Args:
        args: What comes after the program's name; those of this process where none are given.

    Returns:
        0, or 1 where a command failed and has said why on stderr, or the program of ``run`` raised.

    Raises:
        SystemExit: As Memray, with 0 when help or the version was asked for, and with any other exit code: 2 for wrong
            usage, that of the program of ``run``; 128 and the number of the signal that ended it.
        KeyboardInterrupt: When Ctrl-C has ended it.

    Memray runs the program of ``run`` in this process; here it has one of its own.
    """
    try:
        program = _program.find()
    except FileNotFoundError as error:
        print(f"heaptide: error: {error}", file=sys.stderr)
        return 1
    arguments = sys.argv[1:] if args is None else args
    command = ["heaptide", *arguments]
    with contextlib.ExitStack() as streams:
        stdout, stderr = (_destination(stream) for stream in (sys.stdout, sys.stderr))
        child = subprocess.Popen(
            command, executable=program, env=_program.environment(), stdout=stdout, stderr=stderr, close_fds=True
        )
        for pipe, stream in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
            if pipe is not None:
                streams.enter_context(_relayed(pipe, stream))
        code = _wait(child)
    if code in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0:
        raise SystemExit(128 - code)
    if code > 1 or (code == 0 and _is_answered(program, arguments)):
        raise SystemExit(code)
    return code


def _is_answered(program: str, arguments: list[str]) -> bool:
    """Whether the arguments ask for help or the version. Only the program can tell which of them are those of a
    program that it runs."""
    command = ["heaptide", "--is-answered", *arguments]
    return subprocess.call(command, executable=program, stdin=subprocess.DEVNULL) == 0


def _wait(child: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The child has got Ctrl-C, too, and says when it ends: it may have something to finish.
            continue


def _destination(stream: Any) -> Optional[int]:
    """What a child gets in the place of a stream: its descriptor, or a pipe where it has none."""
    if stream is None:
        return subprocess.DEVNULL
    try:
        stream.flush()
        descriptor: int = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.PIPE
    return descriptor


@contextlib.contextmanager
def _relayed(pipe: IO[bytes], stream: Any) -> Iterator[None]:
    """Writes what comes out of the pipe to the stream, until its end."""

    def relay() -> None:
        with pipe:
            for line in pipe:
                stream.write(line.decode(errors="replace"))

    thread = threading.Thread(target=relay, name="heaptide-relay")
    thread.start()
    try:
        yield
    finally:
        thread.join()
