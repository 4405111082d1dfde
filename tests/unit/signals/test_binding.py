"""What a DBC that does not fit the code is told: every disagreement names both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from ess_can.errors import DbcMismatch
from ess_can.identity import NodeAddress, NodeType
from ess_can.resources import dbc_path
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import BmsHvStatus


@pytest.fixture(scope="module")
def text() -> str:
    return dbc_path().read_text("ascii")


LINK = "SG_ LinkVoltage : 35|13@1+ (0.25,0) [0|2047.5]"

MISMATCHES = [
    # name, text, replacement, what the error names
    (
        "signal renamed",
        "LinkVoltage",
        "LinkVolts",
        "BmsHvStatus.link_voltage_v has no signal BMS_HvStatus_1.LinkVoltage",
    ),
    ("signal extra", "LinkVoltage", "LinkVolts", "BMS_HvStatus_1.LinkVolts has no field in BmsHvStatus"),
    (
        "unit other",
        f'{LINK} "V"',
        f'{LINK} "mV"',
        "BmsHvStatus.link_voltage_v has unit V, BMS_HvStatus_1.LinkVoltage has mV",
    ),
    (
        "unit gone",
        f'{LINK} "V"',
        f'{LINK} ""',
        "BmsHvStatus.link_voltage_v has unit V, BMS_HvStatus_1.LinkVoltage has none",
    ),
    (
        "unit too many",
        'SG_ Token : 0|24@1+ (1,0) [0|16777215] ""',
        'SG_ Token : 0|24@1+ (1,0) [0|16777215] "s"',
        "EmsHvStatusPoll.token has unit none, EMS_HvStatusPoll.Token has s",
    ),
    (
        "range too large",
        LINK,
        LINK.replace("2047.5", "4000"),
        "BmsHvStatus.link_voltage_v cannot use BMS_HvStatus_1.LinkVoltage",
    ),
    (
        "range has Invalid",
        LINK,
        LINK.replace("2047.5", "2047.75"),
        "BmsHvStatus.link_voltage_v may be None, but Invalid of BMS_HvStatus_1.LinkVoltage",
    ),
    (
        "range missing",
        LINK,
        LINK.replace("[0|2047.5]", "[0|0]"),
        "BmsHvStatus.link_voltage_v needs a range, BMS_HvStatus_1.LinkVoltage has none",
    ),
    (
        "fewer bits",
        LINK,
        LINK.replace("35|13", "35|12"),
        "BmsHvStatus.link_voltage_v cannot use BMS_HvStatus_1.LinkVoltage",
    ),
    (
        "Invalid gone",
        'VAL_ 177 LinkVoltage 8191 "Invalid" ;',
        "",
        "BmsHvStatus.link_voltage_v may be None, BMS_HvStatus_1.LinkVoltage does not have",
    ),
    (
        "Invalid out of bits",
        'VAL_ 177 LinkVoltage 8191 "Invalid" ;',
        'VAL_ 177 LinkVoltage 8192 "Invalid" ;',
        "BmsHvStatus.link_voltage_v may be None, but Invalid of BMS_HvStatus_1.LinkVoltage",
    ),
    (
        "always valid",
        "[0|409.5]",
        "[0|409.4]",
        "BmsHvNotice.off_duration_s must always be valid, BMS_HvNotice_1.OffDuration has",
    ),
    (
        "value missing",
        'VAL_ 161 Command 0 "Release"',
        "VAL_ 161 Command",
        "EmsPcsCommand.command (PcsCommandCode) has 0 Release where EMS_PcsCommand.Command has nothing",
    ),
    (
        "value extra",
        "VAL_ 161 Command",
        'VAL_ 161 Command 7 "Boost"',
        "EmsPcsCommand.command (PcsCommandCode) has nothing where EMS_PcsCommand.Command has 7 Boost",
    ),
    (
        "value renamed",
        'VAL_ 162 Contactors 0 "Open"',
        'VAL_ 162 Contactors 0 "Off"',
        "PcsStatus.contactors (ContactorState) has 0 Open where PCS_Status.Contactors has 0 Off",
    ),
    (
        "enum too short",
        "SG_ State : 24|4@1+ (1,0) [0|6]",
        "SG_ State : 24|2@1+ (1,0) [0|3]",
        "PcsStatus.state (PcsState) does not fit the 2 bits of PCS_Status.State",
    ),
    (
        "enum scaled",
        "SG_ State : 24|4@1+ (1,0)",
        "SG_ State : 24|4@1+ (2,0)",
        "PcsStatus.state is a whole number, PCS_Status.State is signed or scaled",
    ),
    (
        "number signed",
        "SG_ FaultCode : 40|8@1+",
        "SG_ FaultCode : 40|8@1-",
        "PcsStatus.fault_code is a whole number, PCS_Status.FaultCode is signed or scaled",
    ),
    (
        "number with values",
        "VAL_ 162 State",
        'VAL_ 162 FaultCode 0 "Fine" ;\nVAL_ 162 State',
        "PcsStatus.fault_code is a number, PCS_Status.FaultCode has the values Fine",
    ),
    (
        "number limited",
        "SG_ FaultCode : 40|8@1+ (1,0) [0|255]",
        "SG_ FaultCode : 40|8@1+ (1,0) [0|99]",
        "PcsStatus.fault_code is any number of 8 bits, PCS_Status.FaultCode has the range 0 to 99",
    ),
    (
        "bool too long",
        "SG_ HeartbeatLost : 34|1@1+",
        "SG_ HeartbeatLost : 34|2@1+",
        "PcsStatus.heartbeat_lost is a bool, PCS_Status.HeartbeatLost is not one bit",
    ),
    (
        "bool inverted",
        'VAL_ 162 HeartbeatLost 0 "No" 1 "Yes"',
        'VAL_ 162 HeartbeatLost 0 "Yes" 1 "No"',
        "PcsStatus.heartbeat_lost is a bool, PCS_Status.HeartbeatLost is not one bit",
    ),
    (
        "message missing",
        "BO_ 179 BMS_HvStatus_3:",
        "BO_ 179 BMS_HvStatus_9:",
        "BmsHvStatus has no message BMS_HvStatus_3",
    ),
    (
        "message extra",
        "BO_ 179 BMS_HvStatus_3:",
        "BO_ 179 BMS_HvStatus_9:",
        "BMS_HvStatus_9 has no dataclass in this version",
    ),
    (
        "sender other",
        "BO_ 179 BMS_HvStatus_3: 8 BMU3",
        "BO_ 179 BMS_HvStatus_3: 8 BMU4",
        "BmsHvStatus is sent by BMU3, BMS_HvStatus_3 by BMU4",
    ),
    (
        "sender gone",
        "BO_ 179 BMS_HvStatus_3: 8 BMU3",
        "BO_ 179 BMS_HvStatus_3: 8 Vector__XXX",
        "BmsHvStatus is sent by BMU3, BMS_HvStatus_3 by nobody",
    ),
    (
        "channel missing",
        "BO_ 1557 UDS_Request_BMU1:",
        "BO_ 1557 UDS_Call_BMU1:",
        "the diagnostic channel of bmu1 has no message UDS_Request_BMU1",
    ),
    (
        "channel unmarked",
        'BA_ "DiagResponse" BO_ 1301 1;',
        "",
        "the diagnostic channel of bmu1 needs attribute DiagResponse Yes, UDS_Response_BMU1 has No",
    ),
    ("protection gone", 'BA_ "E2EProfile" BO_ 162 1;', "", "PcsStatus has E2E profile P05, PCS_Status has None"),
    (
        "protection extra",
        'BA_ "GenMsgCycleTime" BO_ 529 200;',
        'BA_ "E2EProfile" BO_ 529 1;',
        "BmsState has E2E profile None, BMS_State_1 has P05",
    ),
    (
        "data ID twice",
        'BA_ "E2EDataId" BO_ 162 3586;',
        'BA_ "E2EDataId" BO_ 162 3585;',
        "PcsStatus needs an E2E data ID of its own, PCS_Status has that of EMS_PcsCommand",
    ),
    ("data ID gone", "E2EDataId", "E2EData", "PcsStatus needs an E2E data ID, PCS_Status has none"),
    (
        "profile unknown",
        'BA_ "E2EProfile" BO_ 162 1;',
        'BA_ "E2EProfile" BO_ 162 9;',
        "PcsStatus has E2E profile P05, PCS_Status has 9",
    ),
    (
        "identifier twice",
        "BO_ 209 EMS_HvStatusPoll:",
        "BO_ 161 EMS_HvStatusPoll:",
        "EmsHvStatusPoll needs an identifier of its own, EMS_HvStatusPoll has that of EMS_PcsCommand",
    ),
    ("no nodes", "BMU1", "RACK1", "UDS_Request_RACK1 has no dataclass in this version"),
    (
        "CRC moved",
        "SG_ E2eCrc : 0|16@1+",
        "SG_ E2eCrc : 0|15@1+",
        "EmsPcsCommand is E2E-protected, but EMS_PcsCommand.E2eCrc is not at bit 0 with 16 bits",
    ),
    (
        "counter renamed",
        "SG_ E2eCounter :",
        "SG_ Alive :",
        "EmsPcsCommand is E2E-protected, but EMS_PcsCommand.E2eCounter is not at bit 16 with 8 bits",
    ),
    (
        "page renamed",
        "SG_ Page M :",
        "SG_ Leaf M :",
        "BmsCellSummary and BmsCellGroup needs Page in byte 0 as multiplexer, BMS_Cells_1 has Leaf",
    ),
    (
        "page extra",
        "SG_ CellVoltageC_4 m4 :",
        "SG_ CellVoltageC_4 m5 :",
        "BmsCellSummary and BmsCellGroup has pages [0, 1, 2, 3, 4], BMS_Cells_1 has [0, 1, 2, 3, 4, 5]",
    ),
    (
        "cell on another page",
        "SG_ CellVoltageC_4 m4 : 36",
        "SG_ CellVoltageC_4 m3 : 50",
        "BmsCellGroup.cell_voltage_c_v has no signal BMS_Cells_1.CellVoltageC_4",
    ),
    (
        "multiplexed",
        "SG_ SilentUpTo :",
        "SG_ SilentUpTo M :",
        "EmsUpgradeNotice needs none as multiplexer, EMS_UpgradeNotice has SilentUpTo",
    ),
    ("no attributes", "E2EProfile", "E2EProfil", "PcsStatus has E2E profile P05, PCS_Status has "),
]


@pytest.mark.parametrize(
    ("old", "new", "named"), [case[1:] for case in MISMATCHES], ids=[case[0] for case in MISMATCHES]
)
def test_a_mismatch_names_both_sides(text: str, tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in text
    path = tmp_path / "ess.dbc"
    everywhere = old.isalnum()  # a name is replaced everywhere
    path.write_text(text.replace(old, new, -1 if everywhere else 1), "ascii")
    with pytest.raises(DbcMismatch) as refused:
        StationCodec.load(path)
    assert named in refused.value.why


def test_many_mismatches_are_summed_up(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ess.dbc"
    path.write_text(text.replace("NodeType", "Kind"), "ascii")
    with pytest.raises(
        DbcMismatch, match=r"NodeInfo\.node_type has no signal Node_Info_COMM_GATEWAY\.NodeType.*; and 10 more"
    ):
        StationCodec.load(path)


def test_a_smaller_station_needs_no_other_code(text: str, tmp_path: Path) -> None:
    """A DBC without the last rack and without the communications gateway is as good."""
    blocks = text.split("\n\n")
    kept = [block for block in blocks if not block.startswith("BO_ ") or not ("_8:" in block or "BMU8:" in block)]
    kept = [block for block in kept if not block.startswith("BO_ ") or "COMM_GATEWAY:" not in block.splitlines()[0]]
    gone = {block.split()[1] for block in blocks if block not in kept}
    tail = [
        line
        for line in kept[-1].splitlines()
        if not ({"BMU8", "COMM_GATEWAY"} & set(line.split()) or gone & {word.rstrip(";") for word in line.split()[:4]})
    ]
    small = "\n\n".join([*kept[:-1], "\n".join(tail)]) + "\n"
    for name in ("BMU8", "COMM_GATEWAY"):
        small = small.replace(f" {name}", "").replace(f",{name}", "").replace("EMS,\n", "EMS\n")
    path = tmp_path / "small.dbc"
    path.write_text(small, "ascii")
    codec = StationCodec.load(path)
    assert codec.nodes() == tuple(NodeAddress(NodeType.BMU, index) for index in range(1, 8))
    assert [route.index for route in codec.routes(BmsHvStatus)] == list(range(1, 8))


@pytest.mark.parametrize(
    "content", [b"", b"not a DBC", b"\x00\x81\xff", b'BO_ 1 A: 8 B\n SG_ S : 60|8@1+ (1,0) [0|1] "" C\n']
)
def test_what_is_no_dbc_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.dbc"
    path.write_bytes(content)
    with pytest.raises(DbcMismatch):
        StationCodec.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DbcMismatch, match=r"none\.dbc cannot be read as a DBC: FileNotFoundError") as caught:
        StationCodec.load(tmp_path / "none.dbc")
    assert "--dbc" in caught.value.remedy
    with pytest.raises(DbcMismatch, match="cannot be read as a DBC: IsADirectoryError"):
        StationCodec.load(tmp_path)
