from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from ess_can.bus.clock import pause
from ess_can.cli.monitor_screen import Screen, document, print_document
from ess_can.errors import BusSilent
from ess_can.gateway.station_snapshot import BusWarning, Snapshot
from ess_can.sim.loop import run_virtual
from tests.unit.cli.test_monitor_view import LARGE, RUNNING, UPGRADING


class Terminal(io.StringIO):
    """What rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


def console(file: io.StringIO) -> Console:
    return Console(file=file, width=80, height=24, highlight=False, force_terminal=file.isatty(), legacy_windows=False)


def show(
    file: io.StringIO, *, live: bool = True, silent: bool = False, seconds: float = 1.1, seen: Snapshot = RUNNING
) -> int:
    """Run a screen for a while; how often it looked."""
    looks: list[Snapshot] = []

    def look() -> Snapshot:
        looks.append(seen)
        return seen

    async def scenario() -> None:
        screen = Screen("can0", "assumed", every_s=0.5, silent=silent, live=live, console=console(file))
        screen.start(look)
        await pause(seconds)
        assert screen.end() is seen
        assert screen.last is seen
        await pause(2.0)

    run_virtual(scenario())
    return len(looks)


def test_lines_now_and_then_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(io.StringIO()) == 3
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.splitlines()[0] for block in blocks if block] == 3 * ["ess-can monitor  can0  heard for 12.3 s"]
    assert "\x1b" not in "".join(blocks)


def test_a_terminal_is_refreshed_four_times_a_second() -> None:
    terminal = Terminal()
    assert show(terminal) == 6
    shown = terminal.getvalue()
    assert shown.count("heard for") >= 6
    assert "\x1b[?25l" in shown, "the cursor is hidden"
    assert shown.rstrip().endswith("\x1b[?25h"), "and comes back"


def test_on_a_terminal_a_large_plant_is_cut_to_its_height(capsys: pytest.CaptureFixture[str]) -> None:
    for file, whole in ((Terminal(), False), (io.StringIO(), True)):
        show(file, seen=LARGE)
        shown = file.getvalue() + capsys.readouterr().out
        assert ("  BMS_HvStatus_8 " in shown) is whole
        assert "rack 8 " in shown
        assert ("bmu1-8" in shown) is not whole


def test_one_picture_where_time_is_virtual() -> None:
    terminal = Terminal()
    assert show(terminal, live=False) == 1
    assert terminal.getvalue().count("heard for") == 1


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    plain, coloured = Terminal(), Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    show(coloured, live=False)
    monkeypatch.setenv("NO_COLOR", "1")
    show(plain, live=False)
    green = "\x1b[33m"  # the warning tone of lost and repeated frames
    assert green in coloured.getvalue()
    assert green not in plain.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    show(terminal)
    assert terminal.getvalue() == ""
    assert capsys.readouterr().out.count("heard for") == 3


def test_silence_under_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    assert show(terminal, silent=True) == 1
    assert (terminal.getvalue(), capsys.readouterr().out) == ("", "")


def test_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_document(UPGRADING, None)
    told = json.loads(capsys.readouterr().out)
    assert (told["result"], told["exit_code"], told["error"]) == ("ok", 0, None)
    assert told["bus"]["load_percent"] == 98.7
    assert told["bus"]["diagnostic"] == [{"node": "bmu2", "frames_per_s": 7654.3}]
    assert told["hv_off"]["proved"] is True
    assert told["hv_off"]["evidence"][1] == {
        "source": "BMS_HvStatus",
        "rack": 1,
        "holds": True,
        "missing": None,
        "age_ms": 12.0,
    }
    assert told["command"] == {
        "command": "lock",
        "power_setpoint_kw": 0.0,
        "upgrade_active": True,
        "age_ms": 20.0,
        "stale": False,
    }
    assert told["upgrade"]["session"] == 0xBEEF
    assert told["racks"][0]["hv"]["main_plus"] == "open"
    assert told["racks"][0]["cells"] is None
    assert told["e2e"][0]["last"] == "ok, some lost"


def test_the_document_of_a_silent_bus(capsys: pytest.CaptureFixture[str]) -> None:
    error = BusSilent("nothing is heard")
    print_document(UPGRADING, error)
    told = json.loads(capsys.readouterr().out)
    assert (told["result"], told["exit_code"], told["error"]["name"]) == ("error", 14, "BUS_SILENT")
    assert set(told) > {"bus", "pcs", "racks", "nodes", "hv_off", "e2e"}


def test_warnings_in_the_document() -> None:
    warned = replace(RUNNING, warnings=(BusWarning(BusSilent("x"), 2, 0.5),))
    assert json.loads(json.dumps(document(warned)))["warnings"][0]["times"] == 2
