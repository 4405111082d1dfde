from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ess_can.cli.journal_option import journal_directory, journal_option


@click.command()
@journal_option
def where(journal: Path | None) -> None:
    click.echo(repr(journal))


def test_named_on_the_command_line_or_by_the_environment(tmp_path: Path) -> None:
    for arguments, environment in ((["--journal", str(tmp_path)], {}), ([], {"ESS_CAN_JOURNAL": str(tmp_path)})):
        assert CliRunner().invoke(where, arguments, env=environment).stdout == f"{tmp_path!r}\n"
    assert CliRunner().invoke(where, [], env={"ESS_CAN_JOURNAL": None}).stdout == "None\n"


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert CliRunner().invoke(where, ["--journal", str(tmp_path / "file")]).exit_code == 2


@pytest.mark.parametrize(("user", "expected"), [(0, "/var/lib/ess-can"), (1000, "/somewhere/.local/state/ess-can")])
def test_unless_named_it_depends_on_the_user(monkeypatch: pytest.MonkeyPatch, user: int, expected: str) -> None:
    for name in ("ESS_CAN_JOURNAL", "STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert journal_directory(None) == Path(expected)
    assert journal_directory(Path("named")) == Path("named")
