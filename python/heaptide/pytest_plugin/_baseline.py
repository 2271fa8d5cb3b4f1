"""A baseline: what each test held at its peak, in a file that is committed beside the tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from heaptide.pytest_plugin._amounts import Tolerance, text
from heaptide.pytest_plugin._limits import Finding

__all__ = ["Baseline", "BaselineError"]

_FORM = 1


class BaselineError(Exception):
    """The file is no baseline."""


@dataclass
class Baseline:
    """Peaks by test."""

    path: Path
    tolerance: Tolerance
    peaks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, tolerance: Tolerance, *, may_be_missing: bool) -> Baseline:
        """Reads the file.

        Raises:
            BaselineError: When it is not there or is none.
        """
        baseline = cls(path, tolerance)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if may_be_missing:
                return baseline
            raise BaselineError(f"{path} is not there; --heaptide-baseline-update makes it") from None
        except (OSError, ValueError) as error:
            raise BaselineError(f"{path} cannot be read: {error}") from None
        tests = (
            content.get("tests") if isinstance(content, dict) and content.get("heaptide_baseline") == _FORM else None
        )
        if not isinstance(tests, dict):
            raise BaselineError(f"{path} is no baseline of this version of heaptide")
        for test, figures in tests.items():
            peak = figures.get("peak_bytes") if isinstance(figures, dict) else None
            if not isinstance(peak, int) or peak < 0:
                raise BaselineError(f"{path} has no peak_bytes for {test}")
            baseline.peaks[test] = peak
        return baseline

    def write(self, peaks: dict[str, int]) -> None:
        """Writes the file with what was measured now; tests that did not run keep what they have."""
        self.peaks.update(peaks)
        tests = {test: {"peak_bytes": peak} for test, peak in sorted(self.peaks.items())}
        content = json.dumps({"heaptide_baseline": _FORM, "tests": tests}, indent=1, ensure_ascii=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(content + "\n", encoding="utf-8")

    def check(self, test: str, peak: int, stacks: str) -> Optional[Finding]:
        """What is wrong with a test, if anything."""
        before = self.peaks.get(test)
        if before is None or peak <= self.tolerance.limit(before):
            return None
        growth = f"{peak / before - 1:+.1%}" if before else "from nothing"
        return Finding(
            "heaptide-baseline",
            f"the test held {text(peak)} at its peak, {text(before)} in {self.path.name} ({growth})",
            f"Held at the peak, {text(peak)} in all:\n{stacks}",
        )
