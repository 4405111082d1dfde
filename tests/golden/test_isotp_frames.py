"""The bytes of isotp_frames.txt are what goes over the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from ess_can.isotp import IsoTpParams
from tests.unit.isotp.line import TESTER, Line

MESSAGES = [
    block.splitlines()
    for block in (Path(__file__).parent / "isotp_frames.txt").read_text().split("\n\n")
    if block.startswith("message ")
]


def params_of(words: list[str]) -> tuple[int, IsoTpParams]:
    values = dict(word.split("=") for word in words if "=" in word)
    return int(values["length"]), IsoTpParams(
        tx_dl=int(values["tx_dl"]),
        fd="fd" in words,
        padding=None if values["padding"] == "off" else int(values["padding"], 16),
        block_size=int(values.get("bs", "0"), 16),
        st_min=int(values.get("stmin", "0"), 16),
        max_payload=5000,
    )


@pytest.mark.parametrize("block", MESSAGES, ids=[block[0].split()[1] for block in MESSAGES])
def test_frames_on_the_wire(block: list[str]) -> None:
    length, params = params_of(block[0].split()[2:])
    payload = bytes(i & 0xFF for i in range(length))
    line = Line(params)
    line.tester.send(payload, line.now)
    line.run()
    sent = [f"{'>' if frame.can_id == TESTER.tx_id else '<'} {frame.data.hex(' ')}" for _, frame in line.log]
    expected = block[1:]
    if "..." in expected:
        gap = expected.index("...")
        tail = len(expected) - gap - 1
        assert len(sent) > len(expected)
        sent[gap : len(sent) - tail] = ["..."]
    assert sent == expected
    assert line.received(1) == [payload]


def test_the_file_was_read() -> None:
    assert len(MESSAGES) == 15
