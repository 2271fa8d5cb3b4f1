"""docs/memray-compatibility.md is true of names and arguments: in this package, and in Memray where it is there."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

from compatibility import PACKAGES, Row, rows

NAMES = rows("Names") + rows("Methods and properties")
ARGUMENTS = rows("Arguments")
ABSENT = object()

needs_memray = pytest.mark.skipif("memray" not in PACKAGES, reason="Memray is not installed")


def lookup(package: str, name: str) -> Any:
    """The value of a dotted name; modules on the way are imported."""
    value: Any = importlib.import_module(package)
    path = package
    for part in name.split("."):
        path += "." + part
        if inspect.ismodule(value) and not hasattr(value, part):
            if importlib.util.find_spec(path) is None:
                return ABSENT
            value = importlib.import_module(path)
        else:
            value = getattr(value, part, ABSENT)
        if value is ABSENT:
            return ABSENT
    return value


def test_the_tables_are_read() -> None:
    assert len(NAMES) > 60 and len(ARGUMENTS) > 15


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.name)
def test_names(row: Row) -> None:
    if row.there:
        assert lookup("heaptide", row.name) is not ABSENT
    if "memray" in PACKAGES:
        assert lookup("memray", row.name) is not ABSENT


@needs_memray
def test_no_public_name_is_left_out() -> None:
    import memray

    listed = {name for name, _ in NAMES}
    assert set(memray.__all__) - {"__version__"} <= listed
    for owner in ("FileReader", "AllocationRecord", "Tracker", "SocketReader"):
        members = {member for member in dir(getattr(memray, owner)) if not member.startswith("_")}
        assert {f"{owner}.{member}" for member in members} <= listed


@pytest.mark.parametrize("row", ARGUMENTS, ids=lambda row: row.name)
def test_arguments(row: Row) -> None:
    owner, argument = row.name.rstrip(")").split("(")
    # Also what is missing is taken, and refused with a reason: other tests see to that.
    assert argument in inspect.signature(lookup("heaptide", owner)).parameters


@needs_memray
def test_memray_has_no_other_arguments(tmp_path: Path) -> None:
    import memray

    arguments: dict[str, dict[str, Any]] = {}
    for name, _ in ARGUMENTS:
        owner, argument = name.rstrip(")").split("(")
        arguments.setdefault(owner, {})[argument] = None
    # Cython's classes have no signatures: an unknown keyword is a TypeError that names it.
    for owner in ("Tracker", "FileReader"):
        for argument in arguments[owner]:
            with pytest.raises(Exception) as raised:
                getattr(memray, owner)(no_such_argument=1, **{argument: None})
            assert f"'{argument}'" not in str(raised.value) or "unexpected" not in str(raised.value)
    for owner in sorted(arguments.keys() - {"Tracker", "FileReader", "SocketReader"}):
        theirs = set(inspect.signature(lookup("memray", owner)).parameters) - {"self", "kwargs"}
        assert set(arguments[owner]) == theirs, owner


@needs_memray
@pytest.mark.parametrize("name", ["AllocatorType", "FileFormat", "PythonAllocatorType", "ObjectTrackingEvent"])
def test_enumerations_have_the_same_numbers(name: str) -> None:
    ours, theirs = lookup("heaptide", f"_memray.{name}"), lookup("memray", f"_memray.{name}")
    assert {each.name: each.value for each in ours} == {each.name: each.value for each in theirs}


def test_what_is_there_for_greenlets_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    from heaptide import _memray

    assert _memray.print_greenlet_warning() is None  # type: ignore[func-returns-value]
    assert _memray.greenlet_trace_function("switch", (None, None)) is None  # type: ignore[func-returns-value]
    assert capfd.readouterr() == ("", "")


@needs_memray
def test_names_of_native_functions_are_there_or_not() -> None:
    from memray import _memray as theirs

    from heaptide import _memray as ours

    assert ours.get_symbolic_support().value == theirs.get_symbolic_support().value
    assert {each.name: each.value for each in ours.SymbolicSupport} == {
        each.name: each.value for each in theirs.SymbolicSupport
    }
