"""The option that names the journal's directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from ess_can.journal.place import VARIABLE, default_directory

P = ParamSpec("P")
R = TypeVar("R")


def journal_option(command: Callable[P, R]) -> Callable[P, R]:
    """``--journal``, the parameter `journal`: None unless named, see `journal_directory`."""
    option = click.option(
        "--journal",
        type=click.Path(path_type=Path, file_okay=False),
        envvar=VARIABLE,
        show_envvar=True,
        metavar="DIR",
        help="Directory of the journal; the user's or the service's own for state unless given.",
    )
    return option(command)


def journal_directory(named: Path | None) -> Path:
    """The directory that was named, else that of this user or service.  Raises JournalUnwritable if there is none."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return default_directory(os.environ, root=root) if named is None else named
