"""Every `ess-can` command that the documents tell people to type is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ess_can.cli.main import main

_ROOT = Path(__file__).parents[2]
_DOCUMENTS = [
    _ROOT / "README.md",
    *sorted((_ROOT / "docs").rglob("*.md")),
    *sorted((_ROOT / "docs").rglob("*.service")),
]
_COMMAND = re.compile(r"^(?: {4}|\t|\$ |ExecStart=)(?:\S*/)?ess-can (?P<arguments>(?:[^#\n\\]|\\\n)*)", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(_ROOT)), " ".join(found["arguments"].replace("\\\n", " ").split()))
        for path in _DOCUMENTS
        for found in _COMMAND.finditer(path.read_text("utf-8"))
    ]


def test_there_are_some() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize(("document", "arguments"), commands())
def test_it_parses(document: str, arguments: str) -> None:
    rest = [word for word in shlex.split(re.split(r" [|>&]", arguments)[0]) if word != "..."]
    command: click.Command = main
    # A command keeps the help option that it was first asked for: it has to be the usual one.
    context = click.Context(main, info_name="ess-can", help_option_names=["-h", "--help"])
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, f"{document}: no command {name}"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    if "--help" not in rest and "-h" not in rest and not isinstance(command, click.Group):
        command.make_context(context.info_name, rest, parent=context.parent)
