"""docs/memray-compatibility.md is true of pytest-memray: of our plugin, and of pytest-memray's where that is there."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compatibility import rows
from heaptide import FileReader
from heaptide.pytest_plugin import _options, _plugin

SHIM = Path(__file__).parents[1] / "memray_shim"

# What the names of pytest-memray's plugin are, for a process that may import it.
THEIRS = """
import inspect, json
import pytest_memray.marks, pytest_memray.plugin

class Parser:
    def __init__(self): self.options, self.settings = [], []
    def getgroup(self, *words): return self
    def addoption(self, *names, **facts): self.options += names
    def addini(self, name, *words, **facts): self.settings.append(name)

parser = Parser()
pytest_memray.plugin.pytest_addoption(parser)
markers = {
    name: [it for it in inspect.signature(function).parameters if not it.startswith("_")]
    for name, function in pytest_memray.plugin.MARKERS.items()
}
print(json.dumps([parser.options, parser.settings, markers]))
"""


def listed(section: str) -> set[str]:
    return {row.name for row in rows(section)}


def theirs() -> Any:
    if importlib.util.find_spec("pytest_memray") is None:
        pytest.skip("pytest-memray is not installed")
    shim = [] if importlib.util.find_spec("memray") else [str(SHIM)]
    path = os.pathsep.join([*shim, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", THEIRS]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, text=True, capture_output=True, check=True)
    return json.loads(done.stdout)


class Parser:
    def __init__(self) -> None:
        self.options: set[str] = set()
        self.settings: set[str] = set()

    def getgroup(self, *words: str) -> Parser:
        return self

    def addoption(self, *names: str, **facts: Any) -> None:
        self.options |= set(names)

    def addini(self, name: str, *words: str, **facts: Any) -> None:
        self.settings.add(name)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Parser:
    """As where pytest-memray is not installed."""
    find_spec = importlib.util.find_spec

    def without(name: str, package: Any = None) -> Any:
        return None if name == "pytest_memray" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    parser = Parser()
    _options.add(parser)  # type: ignore[arg-type]
    return parser


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_our_plugin_has_what_is_listed(ours: Parser) -> None:
    # Also what is missing is taken, and refused with a reason.
    assert listed("Options") <= ours.options
    assert listed("Settings") <= ours.settings
    markers = {f"{name}({it})" for name, of in _plugin._LIMITS.items() for it in parameters(of)}
    assert markers == listed("Markers")


def test_pytest_memray_has_nothing_else() -> None:
    options, settings, markers = theirs()
    assert set(options) == listed("Options")
    assert set(settings) == listed("Settings")
    assert {f"{name}({it})" for name, arguments in markers.items() for it in arguments} == listed("Markers")


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Runs the tests of the directory with our plugin."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    # Of the session around this one.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(ini: str, *arguments: str) -> pytest.RunResult:
        pytester.makeini(f"[pytest]\n{ini}\n")
        return pytester.runpytest_subprocess("-p", "heaptide.pytest_plugin", *arguments)

    return run


# With the names that are pytest-memray's own where it is installed.
needs_their_names = pytest.mark.skipif(
    importlib.util.find_spec("pytest_memray") is not None, reason="pytest-memray is installed"
)


@needs_their_names
@pytest.mark.parametrize(("arguments", "ini"), [(["--native"], ""), ([], "native = true")])
def test_native_stacks_are_asked_for(
    pytester: pytest.Pytester, session: Callable[..., pytest.RunResult], arguments: list[str], ini: str
) -> None:
    pytester.makepyfile(test_some="def test_it():\n    bytearray(1_000_000)")
    done = session(ini, "--memray", "--memray-bin-path=kept", *arguments)
    done.assert_outcomes(passed=1)
    (capture,) = (pytester.path / "kept").iterdir()
    assert FileReader(capture).metadata.has_native_traces


LIMITED = """
import pytest

def one(): return bytearray(1_000_000)
def two(): return bytearray(1_000_000)
def three(): return bytearray(1_000_000)

@pytest.mark.limit_memory("1 MB")
def test_large():
    held = [one(), two(), three()]
"""


@pytest.mark.parametrize("setting", ["heaptide_verbosity", pytest.param("verbosity_memray", marks=needs_their_names)])
@pytest.mark.parametrize(
    ("verbosity", "flags", "named"),
    [("auto", [], 2), ("auto", ["-q"], 0), ("auto", ["-vv"], 3), ("-1", ["-vv"], 0), ("0", ["-vv"], 2), ("2", [], 3)],
)
def test_verbosity(
    pytester: pytest.Pytester,
    session: Callable[..., pytest.RunResult],
    setting: str,
    verbosity: str,
    flags: list[str],
    named: int,
) -> None:
    pytester.makepyfile(test_some=LIMITED)
    ini = f"{setting} = {verbosity}\nheaptide_hide_summary = true"
    output = session(ini, "--heaptide", "--heaptide-most-allocations=2", *flags).stdout.str()
    assert "Held at the peak, 2.9MiB in all" in output
    assert len(set(re.findall(r"\b(one|two|three)  \S+:\d+", output))) == named


def test_no_verbosity(session: Callable[..., pytest.RunResult]) -> None:
    done = session("heaptide_verbosity = much", "--heaptide")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "heaptide_verbosity: 'much' is neither a number nor auto" in done.stderr.str()
