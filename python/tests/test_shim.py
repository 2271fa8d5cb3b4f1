"""`import memray` and `python -m memray`, where the shim takes Memray's place."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SEEN

SHIM = Path(__file__).parents[1] / "memray_shim"

pytestmark = [
    pytest.mark.skipif(not SHIM.is_dir(), reason="the shim is not here"),
    pytest.mark.skipif(importlib.util.find_spec("memray") is not None, reason="Memray is here itself"),
]

PROGRAM = """
import memray, memray._memray, heaptide
from memray._errors import MemrayError
from memray._stats import Stats
from memray import FileReader, Tracker
from memray.commands import main
from memray.reporters.flamegraph import FlameGraphReporter
from memray.reporters.table import TableReporter
assert all(hasattr(memray, name) for name in memray.__all__)
with Tracker("x.bin"):
    kept = bytearray(1_000_000)
stats = memray._memray.compute_statistics("x.bin")
assert isinstance(stats, Stats) and stats.peak_memory_allocated >= 1_000_000
assert issubclass(MemrayError, heaptide._errors.HeaptideError)
assert memray.commands is heaptide.commands
assert main(["flamegraph", "-o", "x.html", "x.bin"]) == 0
with FileReader("x.bin") as reader, open("y.html", "w") as page:
    FlameGraphReporter.from_snapshot(
        reader.get_leaked_allocation_records(), memory_records=(), native_traces=False
    ).render(page, reader.metadata, show_memory_leaks=True, merge_threads=True, inverted=False)
assert memray.reporters.flamegraph.FlameGraphReporter is heaptide.reporters.flamegraph.FlameGraphReporter
print(max(record.size for record in FileReader("x.bin").get_leaked_allocation_records()))
"""


def python(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SHIM), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=True).stdout


def test_programs_written_for_memray(tmp_path: Path) -> None:
    assert python("-c", PROGRAM, cwd=tmp_path) == "1000001\n"


def test_commands_written_for_memray(tmp_path: Path) -> None:
    python("-m", "memray", "run", "-q", *SEEN, "-o", "x.bin", "-c", "x = bytearray(1_000_000)", cwd=tmp_path)
    python("-m", "memray", "flamegraph", "-f", "-o", "x.html", "x.bin", cwd=tmp_path)
    assert (tmp_path / "x.html").stat().st_size > 10_000
    assert "1000001" in python("-m", "memray", "parse", "x.bin", cwd=tmp_path)


TESTS = """
import pytest

KEPT = []

@pytest.mark.limit_memory("24 MB")
def test_small(): bytearray(10_000_000)

@pytest.mark.limit_memory("24 MB")
def test_large(): bytearray(30_000_000)

@pytest.mark.limit_leaks("1 MB")
def test_tidy(): bytearray(3_000_000)

@pytest.mark.limit_leaks("1 MB")
def test_leaky(): KEPT.append(bytearray(3_000_000))
"""


@pytest.mark.skipif(importlib.util.find_spec("pytest_memray") is None, reason="pytest-memray is not here")
def test_pytest_memray_runs_on_heaptide(tmp_path: Path) -> None:
    (tmp_path / "test_memory.py").write_text(TESTS)
    path = os.pathsep.join([str(SHIM), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "--memray", "-q", "-p", "no:heaptide"]
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    environment.pop("PYTEST_DISABLE_PLUGIN_AUTOLOAD", None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "test_large - Test was limited to 24.0MiB but allocated 28.6MiB" in done.stdout
    assert "MEMORY PROBLEMS test_memory.py::test_leaky" in done.stdout
    assert "test_large:" in done.stdout and "Biggest allocating functions" in done.stdout
