"""Any DBC tool reads our DBC: cantools' command line does, without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ess_can.can.frame import CanFrame
from ess_can.resources import dbc_path
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import BmsCellGroup, BmsHvStatus, ContactorState


def cantools(*arguments: str | Path, text: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "cantools", *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_dump_shows_every_message() -> None:
    shown = cantools("dump", dbc_path())
    lines = dbc_path().read_text("ascii").splitlines()
    described = [line.split()[2].rstrip(":") for line in lines if line.startswith("BO_ ")]
    assert [line.split()[1] for line in shown.splitlines() if line.strip().startswith("Name:")] == described
    assert len(described) == 71


@pytest.fixture(scope="module")
def codec() -> StationCodec:
    return StationCodec.load()


def test_decode_reads_a_candump_log(codec: StationCodec) -> None:
    status = BmsHvStatus(
        main_plus=ContactorState.OPEN,
        main_minus=ContactorState.CLOSED,
        precharge=ContactorState.INVALID,
        hvil_closed=True,
        weld_plus=False,
        weld_minus=True,
        hv_off=False,
        emergency_stop=True,
        link_voltage_v=812.25,
        current_a=None,
    )
    cells = BmsCellGroup(3, 3.251, None, 3.3)
    frames = [
        CanFrame(codec.route(BmsHvStatus, 2).can_id, codec.encode(status, 2)),
        CanFrame(codec.route(BmsCellGroup, 8).can_id, codec.encode(cells, 8)),
        CanFrame(codec.diagnostic_ids(codec.nodes()[1])[0], bytes.fromhex("2101020304050607")),
    ]
    log = "".join(f"(1.{number:06d}) vcan0 {frame}\n" for number, frame in enumerate(frames))
    lines = cantools("decode", "--single-line", dbc_path(), text=log).splitlines()
    assert "BMS_HvStatus_2(E2eCrc: 0, E2eCounter: 0, MainPlus: Open, MainMinus: Closed, Precharge: Invalid" in lines[0]
    assert "HvilClosed: Yes, WeldPlus: No, WeldMinus: Yes, HvOff: No, EmergencyStop: Yes" in lines[0]
    assert "LinkVoltage: 812.25 V, Current: Invalid" in lines[0]
    assert "BMS_Cells_8(Page: 3, CellVoltageA_3: 3.25" in lines[1]
    assert "CellVoltageB_3: Invalid, CellVoltageC_3: 3.3" in lines[1]
    assert "UDS_Request_BMU1(NPciType: ConsecutiveFrame)" in lines[2]
    assert len(lines) == 3
