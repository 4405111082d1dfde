"""What can be wrong with a bus or a station: each has its typed error, its exit code, and a remedy that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ess_can.errors import (
    BusSilent,
    DbcMismatch,
    InterfaceDown,
    InterfaceUnavailable,
    NodeMissing,
    NoValidTraffic,
    UsageError,
)
from ess_can.resources import dbc_path
from tests.bench.processes import Running, ess_can, run, running
from tests.bench.vcan.station import BUS, CHANNEL, ONE_RACK, link, simulated

COMMANDS = ("status", "upgrade")


def told_by(command: str, file: Path, *options: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code and error of one of our commands on a station of one rack."""
    arguments: tuple[str | Path, ...] = (command, file, "--bench") if command == "upgrade" else (command,)
    code, document = ess_can(*arguments, *options, "--racks", "1")
    return code, document["error"]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_such_interface(command: str, bmu_release: Path) -> None:
    code, error = told_by(command, bmu_release, "-i", "socketcan", "-c", "vcan9")
    assert (code, error["name"]) == (InterfaceUnavailable.exit_code, "INTERFACE_UNAVAILABLE")
    assert "vcan9" in error["message"]
    assert "ip link add dev vcan9 type vcan" in error["remedy"]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interface_that_is_down(command: str, bmu_release: Path) -> None:
    link("down")
    code, error = told_by(command, bmu_release, *BUS)
    assert (code, error["name"]) == (InterfaceDown.exit_code, "INTERFACE_DOWN")
    assert f"ip link set {CHANNEL} up" in error["remedy"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_silent_plant(command: str, bmu_release: Path) -> None:
    code, error = told_by(command, bmu_release, *BUS)
    assert (code, error["name"]) == (BusSilent.exit_code, "BUS_SILENT")


def test_only_foreign_traffic(bmu_release: Path) -> None:
    with running("cangen", CHANNEL, "-I", "700", "-L", "8", "-g", "20"):
        code, error = told_by("upgrade", bmu_release, *BUS)
    assert (code, error["name"]) == (NoValidTraffic.exit_code, "NO_VALID_TRAFFIC")


def test_another_dbc(plant: Running, tmp_path: Path, bmu_release: Path) -> None:
    """One word of a comment is enough: who edits the DBC releases it anew."""
    other = tmp_path / "other.dbc"
    text = dbc_path().read_text("ascii")
    other.write_text(text + 'CM_ "changed";\n', "ascii")
    code, error = told_by("upgrade", bmu_release, *BUS, "--dbc", other)
    assert (code, error["name"]) == (DbcMismatch.exit_code, "DBC_MISMATCH")
    assert plant.alive


def test_nothing_of_ours_is_sent_to_a_bus_that_is_not_understood(tmp_path: Path, bmu_release: Path) -> None:
    log = tmp_path / "log"
    with (
        running("cangen", CHANNEL, "-I", "700", "-L", "8", "-g", "20"),
        running("sh", "-c", f"exec candump -L -n 100000 {CHANNEL} >{log}") as candump,
    ):
        code, _ = told_by("upgrade", bmu_release, *BUS)
        candump.stop()
    assert code == NoValidTraffic.exit_code
    senders = {line.split()[2].partition("#")[0] for line in log.read_text().splitlines()}
    assert senders == {"700"}


def test_the_simulator_takes_what_is_virtual_whatever_its_name() -> None:
    run("ip", "link", "add", "dev", "can7", "type", "vcan")
    try:
        run("ip", "link", "set", "can7", "up")
        code, told = ess_can("sim", "plant", "-i", "socketcan", "-c", "can7", "--duration", "1")
        assert code == 0, told
    finally:
        run("ip", "link", "delete", "can7")


def test_the_simulator_refuses_what_is_not_virtual() -> None:
    code, told = ess_can("sim", "plant", "-i", "socketcan", "-c", "lo", "--duration", "1")
    assert (code, told["error"]["name"]) == (UsageError.exit_code, "USAGE_ERROR")
    assert "--real-bus" in told["error"]["remedy"]


def test_a_bms_without_its_pcs(state: Path, bmu_release: Path) -> None:
    with simulated("bms", *ONE_RACK, "--state", state):
        code, error = told_by("upgrade", bmu_release, *BUS)
    assert (code, error["name"]) == (NodeMissing.exit_code, "NODE_MISSING")
    assert "PCS" in error["message"]
