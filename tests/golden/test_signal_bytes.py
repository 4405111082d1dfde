"""The bytes of every message, locked: a change here is a change of the protocol."""

from __future__ import annotations

import pytest

from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.binding import FAMILIES
from ess_can.signals.dbc import StationCodec
from ess_can.signals.e2e import protect
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellGroup,
    BmsCellSummary,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    ContactorState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    HvNoticeCondition,
    ImageState,
    Message,
    NodeInfo,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    RackState,
    UpgradePhase,
)

OPEN, CLOSED, MOVING, INVALID = ContactorState
BMU3, BMU8 = NodeAddress(NodeType.BMU, 3), NodeAddress(NodeType.BMU, 8)
GATEWAY = NodeAddress(NodeType.COMM_GATEWAY)
COUNTER = 0xA5
"""Counter of the protected frames below."""

GOLDEN: list[tuple[Message, int | NodeAddress, str]] = [
    (EmsPcsCommand(PcsCommandCode.LOCK, -1234.5, True), 1, "0A1#1bfba514c7cf0000"),
    (EmsPcsCommand(PcsCommandCode.RELEASE), 1, "0A1#962da50000000000"),
    (EmsHvStatusPoll(0x123456), 1, "0D1#563412"),
    (EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 3, 120.5, 0xDEADBEEF), 1, "0D2#2203b504efbeadde"),
    (PcsStatus(PcsState.RUNNING, CLOSED, False, True, True, False, False, 0x2A, 250.3), 1, "0A2#06f3a592012ac709"),
    (PcsStatus(PcsState.STANDBY, OPEN, True, True, False, False, True, 0, None), 1, "0A2#4a8ba5c104000080"),
    (BmsHvStatus(OPEN, OPEN, OPEN, True, False, False, True, False, 12.25, -0.3), 1, "0B1#d262a5408a01fdff"),
    (BmsHvStatus(CLOSED, MOVING, INVALID, False, True, True, False, True, None, None), 4, "0B4#a2b6a5b9fdff0080"),
    (BmsHvNotice(0xC0FFEE, HvNoticeCondition.DISCONNECTED, 12.3), 2, "0C2#ba31a5eeffc0b107"),
    (BmsHvNotice(1, HvNoticeCondition.UNKNOWN, 0.0), 3, "0C3#af6ea50100000300"),
    (BmsState(RackState.PRECHARGING, 55.5, 812.25, 24.125), 1, "211#022b02b10cc1"),
    (BmsState(RackState.INIT, None, None, None), 4, "214#00ff03ff1fff"),
    (BmsCellSummary(3.251, 3.349, -12.0, 25.0), 1, "251#00b34c45c3110400"),
    (BmsCellSummary(None, None, None, None), 2, "252#00ffffffffff0f00"),
    (BmsCellGroup(1, 3.301, 3.302, 3.303), 1, "251#01e58c3973ce0000"),
    (BmsCellGroup(4, None, 0.0, 16.382), 4, "254#04ff3f00e0ff0300"),
    (BmsAlarms(), 1, "111#0000"),
    (BmsAlarms(overvoltage=True, hvil_open=True, internal_fault=True), 2, "112#4108"),
    (NodeInfo(NodeType.BMU, 1, 9, ImageState.TRIAL, 0x2ABC, 7, 1, 2, 345), BMU3, "453#9af1aa0701025901"),
    (BmsHvStatus(OPEN, OPEN, OPEN, True, False, False, True, False, 12.25, -0.3), 5, "0B5#16aea5408a01fdff"),
    (BmsHvStatus(CLOSED, MOVING, INVALID, False, True, True, False, True, None, None), 8, "0B8#cff3a5b9fdff0080"),
    (BmsHvNotice(0xC0FFEE, HvNoticeCondition.DISCONNECTED, 12.3), 6, "0C6#5129a5eeffc0b107"),
    (BmsHvNotice(1, HvNoticeCondition.UNKNOWN, 0.0), 8, "0C8#d3efa50100000300"),
    (BmsState(RackState.PRECHARGING, 55.5, 812.25, 24.125), 7, "217#022b02b10cc1"),
    (BmsCellSummary(3.251, 3.349, -12.0, 25.0), 5, "255#00b34c45c3110400"),
    (BmsCellGroup(4, None, 0.0, 16.382), 8, "258#04ff3f00e0ff0300"),
    (BmsAlarms(overvoltage=True, hvil_open=True, internal_fault=True), 6, "116#4108"),
    (NodeInfo(NodeType.BMU, 1, 9, ImageState.TRIAL, 0x2ABC, 7, 1, 2, 345), BMU8, "458#9af1aa0701025901"),
    (
        NodeInfo(NodeType.COMM_GATEWAY, 0, 15, ImageState.CONFIRMED, 0x3FFF, 255, 255, 0, 0xFFFF),
        GATEWAY,
        "45A#f1fcffffff00ffff",
    ),
]


@pytest.fixture(scope="module")
def codec() -> StationCodec:
    return StationCodec.load()


def frame(codec: StationCodec, message: Message, index: int | NodeAddress) -> str:
    route = codec.route(type(message), index)
    data = codec.encode(message, index)
    if route.e2e_data_id is not None:
        data = protect(data, route.e2e_data_id, COUNTER)
    return f"{route.can_id:03X}#{data.hex()}"


@pytest.mark.parametrize(("message", "index", "golden"), GOLDEN, ids=lambda value: str(value)[:24])
def test_encoding_is_locked(codec: StationCodec, message: Message, index: int | NodeAddress, golden: str) -> None:
    assert frame(codec, message, index) == golden


@pytest.mark.parametrize(("message", "index", "golden"), GOLDEN, ids=lambda value: str(value)[:24])
def test_decoding_is_locked(codec: StationCodec, message: Message, index: int | NodeAddress, golden: str) -> None:
    can_id, _, data = golden.partition("#")
    decoded = codec.decode(int(can_id, 16), bytes.fromhex(data))
    assert decoded is not None
    assert decoded.message == message
    assert decoded.route == codec.route(type(message), index)


def test_every_message_type_is_locked() -> None:
    assert {type(message) for message, _, _ in GOLDEN} == set(FAMILIES)
