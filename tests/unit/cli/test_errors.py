from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from ess_can.cli.errors import handle_errors, handle_upgrade_errors
from ess_can.errors import DispatchActive
from tests.unit.cli.run import REPORT_KEYS

Handle = Callable[[Callable[[bool], None]], Callable[[bool], None]]


def invoke(failure: BaseException, *arguments: str, handle: Handle = handle_errors) -> Result:
    @handle
    def body(as_json: bool) -> None:
        raise failure

    command = click.command()(click.option("--json", "as_json", is_flag=True)(body))
    return CliRunner().invoke(command, list(arguments))


def test_for_people() -> None:
    result = invoke(DispatchActive("no", why="busy"))
    assert (result.exit_code, result.stdout) == (42, "")
    assert result.stderr == f"error DISPATCH_ACTIVE: no: busy\nwhat to do: {DispatchActive.default_remedy}\n"


@pytest.mark.parametrize("handle", [handle_errors, handle_upgrade_errors])
def test_for_programs(handle: Handle) -> None:
    result = invoke(DispatchActive("no", why="busy"), "--json", handle=handle)
    told = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (42, "")
    assert (told["result"], told["exit_code"]) == ("error", 42)
    assert told["error"] == {
        "name": "DISPATCH_ACTIVE",
        "message": "no: busy",
        "why": "busy",
        "blame": "the plant",
        "remedy": DispatchActive.default_remedy,
    }
    assert set(told) == ({"result", "exit_code", "error"} if handle is handle_errors else REPORT_KEYS)


def test_ctrl_c() -> None:
    result = invoke(KeyboardInterrupt(), "--json")
    assert (result.exit_code, json.loads(result.stdout)["error"]["name"]) == (3, "INTERRUPTED")


def test_a_defect_of_ours_is_told_with_its_traceback() -> None:
    result = invoke(ZeroDivisionError("of mine"), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["message"] == "internal error: ZeroDivisionError: of mine"
    assert "Traceback" in result.stderr


def test_what_click_raises_is_clicks() -> None:
    assert invoke(click.exceptions.Exit(7)).exit_code == 7
    assert invoke(click.UsageError("wrong")).exit_code == 2
    assert invoke(click.exceptions.Abort()).exit_code == 1
