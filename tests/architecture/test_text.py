"""What must not be in any file of the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.modules import ROOT

_SUFFIXES = {".py", ".md", ".toml", ".dbc", ".c", ".h", ".ld", ".s", ".txt", ".yml", ".yaml", ".cfg", ""}
_LEFT_OUT = {"build", "dist"}
_HOMES = re.compile("/" + "(home|root|Users|work)/|[A-Z]:\\\\" + "Users")
_OPEN_ENDS = re.compile(r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")


def text_files() -> list[Path]:
    """Every text file, but for hidden folders other than .ci, caches and builds."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".gitignore") for part in parts)
        if hidden or _LEFT_OUT & set(parts) or any(part == "__pycache__" for part in parts) or not path.is_file():
            continue
        if path.suffix in _SUFFIXES:
            found.append(path)
    return found


FILES = text_files()


def test_the_files_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"pyproject.toml", "Makefile", "README.md", "ess_can/errors.py", "dbc/ess.dbc"} <= names


@pytest.mark.parametrize("pattern", [_HOMES, _OPEN_ENDS], ids=["paths of a machine", "open ends"])
def test_no_file_has(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found
