from __future__ import annotations

import pytest

from ess_can.campaign.dialogue import Dialogue, message_head
from ess_can.campaign.releases import station_codec
from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress, NodeType
from ess_can.isotp.pci import FlowStatus, encode_first_frame, encode_flow_control, encode_single_frame

BMU1, BMU2 = NodeAddress(NodeType.BMU, 1), NodeAddress(NodeType.BMU, 2)
CODEC = station_codec()


class Wire:
    def __init__(self) -> None:
        self.told: list[tuple[float, str, str]] = []
        self.dialogue = Dialogue(CODEC, (BMU1, BMU2), lambda at, node, text: self.told.append((at, str(node), text)))

    def say(self, at: float, node: NodeAddress, payload: bytes, *, answer: bool = False) -> None:
        can_id = CODEC.diagnostic_ids(node)[answer]
        long = len(payload) > 7
        data = encode_first_frame(payload, 8)[0] if long else encode_single_frame(payload, 0xCC)
        self.dialogue.on_frame(CanFrame(can_id, data), at, "somebody")

    @property
    def lines(self) -> list[str]:
        self.dialogue.finish()
        return [text for _, _, text in self.told]


def test_a_request_and_its_answer_are_one_line() -> None:
    wire = Wire()
    wire.say(1.5, BMU1, bytes.fromhex("31 01 FD 11"))
    wire.say(1.6, BMU1, bytes.fromhex("71 01 FD 11"), answer=True)
    wire.dialogue.finish()
    assert wire.told == [(1.5, "bmu1", "31 routine control activate on trial: done")]


def test_transfers_are_collapsed_and_their_bytes_counted() -> None:
    wire = Wire()
    for at in range(3):
        wire.say(at, BMU1, bytes((0x36, at + 1)) + bytes(100))
        wire.say(at, BMU1, bytes.fromhex("7F 36 78"), answer=True)
        wire.say(at, BMU1, bytes((0x76, at + 1)), answer=True)
    wire.say(9, BMU1, b"\x37")
    assert wire.lines == [
        "36 transfer data x 3, 300 bytes: 3 x pending, 3 x done",
        "37 request transfer exit: no answer",
    ]


def test_a_refusal_says_its_reason() -> None:
    wire = Wire()
    wire.say(0, BMU2, b"\x10\x02")
    wire.say(0, BMU2, bytes.fromhex("7F 10 22"), answer=True)
    wire.say(0, BMU2, bytes.fromhex("7F 10 99"), answer=True)
    assert wire.lines == ["10 diagnostic session control 02: refused (22 conditions not correct), refused (99 0x99)"]


def test_nodes_are_told_apart_and_other_frames_left_out() -> None:
    wire = Wire()
    wire.say(0, BMU1, b"\x3e\x00")
    wire.say(1, BMU2, b"\x3e\x00")
    wire.say(2, BMU1, b"\x3e\x00")
    wire.dialogue.on_frame(CanFrame(0x001, b"\x02\x3e\x00"), 3, "other")
    assert wire.lines == ["3E tester present x 2: no answer", "3E tester present: no answer"]


def test_an_answer_that_nobody_asked_for_is_no_line() -> None:
    wire = Wire()
    wire.say(0, BMU1, b"\x7e\x00", answer=True)
    assert wire.lines == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\x10", bytes(8), encode_flow_control(FlowStatus.CTS, 0, 0, 0xCC), b"\x21abcdefg", b"\x08abcdefg"],
)
def test_what_begins_no_message(data: bytes) -> None:
    assert message_head(data) is None


def test_a_message_of_an_unknown_kind_is_shown_by_number() -> None:
    wire = Wire()
    wire.say(0, BMU1, bytes.fromhex("31 01 12 34"))
    wire.say(0, BMU1, b"\x99", answer=True)
    wire.say(0, BMU1, b"\x85\x01")
    wire.say(0, BMU1, b"\x12", answer=True)
    assert wire.lines == ["31 routine control 0x1234: 99", "85 0x85: 12"]
