"""The diagnostic channels with 29-bit identifiers, by configuration of the DBC alone."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from ess_can import resources
from ess_can.can.frame import EXTENDED_FLAG
from ess_can.gateway.phases import Phase
from ess_can.identity import NodeAddress
from ess_can.signals.dbc import StationCodec
from tests.scenario import support
from tests.scenario.support import NEW, QUICK, play


def extended_dbc(folder: Path) -> Path:
    """The station's DBC with UDS on normal fixed addressing (0x18DAxxF1 and 0x18DAF1xx)."""
    text = resources.dbc_path().read_text("utf-8")
    messages = re.findall(r"^BO_ (\d+) UDS_(Request|Response)_(\w+):", text, re.MULTILINE)
    for number, (old, kind, _) in enumerate(sorted(messages, key=lambda found: (found[1], found[2]))):
        node = 0x10 + number % (len(messages) // 2)
        identifier = 0x18DA00F1 | node << 8 if kind == "Request" else 0x18DAF100 | node
        text = re.sub(rf"\b(BO_|SG_|VAL_) {old}\b", rf"\1 {identifier | EXTENDED_FLAG}", text)
    path = folder / "extended.dbc"
    path.write_text(text, "utf-8", newline="")
    return path


def test_an_upgrade_over_29_bit_identifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = StationCodec.load(extended_dbc(tmp_path))
    request_id, response_id = codec.diagnostic_ids(NodeAddress.parse("bmu1"))
    assert request_id & response_id & EXTENDED_FLAG
    monkeypatch.setattr(support, "station_codec", partial(StationCodec.load, tmp_path / "extended.dbc"))
    outcome = play(spec=QUICK)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert any(sent.frame.extended and sent.sender == "EMS" for sent in outcome.scene.frames)
