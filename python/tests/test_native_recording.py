"""Native stacks as we record them, beside those that Memray records of the same program."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from conftest import run
from heaptide import AllocatorType, FileReader
from native_program import COMPILER, Program, plain

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("memray") is None or COMPILER is None, reason="Memray and a C compiler are not both here"
)

Captures = dict[tuple[str, int], Path]


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    """By package and number of the format."""
    program = Program(tmp_path_factory.mktemp("recording"))
    return {
        (package, file_format): program.tracked(package, file_format)
        for package in ("memray", "heaptide")
        for file_format in (0, 1)
    }


def allocates(record: Any) -> bool:
    name = AllocatorType(record.allocator).name
    return "FREE" not in name and name != "MUNMAP"


def names(trace: Iterable[tuple[str, str, int]]) -> tuple[str, ...]:
    """The functions of a stack."""
    return tuple(plain(name) for name, _, _ in trace)


def is_compared(record: Any) -> bool:
    """Memray imports modules of its own, so that the program does not; its profile function makes frame objects; and it
    knows a thread's frames from when that has set the function. The state of a thread may outlive the wait for it."""
    python, native = ([frame[0] for frame in stack()] for stack in (record.stack_trace, record.native_stack_trace))
    left_out = {"_find_and_load", "_set_tstate_lock", "call_profile_func", "new_threadstate"}
    return bool(python) and not left_out & {*python, *native}


def sums(records: Iterable[Any]) -> dict[tuple[Any, ...], Counter[str]]:
    """By allocator, Python's places and the functions of all three stacks."""
    found: dict[tuple[Any, ...], Counter[str]] = {}
    for record in filter(is_compared, records):
        python = record.stack_trace()
        key = (
            AllocatorType(record.allocator).name,
            tuple((name, line) for name, _, line in python),
            names(record.native_stack_trace()),
            names(record.hybrid_stack_trace()),
        )
        found.setdefault(key, Counter()).update(bytes=record.size, count=record.n_allocations)
    return found


def expect_alike(captures: Captures, file_format: int, query: str, **options: Any) -> None:
    readers = [FileReader(captures[package, file_format]) for package in ("memray", "heaptide")]
    assert [reader.metadata.has_native_traces for reader in readers] == [True, True]
    assert readers[1].warnings == []
    theirs, ours = (sums(filter(allocates, getattr(reader, query)(**options))) for reader in readers)
    assert ours == theirs
    # Stacks of C, of Python in C in Python, and of threads
    assert len(ours) > 20
    told = [names for *_, names in ours]
    assert any("by_the_right" in names and names[-1] == "track" for names in told)
    assert any("called_back" in names and "call_back" in names[names.index("called_back") :] for names in told)
    assert any("work" in names and "start_thread" in names[names.index("work") :] for names in told)


def test_every_event_is_from_where_memray_says(captures: Captures) -> None:
    expect_alike(captures, 0, "get_allocation_records")


@pytest.mark.parametrize("file_format", [0, 1])
@pytest.mark.parametrize("query", ["get_high_watermark_allocation_records", "get_leaked_allocation_records"])
@pytest.mark.parametrize("merged", [False, True])
def test_sums_are_those_of_memrays_captures(captures: Captures, file_format: int, query: str, merged: bool) -> None:
    expect_alike(captures, file_format, query, merge_threads=merged)


def test_modes_agree(captures: Captures) -> None:
    for query in ("get_high_watermark_allocation_records", "get_leaked_allocation_records"):
        readers = [FileReader(captures["heaptide", file_format]) for file_format in (0, 1)]
        every_event, aggregated = (sums(getattr(reader, query)(merge_threads=False)) for reader in readers)
        assert every_event == aggregated and every_event


FAMILY = """
import ctypes, os, subprocess, sys
library = ctypes.CDLL(sys.argv[1])
library.any_way.argtypes = [ctypes.c_int, ctypes.c_size_t]

def allocate(size):
    library.any_way(1, size)

if len(sys.argv) == 2:
    allocate(100_000)
    subprocess.run([sys.executable, __file__, sys.argv[1], "started"], check=True)
    child = os.fork()
    if not child:
        allocate(300_000)
        os._exit(0)
    os.waitpid(child, 0)
else:
    allocate(200_000)
"""


@pytest.mark.parametrize("flags", [[], ["--aggregate"], ["--no-compress"], ["--buffered-file-io"]])
def test_followed_processes_have_native_stacks(tmp_path: Path, flags: list[str]) -> None:
    library = Program(tmp_path).library
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    capture = tmp_path / "family.tide"
    follow = "--follow-fork" if "--buffered-file-io" in flags else "--follow-children"
    run("-m", "heaptide", "run", "-q", "--native", follow, *flags, "-o", capture, script, library)
    found = []
    for path in tmp_path.glob("family.tide*"):
        reader = FileReader(path)
        assert reader.metadata.has_native_traces and reader.warnings == []
        for record in reader.get_leaked_allocation_records():
            hybrid = names(record.hybrid_stack_trace())
            if hybrid[:4] == ("inner", "outer", "by_the_right", "any_way"):
                found.append((record.size, record.n_allocations, "allocate" in hybrid, record.stack_trace()[0][0]))
    sizes = [100_001, 300_001] if follow == "--follow-fork" else [100_001, 200_001, 300_001]
    assert sorted(found) == [(size, 1, True, "allocate") for size in sizes]
