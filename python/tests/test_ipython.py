"""The cell magics, in a shell of IPython without a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("IPython")

SHELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "heaptide")
def cell(line, text, name="heaptide_flamegraph"):
    shell.run_cell("%%" + name + " " + line + "\\n" + text)
"""


@pytest.mark.parametrize("name", ["heaptide_flamegraph", "memray_flamegraph"])
@pytest.mark.parametrize(
    "line",
    [
        "",
        "--leaks --split-threads --inverted --native",
        "--temporal --max-memory-records 10 --trace-python-allocators",
        "--temporary-allocations",
        "--temporary-allocation-threshold 3",
    ],
)
def test_a_cell_gets_a_page(in_process: Callable[[str], str], tmp_path: Path, name: str, line: str) -> None:
    text = (
        "def some_function(): return bytearray(1_000_000)\nkept = some_function()\nfor _ in range(9): bytearray(9999)"
    )
    printed = in_process(SHELL + f"cell({line!r}, {text!r}, {name!r})\nprint(len(shell.user_ns['kept']))")
    assert "Results saved to heaptide-results/" in printed and "1000000" in printed
    (page,) = tmp_path.glob("heaptide-results/*/flamegraph.html")
    assert "<html" in page.read_text()[:200].lower()
    assert [path.name for path in page.parent.iterdir()] == ["flamegraph.html"]


def test_options_that_make_no_sense(in_process: Callable[[str], str], tmp_path: Path) -> None:
    printed = in_process(
        SHELL
        + """
for line in ("--temporal --temporary-allocations", "--leaks --temporary-allocations", "--no-such"):
    try:
        shell.run_cell_magic("heaptide_flamegraph", line, "pass")
    except Exception as error:
        print(type(error).__name__, error)
shell.run_cell_magic("heaptide_flamegraph", "--help", "pass")
"""
    )
    lines = printed.splitlines()
    assert lines[0] == "UsageError Can't create a temporal flame graph of temporary allocations"
    assert [line.split()[0] for line in lines[:3]] == ["UsageError"] * 3
    assert "usage: %%heaptide_flamegraph" in printed
    assert not (tmp_path / "heaptide-results").exists()
