"""What is installed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import heaptide
from conftest import run
from heaptide import _heaptide, _program

PACKAGE = Path(heaptide.__file__).parent


def test_the_version_is_the_same_everywhere() -> None:
    assert heaptide.__version__ == metadata.version("heaptide")
    assert run("-m", "heaptide", "--version").stdout.split()[-1] == heaptide.__version__


def test_the_module_is_the_program() -> None:
    program = _program.find()
    direct = subprocess.run([program, "--help"], check=True, text=True, capture_output=True)
    assert run("-m", "heaptide", "--help").stdout == direct.stdout


def test_scripts_are_run_by_the_interpreter_that_was_asked(tmp_path: Path) -> None:
    done = run("-m", "heaptide", "run", "-q", "-o", tmp_path / "x.tide", "-c", "import sys; print(sys.executable)")
    assert os.path.realpath(done.stdout.strip()) == os.path.realpath(sys.executable)


def test_exit_codes_are_passed_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "heaptide",
        "run",
        "-q",
        "-o",
        str(tmp_path / "x.tide"),
        "-c",
        "raise SystemExit(7)",
    ]
    assert subprocess.run(command, check=False).returncode == 7


def test_nothing_is_needed_at_run_time() -> None:
    assert not metadata.requires("heaptide")
    assert (PACKAGE / "py.typed").is_file()


def test_everything_that_is_named_is_there() -> None:
    for name in ("heaptide", "heaptide._memray", "heaptide._stats", "heaptide._errors", "heaptide._version"):
        module = import_module(name)
        for public in module.__all__:
            assert hasattr(module, public), f"{name}.{public}"


def test_the_stub_is_true() -> None:
    stub = ast.parse((PACKAGE / "_heaptide.pyi").read_text())
    described = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    real = {name for name, value in vars(_heaptide).items() if isinstance(value, type)}
    assert set(described) == real
    for name, node in described.items():
        members = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        there = {member for member in vars(getattr(_heaptide, name)) if not member.startswith("__")}
        assert {member for member in members if not member.startswith("__")} == there, name


def test_everything_public_is_explained() -> None:
    for name in heaptide.__all__:
        value = getattr(heaptide, name)
        if name != "__version__":
            assert value.__doc__, name
