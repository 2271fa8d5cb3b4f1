"""Builds wheels: maturin, with the ``heaptide`` program built first and put among the wheel's scripts.

Maturin builds one artefact of one crate. The program is another crate's, so it is built here, by the same cargo into
the same target directory: what both are made of is compiled once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Optional

import maturin
from maturin import (
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PROJECT = Path(__file__).resolve().parents[2]
# Named in pyproject.toml, which knows no variables.
SCRIPTS = PROJECT / "target" / "wheel-data" / "scripts"

Settings = Optional[dict[str, Any]]


def build_program() -> None:
    """Builds ``heaptide`` and puts it where maturin looks for scripts."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "build", "--release", "--locked", "--package", "heaptide-cli", "--bin", "heaptide"]
    messages = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"],
        cwd=PROJECT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    programs = [
        message["executable"] for message in map(json.loads, messages.splitlines()) if message.get("executable")
    ]
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    shutil.copy2(programs[-1], SCRIPTS / "heaptide")


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """PEP 517."""
    # Maturin wants the directory of scripts to be there, whatever it does.
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    return str(maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings))


# PEP 660: it is the same.
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: Optional[str] = None
) -> str:
    """PEP 517."""
    build_program()
    return str(maturin.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: Optional[str] = None
) -> str:
    """PEP 660."""
    build_program()
    return str(maturin.build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """PEP 517."""
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    return str(maturin.build_sdist(sdist_directory, config_settings))
