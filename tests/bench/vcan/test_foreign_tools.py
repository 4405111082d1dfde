"""What one upgrade left behind, as other people's tools read it: candump's log and our trace."""

from __future__ import annotations

import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ess_can.identity import NodeAddress, NodeType
from ess_can.resources import dbc_path
from ess_can.signals.dbc import StationCodec
from tests.bench.processes import ess_can, run
from tests.bench.releases import THREE_BLOCKS_KIB, write_release
from tests.bench.vcan.station import BUS, ONE_RACK, Logged, read_log, recorded, simulated

BMU1 = NodeAddress(NodeType.BMU, 1)
TRANSFER_DATA = 0x36
ESCAPE = b"\x10\x00"
"""What begins a first frame of ISO 15765-2 whose length has 32 bits, not 12."""
_DECODED = re.compile(r"\S+ \S+ ([0-9A-F]+)#.* :: (.*)")


@dataclass(frozen=True, slots=True)
class Artefacts:
    """Of one upgrade of a BMU: candump's log, our trace, and the command's document."""

    log: Path
    trace: Path
    told: dict[str, Any]

    @property
    def node(self) -> dict[str, Any]:
        (node,) = self.told["nodes"]
        assert isinstance(node, dict)
        return node


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    folder = tmp_path_factory.mktemp("left")
    release = write_release(folder / "bmu.essup", NodeType.BMU, kib=THREE_BLOCKS_KIB)
    trace = folder / "run.blf"
    with simulated("plant", *ONE_RACK), recorded(folder) as log:
        code, told = ess_can("upgrade", release, *BUS, "--racks", "1", "--bench", "--trace", trace)
    assert code == 0, told["error"]
    return Artefacts(log, trace, told)


def decoded(log: str) -> dict[str, list[str]]:
    """By identifier, what `cantools decode` says of each frame of a candump log, in order."""
    shown = run(sys.executable, "-m", "cantools", "decode", "--single-line", dbc_path(), text=log)
    frames = defaultdict(list)
    for line in shown.splitlines():
        found = _DECODED.fullmatch(line)
        assert found is not None, line
        frames[found[1]].append(found[2])
    return frames


def is_part_of(part: list[str], whole: list[str]) -> bool:
    """Whether `part` is found in `whole` in one piece."""
    starts = (i for i, text in enumerate(whole) if text == part[0])
    return any(whole[i : i + len(part)] == part for i in starts)


def test_candump_and_our_trace_decode_to_the_same_signals(left: Artefacts, tmp_path: Path) -> None:
    converted = tmp_path / "run.log"
    run(sys.executable, "-m", "can.logconvert", left.trace, converted)
    ours, theirs = decoded(converted.read_text()), decoded(left.log.read_text())
    assert ours.keys() == theirs.keys()
    assert sum(map(len, ours.values())) == left.told["trace"]["frames"]
    for can_id, texts in ours.items():
        assert "Wrong data size" not in texts[0]
        assert is_part_of(texts, theirs[can_id]), can_id
    names = {texts[0].partition("(")[0] for texts in ours.values()}
    assert {"EMS_PcsCommand", "PCS_Status", "BMS_HvStatus_1", "UDS_Request_BMU1", "UDS_Response_BMU1"} <= names


def transfers(log: Path) -> Iterator[Logged]:
    """The frames that begin a request 36, from candump's log: single and first frames of ISO 15765-2."""
    request_id, _ = StationCodec.load().diagnostic_ids(BMU1)
    for frame in read_log(log.read_text()):
        if frame.can_id == request_id:
            begins = 6 if frame.data.startswith(ESCAPE) else {0: 1, 1: 2}.get(frame.data[0] >> 4)
            if begins is not None and frame.data[begins] == TRANSFER_DATA:
                yield frame


def fields(left: Artefacts, wanted: str, *names: str) -> list[list[str]]:
    """These fields of the frames that a display filter selects, by the tshark command that ess-can printed."""
    command = shlex.split(left.told["trace"]["tshark"])
    command[command.index("-Y") + 1] = wanted
    shown = run(*command, "-T", "fields", *(word for name in names for word in ("-e", name)))
    return [line.split("\t") for line in shown.splitlines()]


def test_tshark_counts_the_transfer_requests_that_were_sent(left: Artefacts) -> None:
    sent = list(transfers(left.log))
    of_36 = "uds.sid == 0x36 && uds.reply == {}"
    counter, length = "uds.td.block_sequence_counter", "iso15765.reassembled.length"
    requests = fields(left, of_36.format(0), counter, length)
    assert len(requests) == len(sent) >= 3

    # every byte that the gateway says it sent is in them, with service and counter, and nothing else
    assert sum(int(each[1]) - 2 for each in requests) == left.node["bytes_sent"] == left.node["bytes"]
    counters = [int(each[0]) for each in requests]
    assert counters == list(range(1, len(sent) + 1)), "none was repeated"

    answers = fields(left, of_36.format(1), counter)
    assert [int(each[0]) for each in answers] == counters
    assert fields(left, "uds.sid == 0x7f && uds.err.sid == 0x36 && uds.err.code != 0x78", "uds.err.code") == []


def test_tshark_reads_the_whole_conversation(left: Artefacts) -> None:
    services = {int(sid, 16) for (sid,) in fields(left, "uds.reply == 0", "uds.sid")}
    assert services >= {0x10, 0x11, 0x22, 0x27, 0x31, 0x34, 0x36, 0x37}
    assert fields(left, "_ws.malformed", "frame.number") == []
    versions = {
        value
        for (value,) in fields(left, "uds.rdbi.data_identifier == 0xf189 && uds.reply == 1", "uds.rdbi.data_record")
    }
    assert versions == {b"1.0.0".hex(), b"1.1.0".hex()}
