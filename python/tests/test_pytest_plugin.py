"""``pytest --heaptide``, in sessions of its own."""

import importlib.util
import json
import sys
import sysconfig

import pytest

from conftest import needs_gil
from heaptide import FileReader
from heaptide._memray import SymbolicSupport, get_symbolic_support

TESTS = """
import unittest
import pytest

kept = []


def test_small():
    bytearray(1000)


@pytest.mark.limit_memory("2 MB")
def test_too_much():
    held = bytearray(3_000_000)
    del held


@pytest.mark.limit_memory("24 MB")
def test_within():
    held = bytearray(3_000_000)
    del held


@pytest.mark.limit_leaks("10 KB")
def test_leaks():
    kept.append(bytearray(100_000))


def is_no_purpose(stack):
    return all(frame.function != "test_leaks_on_purpose" for frame in stack.frames)


@pytest.mark.limit_leaks("10 KB", filter_fn=is_no_purpose)
def test_leaks_on_purpose():
    kept.append(bytearray(100_000))


class TestMethods:
    @pytest.mark.parametrize("size", [100_000, 200_000])
    def test_method(self, size):
        held = bytearray(size)
        del held


class Case(unittest.TestCase):
    def test_case(self):
        held = bytearray(700_000)
        del held


@pytest.fixture
def large():
    return bytearray(50_000_000)


@pytest.mark.limit_memory("1 MB")
def test_fixtures_do_not_count(large):
    pass


def test_wrong():
    held = bytearray(5000)
    assert len(held) == 1


@pytest.mark.xfail
def test_expected_to_fail():
    assert False
"""


@pytest.fixture
def session(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    # Of the session around this one
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_some=TESTS)

    def run(*arguments, plugins=()):
        chosen = [word for name in ("heaptide.pytest_plugin", *plugins) for word in ("-p", name)]
        return pytester.runpytest_subprocess(*chosen, *arguments)

    run.pytester = pytester
    return run


def test_limits_hold(session):
    # From 3.15 on there is a header in front of a bytearray's bytes.
    result = session("--heaptide")
    result.assert_outcomes(passed=7, failed=3, xfailed=1)
    result.stdout.fnmatch_lines_random(
        [
            "the test held 2.9MiB at its peak, and its limit is 2.0MiB",
            "the test left 97.[78]KiB behind, in 1 place of 10.0KiB or more",
            "MEMORY PROBLEMS test_some.py::test_too_much*",
            "MEMORY PROBLEMS test_some.py::test_leaks*",
            "FAILED test_some.py::test_wrong*",
            "*heaptide-max-memory*",
            "*test_too_much  *test_some.py:13*",
            "*test_leaks  *test_some.py:25*",
        ]
    )
    assert "tracked" not in result.stdout.str().split("def test_wrong")[1].split("short test summary")[0]


@needs_gil
def test_the_report_is_of_the_tests_that_hold_most(session):
    result = session("--heaptide", "--heaptide-most-allocations=2")
    result.stdout.fnmatch_lines(
        [
            "*= HEAPTIDE REPORT =*",
            "test_some.py::test_*:",
            "  at the peak 2.9MiB in *",
            "test_some.py::test_*:",
            "  at the peak 2.9MiB in *",
            "9 tests more; *",
        ]
    )
    everything = session("--heaptide", "--heaptide-most-allocations=0").stdout.str()
    assert "test_some.py::Case::test_case:\n\n  at the peak 683.6KiB" in everything
    assert "HEAPTIDE REPORT" not in session("--heaptide", "--heaptide-hide-summary").stdout.str()


def test_nothing_happens_unasked(session):
    result = session("--strict-markers")
    result.assert_outcomes(passed=9, failed=1, xfailed=1)
    assert "HEAPTIDE" not in result.stdout.str()


def test_captures_can_be_kept(session):
    session("--heaptide", "--heaptide-bin-path=kept", "--heaptide-bin-prefix=run1")
    names = {path.name for path in (session.pytester.path / "kept").iterdir()}
    assert "run1-test_some.py-test_small.tide" in names
    assert "run1-test_some.py-TestMethods-test_method[100000].tide" in names


def test_a_baseline_holds(session):
    first = session("--heaptide", "--heaptide-baseline=memory.json", "--heaptide-baseline-update")
    first.assert_outcomes(passed=7, failed=3, xfailed=1)
    path = session.pytester.path / "memory.json"
    content = json.loads(path.read_text())
    assert 3_000_000 < content["tests"]["test_some.py::test_within"]["peak_bytes"] < 3_001_000
    assert "test_some.py::test_too_much" not in content["tests"]
    again = session("--heaptide", "--heaptide-baseline=memory.json")
    again.assert_outcomes(passed=7, failed=3, xfailed=1)

    content["tests"]["test_some.py::test_within"]["peak_bytes"] = 1_500_000
    del content["tests"]["test_some.py::test_small"]
    path.write_text(json.dumps(content))
    grown = session("--heaptide", "--heaptide-baseline=memory.json")
    grown.assert_outcomes(passed=6, failed=4, xfailed=1)
    grown.stdout.fnmatch_lines(
        [
            "the test held 2.9MiB at its peak, 1.4MiB in memory.json (+100.0%)",
            "1 tests are not in the baseline yet: *test_small",
        ]
    )
    for tolerance in ("35%", "1.6 MB"):
        allowed = session("--heaptide", "--heaptide-baseline=memory.json", f"--heaptide-tolerance={tolerance}")
        allowed.assert_outcomes(passed=7, failed=3, xfailed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heaptide-baseline=none.json"], "none.json is not there; --heaptide-baseline-update makes it"),
        (["--heaptide-baseline=test_some.py"], "test_some.py cannot be read"),
        (["--heaptide-baseline-update"], "--heaptide-baseline-update needs --heaptide-baseline FILE"),
        (["--heaptide-tolerance=much"], "'much' is no amount of memory"),
        (["--heaptide-tolerance=-3%"], "'-3%' is no share"),
        (["--heaptide-stacks=0"], "--heaptide-stacks: '0' is no number from 1 on"),
    ],
)
def test_wrong_options_are_said(session, arguments, message):
    result = session("--heaptide", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("limit_memory('many')", "test_it: marker limit_memory: 'many' is no amount of memory"),
        ("limit_memory()", "test_it: marker limit_memory: *"),
        ("limit_leaks('1 KB', filter=1)", "test_it: marker limit_leaks: *"),
        ("limit_leaked_objects('1 KB')", "test_it: marker limit_leaked_objects: *"),
        ("limit_leaked_objects(filter=1)", "test_it: marker limit_leaked_objects: *"),
    ],
)
def test_wrong_markers_are_said(session, marker, message):
    session.pytester.makepyfile(test_some=f"import pytest\n\n@pytest.mark.{marker}\ndef test_it():\n    pass\n")
    result = session("--heaptide")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}*"])


NATIVE = """
import pytest

kept = []


def test_held():
    held = bytearray(3_000_000)
    del held


def is_wanted(stack):
    print("\\nseen", *[frame.function for frame in stack.frames])
    return True


@pytest.mark.limit_leaks("1 MB", filter_fn=is_wanted)
def test_leaks():
    kept.append(bytearray(2_000_000))
"""


@pytest.mark.parametrize("native", [True, False])
def test_native_frames(session, native):
    if get_symbolic_support() is not SymbolicSupport.TOTAL:
        pytest.skip("the interpreter has no debug information")
    session.pytester.makepyfile(test_some=NATIVE)
    flags = ["--heaptide-native"] if native else []
    result = session("--heaptide", "--heaptide-stacks=100", "--heaptide-bin-path=kept", "-s", "-v", *flags)
    result.assert_outcomes(passed=1, failed=1)
    lines = result.outlines
    # Leaks are always told apart by their native frames, as in pytest-memray. Frames of what runs the test are none.
    (seen,) = {line for line in lines if line.startswith("seen")}
    resize = "_PyBytes_Resize" if sys.version_info >= (3, 15) else "PyByteArray_Resize"
    assert resize in seen.split() and seen.endswith(" test_leaks")
    readers = [FileReader(path) for path in sorted((session.pytester.path / "kept").iterdir())]
    assert [reader.metadata.has_native_traces for reader in readers] == [native, True]
    told = [line.split()[0] for line in lines if line.startswith("        ") and line.count(":") == 1]
    assert (resize in told) is native
    assert {"test_held", "test_leaks"} <= set(told)


@pytest.mark.skipif(sys.version_info >= (3, 13, 3), reason="the interpreter tells of all objects")
def test_objects_need_a_later_python(session):
    session.pytester.makepyfile(
        test_some="import pytest\n\n@pytest.mark.limit_leaked_objects\ndef test_it():\n    pass\n"
    )
    result = session("--heaptide")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = "*test_it: marker limit_leaked_objects: it requires Python 3.13.3 or later, and this is 3.*"
    result.stderr.fnmatch_lines([message])


LEAKED_OBJECTS = """
import pytest

class Node:
    def __init__(self, other=None):
        self.other = other or self

kept = []

@pytest.mark.limit_leaked_objects()
def test_nothing():
    # A cycle, too, is let go
    return_value = [Node(Node()) for _ in range(10)]
    "%d" % 123456

@pytest.mark.limit_leaked_objects()
def test_leaks():
    for _ in range(3):
        kept.append(Node(kept))
    kept.append("%d" % 123456)

@pytest.mark.limit_leaked_objects(filter_fn=lambda each: not isinstance(each, Node))
def test_allowed():
    kept[0] = Node(kept)

@pytest.mark.limit_leaked_objects
@pytest.mark.limit_memory("1 KB")
def test_both():
    kept[0] = [0] * 2000

@pytest.mark.limit_leaked_objects()
def test_fails():
    kept.append(Node(kept))
    assert False

def test_other():
    kept.append(Node(kept))
"""


@pytest.mark.skipif(
    sys.version_info < (3, 13, 3) or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the interpreter does not tell of all objects",
)
def test_objects_that_are_left_behind(session):
    session.pytester.makepyfile(test_some=LEAKED_OBJECTS)
    result = session("--heaptide", "--heaptide-stacks=2")
    result.assert_outcomes(passed=3, failed=3)
    output = result.stdout.str()
    assert "the test left 4 objects behind" in output
    assert "Alive when the test had ended, 4 objects in all:" in output
    result.stdout.fnmatch_lines(["    - 3 Node: <test_some.Node object at *>", "        test_leaks  *test_some.py:18"])
    result.stdout.fnmatch_lines(["    - 1 str: '123456'", "        test_leaks  *test_some.py:19"])
    result.stdout.fnmatch_lines(["the test held 15.6KiB at its peak*", "the test left 1 object behind"])
    assert output.count("heaptide-leaked-objects") == 2


def test_growth_since_the_last_run(session):
    session.pytester.makepyfile(test_some="def test_it():\n    bytearray(10_000)\n")
    for _ in range(2):
        session("--heaptide", "--heaptide-fail-on-increase", plugins=["cacheprovider"]).assert_outcomes(passed=1)
    session.pytester.makepyfile(test_some="def test_it():\n    bytearray(20_000)\n")
    result = session("--heaptide", "--heaptide-fail-on-increase", plugins=["cacheprovider"])
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the test held 19.[56]KiB at its peak, and 9.8KiB in the last run"])


@needs_gil
def test_settings(session):
    session.pytester.makeini("[pytest]\nheaptide = true\nheaptide_most_allocations = 1\nheaptide_stacks = 3\n")
    session.pytester.makepyfile(
        test_some=(
            "def inner():\n    return bytearray(90_000)\n\ndef test_it():\n    inner()\n\ndef test_other():\n    pass\n"
        )
    )
    result = session()
    result.stdout.fnmatch_lines(["    - 87.9KiB", "        inner  *:2", "        test_it  *:5", "* more; *"])


@pytest.mark.skipif(importlib.util.find_spec("pytest_memray") is not None, reason="its own options are its own")
def test_names_of_pytest_memray(session):
    session.pytester.makeini("[pytest]\nmost_allocations = 1\nhide_memray_summary = true\n")
    result = session("--memray", "--stacks=2", "--memray-bin-path=kept", "--memray-bin-prefix=")
    result.assert_outcomes(passed=7, failed=3, xfailed=1)
    assert "HEAPTIDE REPORT" not in result.stdout.str()
    assert (session.pytester.path / "kept" / "test_some.py-test_small.tide").exists()


def test_workers(session):
    pytest.importorskip("xdist")
    result = session("--heaptide", "-n2", "--heaptide-baseline=b.json", "--heaptide-baseline-update", plugins=["xdist"])
    result.assert_outcomes(passed=7, failed=3, xfailed=1)
    result.stdout.fnmatch_lines(["*HEAPTIDE REPORT*", "test_some.py::*", "  at the peak 2.9MiB in *"])
    content = json.loads((session.pytester.path / "b.json").read_text())
    assert len(content["tests"]) == 7
    assert session("--heaptide", "-n2", "--heaptide-baseline=b.json", plugins=["xdist"]).ret == 1


def test_limits_of_the_own_thread(session):
    session.pytester.makepyfile(
        test_some="""
import threading
import pytest

kept = []


def work():
    kept.append(bytearray(3_000_000))


def run():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.limit_memory("1 MB", current_thread_only=True)
@pytest.mark.limit_leaks("1 MB", current_thread_only=True)
def test_of_another():
    run()


@pytest.mark.limit_memory("1 MB", current_thread_only=True)
def test_own():
    work()


@pytest.mark.limit_memory("1 MB")
def test_all():
    run()


@pytest.mark.limit_leaks("1 MB")
def test_all_leaks():
    run()
"""
    )
    session("--heaptide").assert_outcomes(passed=1, failed=3)


def test_coroutines(session):
    pytest.importorskip("pytest_asyncio")
    session.pytester.makepyfile(
        test_some="""
import asyncio
import pytest

@pytest.mark.asyncio
@pytest.mark.limit_memory("1 MB")
async def test_it():
    held = bytearray(2_000_000)
    await asyncio.sleep(0)
    del held
"""
    )
    result = session("--heaptide", plugins=["pytest_asyncio.plugin"])
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_it  *test_some.py:7"])


def test_doctests_and_tests_that_track_themselves(session):
    session.pytester.makepyfile(
        test_some='''
import heaptide
import pytest

def double(x):
    """
    >>> double(2)
    4
    """
    return 2 * x

@pytest.mark.heaptide_off
def test_it(tmp_path):
    with heaptide.Tracker(tmp_path / "own.tide"):
        bytearray(1000)
'''
    )
    session("--heaptide", "--doctest-modules").assert_outcomes(passed=2)
