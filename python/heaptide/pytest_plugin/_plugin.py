"""The hooks of a session that tracks its tests."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Callable, Optional

import pytest

from heaptide import FileReader
from heaptide.pytest_plugin import _amounts
from heaptide.pytest_plugin._baseline import Baseline, BaselineError
from heaptide.pytest_plugin._limits import Finding, Limit, LimitLeakedObjects, LimitLeaks, LimitMemory, Shown
from heaptide.pytest_plugin._measure import CLASSES, Captures, Measured, measure, tracked
from heaptide.pytest_plugin._options import Options

__all__ = ["MARKERS", "Plugin", "limits_of"]

MARKERS = {
    "limit_memory": (
        "limit_memory(limit, *, current_thread_only=False): fail if the test holds `limit` "
        "('24 MB') or more at its peak"
    ),
    "limit_leaks": (
        "limit_leaks(location_limit, *, filter_fn=None, current_thread_only=False): fail if a stack leaves "
        "`location_limit` or more behind"
    ),
    "limit_leaked_objects": (
        "limit_leaked_objects(*, filter_fn=None): fail if an object that the test makes is alive after it "
        "(Python 3.13.3 or later)"
    ),
    "heaptide_off": "heaptide_off: do not track this test (it uses a Tracker itself)",
}
_LIMITS: dict[str, Callable[..., Limit]] = {
    "limit_memory": LimitMemory.of,
    "limit_leaks": LimitLeaks.of,
    "limit_leaked_objects": LimitLeakedObjects.of,
}
_CACHE = "heaptide/peaks"
_BARS = " ▁▂▃▄▅▆▇█"


def limits_of(item: pytest.Item) -> list[Limit]:
    """What the markers of a test demand.

    Raises:
        pytest.UsageError: When a marker has other arguments than it takes.
    """
    limits: list[Limit] = []
    for name, of in _LIMITS.items():
        marker = item.get_closest_marker(name)
        if marker is not None:
            try:
                limits.append(of(*marker.args, **marker.kwargs))
            except (TypeError, ValueError) as error:
                raise pytest.UsageError(f"{item.nodeid}: marker {name}: {error}") from None
    return limits


class Plugin:
    """A session in which tests are tracked; also the controller of one, whose workers track them."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self._options = options
        self._worker = hasattr(config, "workerinput")
        self._captures = Captures(options.bin_path, options.bin_prefix)
        self._tests: dict[str, Measured] = {}
        self._passed: set[str] = set()
        self._survivors: dict[str, list[object]] = {}
        self._baseline: Optional[Baseline] = None
        if options.baseline is not None:
            try:
                self._baseline = Baseline.read(
                    options.baseline, options.tolerance, may_be_missing=options.baseline_update
                )
            except BaselineError as error:
                raise pytest.UsageError(f"--heaptide-baseline: {error}") from None
        # There is none with `-p no:cacheprovider`.
        self._cache: Optional[pytest.Cache] = getattr(config, "cache", None)
        self._last_run: dict[str, int] = self._cache.get(_CACHE, {}) if self._cache else {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Wrong markers are told before any test runs."""
        for item in items:
            limits_of(item)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Tracks the test's function or method, and nothing of its fixtures. (Doctests have none.)"""
        if not isinstance(item, pytest.Function) or item.get_closest_marker("heaptide_off"):
            yield
            return
        function = item.obj
        limits = limits_of(item)
        native_traces = any(limit.native_traces for limit in limits)
        python_allocators = any(limit.trace_python_allocators for limit in limits)
        if any(limit.track_objects for limit in limits):
            self._survivors[item.nodeid] = []
        item.obj = tracked(
            function,
            self._captures.path(item.nodeid),
            native_traces=native_traces or self._options.native,
            python_allocators=python_allocators or self._options.trace_python_allocators,
            survivors=self._survivors.get(item.nodeid),
        )
        yield
        item.obj = function

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
        """Adds to the report of a test what it held, and has it fail where that is too much."""
        outcome = yield
        path = self._captures.path(item.nodeid)
        # Not kept: they are the test's, and so is what they hold.
        survivors = self._survivors.pop(item.nodeid, []) if call.when == "call" else []
        if call.when != "call" or not path.exists():
            return
        report = outcome.get_result()
        with FileReader(path) as reader:
            most, depth, native = self._options.most_allocations, self._options.stacks, self._options.native
            measured = measure(item.nodeid, reader, most, depth, native=native)
            report.heaptide = measured.as_plain()
            findings = (
                self._findings(item, measured, reader, survivors)
                if report.passed and not hasattr(report, "wasxfail")
                else []
            )
        self._captures.used(path)
        if findings:
            report.outcome = "failed"
            report.heaptide_problem = True
            report.longrepr = "\n".join(finding.message for finding in findings)
            report.sections += [(finding.section, finding.details) for finding in findings]

    def _findings(
        self, item: pytest.Item, measured: Measured, reader: FileReader, survivors: list[object]
    ) -> list[Finding]:
        options = self._options
        shown = Shown(options.most_allocations, options.stacks, options.verbosity, options.native)
        checks = [limit.check(reader, survivors, shown) for limit in limits_of(item)]
        stacks = measured.stacks_text(options.stacks)
        if self._baseline is not None and not self._options.baseline_update:
            checks.append(self._baseline.check(item.nodeid, measured.peak, stacks))
        before = self._last_run.get(item.nodeid)
        if self._options.fail_on_increase and before is not None and measured.peak > before:
            checks.append(
                Finding(
                    "heaptide-increase",
                    f"the test held {_amounts.text(measured.peak)} at its peak, "
                    f"and {_amounts.text(before)} in the last run",
                    f"Held at the peak:\n{stacks}",
                )
            )
        return [finding for finding in checks if finding is not None]

    def pytest_report_teststatus(self, report: pytest.TestReport) -> Optional[tuple[str, str, str]]:
        """A letter of its own for a test that failed for its memory only."""
        if report.failed and getattr(report, "heaptide_problem", False):
            return "failed", "M", "MEMORY PROBLEMS"
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gathers, also from workers."""
        plain = getattr(report, "heaptide", None)
        if plain is not None:
            self._tests[report.nodeid] = Measured(**plain)
            if report.passed:
                self._passed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Keeps what was measured for the next run."""
        self._captures.close()
        if self._worker:
            return
        peaks = {test: self._tests[test].peak for test in self._passed}
        if self._cache:
            self._cache.set(_CACHE, {**self._last_run, **peaks})
        if self._baseline is not None and self._options.baseline_update:
            self._baseline.write(peaks)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The tests that held most."""
        if self._options.hide_summary or not self._tests:
            return
        most = self._options.most_allocations
        tests = sorted(self._tests.values(), key=lambda test: test.peak, reverse=True)
        write = terminalreporter.write_line
        terminalreporter.write_sep("=", "HEAPTIDE REPORT")
        for test in tests[: most or None]:
            write(f"{test.test}:")
            write("")
            write(f"  at the peak {_amounts.text(test.peak)} in {test.count} blocks")
            largest = max(test.sizes, default=0)
            bars = [_BARS[-(-count * (len(_BARS) - 1) // largest)] if largest else " " for count in test.sizes]
            write("  sizes       " + "  ".join(f"{name} {bar}" for name, bar in zip(CLASSES, bars)))
            write("  held by")
            write(test.stacks_text(self._options.stacks))
            write("")
        left = len(tests) - len(tests[: most or None])
        if left:
            write(f"{left} tests more; --heaptide-most-allocations=0 shows all")
        if self._baseline is not None:
            missing = sorted(self._passed - self._baseline.peaks.keys())
            if self._options.baseline_update:
                write(f"Wrote {self._baseline.path}")
            elif missing:
                write(f"{len(missing)} tests are not in the baseline yet: {missing[0]}{', ...' if missing[1:] else ''}")
