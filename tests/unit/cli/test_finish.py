from __future__ import annotations

import json

import click
import pytest

from ess_can.cli.finish import finish
from ess_can.errors import EssCanError, PcsFault
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import Report


@pytest.mark.parametrize(("error", "code"), [(None, 0), (PcsFault("it"), 41)])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_ends_with_the_reports_code(
    error: EssCanError | None, code: int, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as ended:
        finish(Report(result=Phase.REFUSED, error=error), as_json=as_json, wall_time_s=1.0, trace_hash=None)
    assert ended.value.exit_code == code
    shown = capsys.readouterr()
    if as_json:
        assert json.loads(shown.out)["exit_code"] == code
        assert shown.err == ""
    else:
        assert shown.out.startswith("\nRefused: nothing was changed.\n")
        assert ("error PCS_FAULT: it" in shown.err) == (error is not None)
