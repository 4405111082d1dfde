from __future__ import annotations

import pytest

from ess_can import __version__
from ess_can.cli.main import _COMMANDS
from tests.unit.cli.run import python, run

HEAVY = {"can", "cantools", "udsoncan", "cryptography", "rich", "bincopy"}


def test_help_names_every_command_and_the_exit_codes() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for text in (*_COMMANDS, "Exit codes", "docs/exit-codes.md", "_ESS_CAN_COMPLETE"):
        assert text in result.stdout


@pytest.mark.parametrize("name", list(_COMMANDS))
def test_every_command_has_help_and_says_what_the_list_says(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {name}" in result.stdout


@pytest.mark.parametrize(
    "name",
    [
        *("demo", "upgrade", "resume", "status", "history", "report", "monitor", "doctor", "inventory"),
        *("sim plant", "sim bms", "sim pcs"),
    ],
)
def test_every_command_has_json(name: str) -> None:
    assert "--json" in run(*name.split(), "-h").stdout


def test_version() -> None:
    assert run("-V").stdout == f"ess-can, version {__version__}\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("demo", "--racks", "0"), ("demo", "--nonsense"), ("upgrade",)])
def test_what_makes_no_sense_ends_with_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    "arguments", ["['--help']", "['upgrade', '--help']", "['sim', '--help']", "['demo', '--help']"]
)
def test_help_loads_nothing_heavy(arguments: str) -> None:
    code = (
        f"import sys; from ess_can.cli.main import main\ntry: main({arguments})\nexcept SystemExit: pass\n"
        "print(*sys.modules)"
    )
    done = python(["-c", code])
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "ess_can.cli.main" in loaded
    assert not HEAVY & loaded


def test_python_m() -> None:
    done = python(["-m", "ess_can", "--version"])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ess-can, version {__version__}\n", "")
