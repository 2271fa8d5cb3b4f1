"""What a program writes to standard streams that it has closed goes nowhere, and not into what we have open."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from heaptide import FileReader

PROGRAM = """
import os, sys
from heaptide import FileDestination, SocketDestination, Tracker

errors = os.dup(2)
streams = [int(number) for number in sys.argv[1]]
for number in streams:
    os.close(number)
destination = eval(sys.argv[2])
opened = []
with Tracker(destination=destination) as tracker:
    kept = [bytearray(100_000) for _ in range(10)]
    for number in streams:
        try:
            os.write(number, b"finished" * 1000)
        except OSError:
            continue
        opened.append((number, os.readlink(f"/proc/self/fd/{number}")))
    kept += [bytearray(100_000) for _ in range(50)]
if opened:
    os.write(errors, repr(opened).encode())
    os._exit(1)
"""

NAMES = ["012", "01", "1", "2"]
FILES = ["FileDestination('x.tide')", "FileDestination('x.tide', buffered=True)"]


@pytest.mark.parametrize("streams", NAMES)
@pytest.mark.parametrize("destination", FILES)
def test_nothing_of_a_capture_has_the_number_of_a_standard_stream(
    tmp_path: Path, streams: str, destination: str
) -> None:
    command = [sys.executable, "-c", PROGRAM, streams, destination]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    metadata = FileReader(tmp_path / "x.tide").metadata
    assert 6_000_000 < metadata.peak_memory < 10_000_000


def test_no_socket_has_the_number_of_a_standard_stream(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    destination = f"SocketDestination(server_port={port}, address='127.0.0.1')"
    command = [sys.executable, "-c", PROGRAM, "012", destination]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as program:
        reader = None
        while reader is None and program.poll() is None:
            try:
                reader = socket.create_connection(("127.0.0.1", port), timeout=60)
            except ConnectionRefusedError:
                continue
        assert reader is not None
        with reader:
            _, errors = program.communicate(timeout=120)
    assert (program.returncode, errors) == (0, b"")
