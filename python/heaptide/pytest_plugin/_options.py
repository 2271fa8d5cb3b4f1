"""Options on the command line and in configuration files, under our names and those of pytest-memray."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

from heaptide.pytest_plugin._amounts import Tolerance

__all__ = ["Options", "add"]


_FLAG: dict[str, Any] = {"action": "store_true", "default": None}

# Name of the option, that of pytest-memray, and what argparse wants to know.
_OPTIONS: list[tuple[str, Optional[str], dict[str, Any]]] = [
    ("--heaptide", "--memray", {**_FLAG, "help": "Track each test, and hold it to its limits"}),
    ("--heaptide-bin-path", "--memray-bin-path", {"metavar": "DIR", "help": "Keep the captures of the tests in DIR"}),
    (
        "--heaptide-bin-prefix",
        "--memray-bin-prefix",
        {"metavar": "TEXT", "help": "Begin the names of captures with TEXT"},
    ),
    (
        "--heaptide-hide-summary",
        "--hide-memray-summary",
        {**_FLAG, "help": "No report of the tests that hold most"},
    ),
    (
        "--heaptide-most-allocations",
        "--most-allocations",
        {"metavar": "N", "help": "Name the N tests, and in each the N stacks, that have most (5; 0 for all)"},
    ),
    ("--heaptide-stacks", "--stacks", {"metavar": "N", "help": "Show N frames of each stack (1)"}),
    ("--heaptide-native", "--native", {**_FLAG, "help": "Record native stacks, too, and show their frames"}),
    (
        "--heaptide-trace-python-allocators",
        "--trace-python-allocators",
        {**_FLAG, "help": "Record every request to Python's own allocators"},
    ),
    (
        "--heaptide-fail-on-increase",
        "--fail-on-increase",
        {**_FLAG, "help": "A test that holds more at its peak than in the last run fails"},
    ),
    (
        "--heaptide-baseline",
        None,
        {"metavar": "FILE", "help": "A test that holds more than FILE says and --heaptide-tolerance allows fails"},
    ),
    ("--heaptide-baseline-update", None, {**_FLAG, "help": "Write what the tests hold now into the baseline"}),
    (
        "--heaptide-tolerance",
        None,
        {"metavar": "GROWTH", "help": "How far a test may grow beyond the baseline: 10%% (the default), or 5MB"},
    ),
]

# As the options; the second is pytest-memray's.
_SETTINGS: list[tuple[str, Optional[str], Optional[Literal["bool"]]]] = [
    ("heaptide", "memray", "bool"),
    ("heaptide_hide_summary", "hide_memray_summary", "bool"),
    ("heaptide_native", "native", "bool"),
    ("heaptide_trace_python_allocators", "trace_python_allocators", "bool"),
    ("heaptide_fail_on_increase", "fail-on-increase", "bool"),
    ("heaptide_stacks", "stacks", None),
    ("heaptide_most_allocations", "most_allocations", None),
    ("heaptide_verbosity", "verbosity_memray", None),
    ("heaptide_baseline", None, None),
    ("heaptide_tolerance", None, None),
]


# What is no option on the command line.
_SETTINGS_ALONE = {
    "heaptide_verbosity": "What limit_memory reports: below 0 no stacks, from 2 on all (auto: as pytest's -v, -q)"
}


def _destination(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def add(parser: pytest.Parser) -> None:
    """Adds the options. Where pytest-memray is installed its own names stay its own."""
    aliases = importlib.util.find_spec("pytest_memray") is None
    group = parser.getgroup("heaptide", "memory, by heaptide")
    for name, alias, settings in _OPTIONS:
        names = [name, alias] if aliases and alias else [name]
        group.addoption(*names, dest=_destination(name), **settings)
    for name, alias, kind in _SETTINGS:
        words = _SETTINGS_ALONE.get(name, f"as the option --{name.replace('_', '-')}")
        for known in [name, alias] if aliases and alias else [name]:
            parser.addini(known, words, type=kind)


class Options:
    """What was asked for: on the command line, else in the configuration."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.on = self._flag("heaptide")
        self.hide_summary = self._flag("heaptide_hide_summary")
        self.native = self._flag("heaptide_native")
        self.trace_python_allocators = self._flag("heaptide_trace_python_allocators")
        self.fail_on_increase = self._flag("heaptide_fail_on_increase")
        self.most_allocations = self._number("heaptide_most_allocations", 5, least=0)
        self.stacks = self._number("heaptide_stacks", 1, least=1)
        self.verbosity = self._verbosity()
        self.bin_prefix: Optional[str] = self._value("heaptide_bin_prefix")
        bin_path = self._value("heaptide_bin_path")
        self.bin_path = Path(bin_path) if bin_path else None
        baseline = self._value("heaptide_baseline")
        self.baseline = config.rootpath / baseline if baseline else None
        self.baseline_update = self._flag("heaptide_baseline_update")
        if self.baseline_update and self.baseline is None:
            raise pytest.UsageError("--heaptide-baseline-update needs --heaptide-baseline FILE")
        try:
            self.tolerance = Tolerance.parse(self._value("heaptide_tolerance") or "10%")
        except ValueError as error:
            raise pytest.UsageError(f"--heaptide-tolerance: {error}") from None

    def _value(self, name: str) -> Any:
        value = self._config.getoption(name, default=None)
        settings = [(ours, theirs) for ours, theirs, _ in _SETTINGS if ours == name]
        for setting in (key for pair in settings for key in pair if key):
            if value is None:
                # pytest-memray's own is not there to be asked for where that is installed.
                try:
                    value = self._config.getini(setting) or None
                except (KeyError, ValueError):
                    value = None
        return value

    def _flag(self, name: str) -> bool:
        return bool(self._value(name))

    def _verbosity(self) -> int:
        value = self._value("heaptide_verbosity")
        try:
            return int(self._config.option.verbose if value in (None, "auto") else value)
        except ValueError:
            raise pytest.UsageError(f"heaptide_verbosity: {value!r} is neither a number nor auto") from None

    def _number(self, name: str, default: int, *, least: int) -> int:
        value = self._value(name)
        try:
            number = default if value is None else int(value)
        except ValueError:
            number = least - 1
        if number < least:
            option = name.replace("_", "-")
            raise pytest.UsageError(f"--{option}: {value!r} is no number from {least} on")
        return number
