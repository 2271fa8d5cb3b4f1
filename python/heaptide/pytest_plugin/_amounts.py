"""Amounts of memory in words, and words as amounts."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Tolerance", "parse_bytes", "text"]

_UNITS = "BKMGTP"
_AMOUNT = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?P<unit>[KMGTP]?)B", re.IGNORECASE)


def parse_bytes(words: str) -> int:
    """Bytes in ``"24 MB"``, ``"1.5GB"``, ``"100 B"``. Units are multiples of 1024, as in pytest-memray.

    Raises:
        ValueError: For anything else.
    """
    match = _AMOUNT.fullmatch(words.strip())
    if match is None:
        raise ValueError(f"{words!r} is no amount of memory; write it like '24 MB', '1.5 GB' or '100 B'")
    unit = match["unit"].upper() or "B"
    return int(float(match["number"]) * 1024 ** _UNITS.index(unit))


def text(amount: float) -> str:
    """Bytes for people: ``1.5MiB``."""
    sign = "-" if amount < 0 else ""
    amount = abs(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{sign}{amount:.1f}{unit}" if unit != "B" else f"{sign}{amount:.0f}{unit}"
        amount /= 1024
    return f"{sign}{amount:.1f}TiB"


ARENA = 1 << 20
"""Bytes that Python maps at once for small objects (256 KiB before 3.10), in whichever test comes first."""


@dataclass(frozen=True)
class Tolerance:
    """How far something may grow: by an amount; or by a share and an `ARENA`, which says nothing of the test."""

    share: float = 0.0
    amount: int = 0

    @classmethod
    def parse(cls, words: str) -> Tolerance:
        """``"10%"`` or ``"5 MB"``.

        Raises:
            ValueError: For anything else.
        """
        stripped = words.strip()
        if stripped.endswith("%"):
            try:
                share = float(stripped[:-1]) / 100
            except ValueError:
                share = -1.0
            if not 0 <= share < float("inf"):
                raise ValueError(f"{words!r} is no share; write it like '10%'")
            return cls(share, ARENA)
        return cls(amount=parse_bytes(stripped))

    def limit(self, before: int) -> int:
        """The most that `before` may become."""
        return int(before * (1 + self.share)) + self.amount
