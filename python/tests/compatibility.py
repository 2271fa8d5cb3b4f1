"""The tables of docs/memray-compatibility.md."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(os.environ.get("HEAPTIDE_DOCS", Path(__file__).parents[2] / "docs"))
TEXT = (DOCS / "memray-compatibility.md").read_text()
PACKAGES = ["heaptide", "memray"] if importlib.util.find_spec("memray") else ["heaptide"]


class Row(NamedTuple):
    """A name, and whether it is there."""

    name: str
    state: str

    @property
    def there(self) -> bool:
        return self.state != "missing"


def cells(section: str) -> list[list[str]]:
    """The rows of the table of a section, without its head."""
    _, begin, rest = TEXT.partition(f"# {section}\n")
    assert begin, section
    text = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def rows(section: str) -> list[Row]:
    """As above; of a row with several names a row each, which all have the command of the first."""
    found = []
    for names, state, *_ in cells(section):
        assert state in ("same", "better", "missing"), names
        first, *others = re.findall(r"`([^`]+)`", names)
        command = first.rpartition(" ")[0]
        found += [Row(name, state) for name in [first, *(f"{command} {other}".strip() for other in others)]]
    assert len({row.name for row in found}) == len(found), section
    return found
