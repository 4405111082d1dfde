"""Whole upgrades between processes that share nothing but vcan0."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.dbc import StationCodec
from tests.bench.processes import ess_can
from tests.bench.vcan.station import BUS, ONE_RACK, TRANSPORTS, Logged, read_log, recorded, simulated

BMU1 = NodeAddress(NodeType.BMU, 1)
NODES = (BMU1, NodeAddress(NodeType.COMM_GATEWAY))
AT_FULL_SPEED = ("--racks", "1", "--speed", "10")


def speed(node: dict[str, Any], frames: list[Logged]) -> str:
    """The figure of docs/bench.md: payload, and all frames of the bus, while the image was transferred."""
    request_id, _ = StationCodec.load().diagnostic_ids(BMU1)
    stream = [frame for frame in frames if frame.can_id == request_id and frame.data[0] >> 4 == 2]
    lasted = stream[-1].at - stream[0].at
    shared = sum(stream[0].at <= frame.at <= stream[-1].at for frame in frames)
    rate = node["bytes_sent"] / node["transfer_s"] / 1000
    return f"{shared / lasted:.0f} frames/s, {rate:.1f} kB/s ({node['bytes_sent']} bytes)"


@pytest.mark.parametrize("isotp", TRANSPORTS)
@pytest.mark.parametrize("flags", [(), ("--fd",)], ids=["classic", "fd"])
def test_a_plant_and_a_gateway(
    flags: tuple[str, ...],
    isotp: str,
    tmp_path: Path,
    state: Path,
    bmu_release: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    station = (*BUS, *flags, "--isotp", isotp, "--racks", "1")
    with simulated("plant", *flags, *AT_FULL_SPEED, "--state", state), recorded(tmp_path) as log:
        code, told = ess_can("upgrade", bmu_release, *station, "--bench")
        assert (code, told["result"]) == (0, "done"), told["error"]
        (node,) = told["nodes"]
        assert (node["from_version"], node["to_version"], node["runs"]) == ("1.0.0", "1.1.0", "1.1.0")
        assert (told["hv_before"], told["hv_after"]) == ("connected", "connected")
    frames = read_log(log.read_text())
    codec = StationCodec.load()
    diagnostic_ids = {can_id for node in NODES for can_id in codec.diagnostic_ids(node)}
    diagnostic = [frame for frame in frames if frame.can_id in diagnostic_ids]
    assert {frame.fd for frame in diagnostic} == {bool(flags)}
    assert max(len(frame.data) for frame in diagnostic) == (64 if flags else 8)
    assert not any(frame.fd for frame in frames if frame.can_id not in diagnostic_ids)
    with capsys.disabled():
        sys.stdout.write(f"\nvcan, {'CAN FD' if flags else 'classic'}, {isotp}: {speed(node, frames)}\n")

    # what the nodes are is in the files: another process finds it there
    with simulated("plant", *flags, *ONE_RACK, "--state", state):
        code, told = ess_can("inventory", *station)
        assert code == 0, told["error"]
        runs = {each["name"]: (each["version"], each["image"]) for each in told["nodes"]}
        assert runs["bmu1"] == ("1.1.0", "confirmed")
        assert runs["comm_gateway"] == ("1.0.0", "confirmed")
        code, told = ess_can("upgrade", bmu_release, *station, "--bench")
        assert (code, told["result"]) == (0, "nothing_to_do"), told["error"]


def test_bms_and_pcs_are_processes_of_their_own(state: Path, bmu_release: Path) -> None:
    with (
        simulated("pcs", *ONE_RACK, "--state", state / "pcs"),
        simulated("bms", *ONE_RACK, "--state", state / "bms"),
    ):
        code, told = ess_can("upgrade", bmu_release, *BUS, "--racks", "1", "--bench")
        assert (code, told["result"]) == (0, "done"), told["error"]
        assert told["hv_after"] == told["hv_before"] == "connected"
