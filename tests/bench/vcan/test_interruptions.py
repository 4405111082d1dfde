"""What breaks in the middle of a transfer: a process, another master, the interface."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ess_can.errors import AdapterLost, IdConflict, InterfaceDown, OtherGateway
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import EmsUpgradeNotice
from tests.bench.processes import Running, ess_can, run, running
from tests.bench.releases import THREE_BLOCKS_KIB, write_release
from tests.bench.vcan.station import BUS, CHANNEL, ONE_RACK, link, simulated, upgrade_command

STATION = (*BUS, "--racks", "1")
BEGUN = "comm_gateway: transfer"
UNDER_WAY = " % of "


@pytest.fixture
def long_release(tmp_path: Path) -> Path:
    """Three blocks for the comm gateway: long enough to be in the middle of."""
    return write_release(tmp_path / "long.essup", NodeType.COMM_GATEWAY, kib=THREE_BLOCKS_KIB)


@pytest.fixture
def impatient(tmp_path: Path) -> tuple[str, Path]:
    """Limits that give up a node sooner than a site would want."""
    limits = tmp_path / "limits.toml"
    limits.write_text("[times]\npermit_regain_s = 3\nlisten_s = 4\nprogram_attempts = 2\n")
    return ("--config", limits)


def succeeds(release: Path) -> str:
    """The next upgrade ends well and connects the plant again; what it printed."""
    with running(*upgrade_command(release, "--reconnect")) as upgrade:
        assert upgrade.wait() == 0, upgrade
        assert "Done: every node runs its new firmware." in upgrade.text
        assert ", connected after" in upgrade.text
        return upgrade.text


def test_the_bms_loses_power_and_the_next_upgrade_succeeds(
    state: Path, long_release: Path, impatient: tuple[str, Path]
) -> None:
    bms = ("bms", *ONE_RACK, "--state", state / "bms")
    with simulated("pcs", *ONE_RACK, "--state", state / "pcs"):
        with simulated(*bms) as first, running(*upgrade_command(long_release, *impatient)) as upgrade:
            upgrade.wait_for(UNDER_WAY)
            first.kill()
            code = upgrade.wait()
            assert 40 <= code <= 101, upgrade
            assert "error " in upgrade.text
            assert "what to do: " in upgrade.text
            assert "Traceback" not in upgrade.text
        with simulated(*bms):
            # the PCS is still locked, and only the journal knows how the plant was found
            code, told = ess_can("status", *STATION)
            assert (code, told["pcs"]["lock_acknowledged"]) == (0, True), told["error"]
            assert told["upgrade"]["next_command"].startswith("ess-can resume")
            printed = succeeds(long_release)
            # it booted the old image; a unit torn by the power cut costs what is in its sector
            assert re.search(r"comm_gateway +1\.0\.0 +1\.1\.0 ", printed)
            assert "transfer (resumed at " in printed or "comm_gateway: announce" in printed


def test_of_two_gateways_the_second_is_refused(plant: Running, long_release: Path, tmp_path: Path) -> None:
    with running(*upgrade_command(long_release)) as first:
        first.wait_for(BEGUN)
        another = ("--journal", tmp_path / "another")
        code, told = ess_can("upgrade", long_release, *STATION, "--bench", *another)
        assert code in (OtherGateway.exit_code, IdConflict.exit_code), told["error"]
        assert told["result"] == "refused"
        assert first.wait() == 0, first
        assert "Done: every node runs its new firmware." in first.text
    assert plant.alive


def test_the_interface_goes_down_and_comes_up_again(plant: Running, long_release: Path) -> None:
    with running(*upgrade_command(long_release)) as upgrade:
        upgrade.wait_for(UNDER_WAY)
        link("down")
        code = upgrade.wait()
        assert code in (InterfaceDown.exit_code, AdapterLost.exit_code), upgrade
        assert "what to do: " in upgrade.text
        assert "Traceback" not in upgrade.text
    link("up")
    plant.wait_for("vcan0 is down")  # it was told, and goes on as a plant does
    assert "comm_gateway: transfer (resumed at " in succeeds(long_release)


CODEC = StationCodec.load()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(f"{CODEC.route(EmsUpgradeNotice, 1).can_id:03X}#{bytes(8).hex()}", id="a broken notice"),
        pytest.param(f"{CODEC.diagnostic_ids(NodeAddress(NodeType.BMU, 1))[0]:03X}#023E8000", id="a second tester"),
    ],
)
def test_a_foreign_node_on_one_of_our_identifiers(frame: str, plant: Running, long_release: Path) -> None:
    with running(*upgrade_command(long_release)) as upgrade:
        upgrade.wait_for(BEGUN)
        run("cansend", CHANNEL, frame)
        assert upgrade.wait() == IdConflict.exit_code, upgrade
        assert "error ID_CONFLICT: " in upgrade.text
    assert plant.alive
