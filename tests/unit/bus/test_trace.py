"""What a trace holds, read back with python-can's readers, and what happens when it cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import can
import pytest

from ess_can.bus.clock import pause
from ess_can.bus.trace import SUFFIXES, TracedBus, TraceWriter, open_trace, tshark_command
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import AdapterLost, BusError, TraceUnwritable, UsageError
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import LATENCY_S, bus_pair

STARTED_AT = 1_700_000_000.0
FRAMES = (
    CanFrame(0x0A2, bytes(8)),
    CanFrame(0x123, b"", remote=True),
    CanFrame(0x18DA_F110 | EXTENDED_FLAG, b"\x02\x10\x03"),
    CanFrame(0x615, bytes(range(64)), fd=True, brs=True),
    CanFrame(0x616, bytes(12), fd=True),
)


class FailingWriter(can.BLFWriter):
    """As on a disk that fills up: the `room`-th frame does not fit any more."""

    room = 2

    def on_message_received(self, msg: can.Message) -> None:
        if self.room == 0:
            raise OSError(28, "No space left on device")
        self.room -= 1
        super().on_message_received(msg)


def never(error: TraceUnwritable) -> None:
    raise AssertionError(error)


def write(path: Path, frames: Iterable[CanFrame]) -> TraceWriter:
    """One frame each 10 ms, sent and received by turns."""

    async def run() -> TraceWriter:
        await pause(5.0)
        writer = open_trace(path, STARTED_AT, never)
        for number, frame in enumerate(frames):
            writer.record(frame, 5.0 + number * 0.010, received=number % 2 == 0)
        writer.close()
        writer.close()
        return writer

    return run_virtual(run())


def read(path: Path) -> list[can.Message]:
    return list(can.LogReader(path))


def facts(message: can.Message) -> tuple[int, bool, bytes, bool, bool, bool]:
    return (
        message.arbitration_id,
        message.is_extended_id,
        bytes(message.data),
        message.is_fd,
        message.bitrate_switch,
        message.is_remote_frame,
    )


def test_every_kind_of_frame_with_its_time_and_direction(tmp_path: Path) -> None:
    path = tmp_path / "trace.blf"
    writer = write(path, FRAMES)
    messages = read(path)
    assert (writer.frames, writer.failure) == (5, None)
    assert [facts(message) for message in messages] == [
        (0x0A2, False, bytes(8), False, False, False),
        (0x123, False, b"", False, False, True),
        (0x18DA_F110, True, b"\x02\x10\x03", False, False, False),
        (0x615, False, bytes(range(64)), True, True, False),
        (0x616, False, bytes(12), True, False, False),
    ]
    assert [message.is_rx for message in messages] == [True, False, True, False, True]
    assert [message.timestamp - STARTED_AT for message in messages] == pytest.approx(
        [0.0, 0.010, 0.020, 0.030, 0.040], abs=2e-6
    )


def test_a_remote_frame_keeps_the_length_that_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "trace.blf"
    write(path, [CanFrame(0x123, bytes(5), remote=True)])
    assert [(m.is_remote_frame, m.dlc) for m in read(path)] == [(True, 5)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_can_be_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace{suffix.upper()}"
    write(path, FRAMES[:1] + FRAMES[2:3])
    assert [m.arbitration_id for m in read(path)] == [0x0A2, 0x18DA_F110]


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one.blf", tmp_path / "other.blf"
    write(one, FRAMES)
    write(other, FRAMES)
    assert one.read_bytes() == other.read_bytes()


def test_an_old_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "trace.blf"
    write(path, FRAMES * 100)
    write(path, FRAMES[:1])
    assert len(read(path)) == 1


@pytest.mark.parametrize("name", ["nowhere/trace.blf", "nul\0.blf", "folder.blf"])
def test_a_file_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.blf").mkdir()
    with pytest.raises(TraceUnwritable, match="cannot be written") as caught:
        write(tmp_path / name, FRAMES)
    assert caught.value.why


@pytest.mark.parametrize("suffix", [".blf", ".asc", ".csv"])  # those that begin with a header
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace{suffix}"
    path.symlink_to("/dev/full")
    with pytest.raises(TraceUnwritable, match="cannot be written") as caught:
        write(path, FRAMES)
    assert caught.value.why == os.strerror(28)


@pytest.mark.parametrize("name", ["trace.txt", "trace", "trace.blf.gz"])
def test_a_format_that_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        write(tmp_path / name, FRAMES)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_ends_the_trace_and_nothing_else(tmp_path: Path) -> None:
    told: list[TraceUnwritable] = []
    inner = FailingWriter(tmp_path / "trace.blf")
    writer = TraceWriter(tmp_path / "trace.blf", inner, ahead_s=STARTED_AT, on_failure=told.append)
    for frame in FRAMES:
        writer.record(frame, 0.0, received=True)
    writer.close()
    assert told == [writer.failure]
    assert told[0].why == "No space left on device"
    assert writer.frames == 2
    assert inner.file.closed


def test_a_disk_that_is_full_at_the_end(tmp_path: Path) -> None:
    """The last container does not fit: told, not raised."""
    told: list[TraceUnwritable] = []
    (tmp_path / "full.blf").symlink_to("/dev/full")
    inner = can.BLFWriter(tmp_path / "full.blf")
    writer = TraceWriter(tmp_path / "full.blf", inner, ahead_s=0.0, on_failure=told.append)
    writer.record(FRAMES[0], 0.0, received=True)
    writer.close()
    assert [error.why for error in told] == ["No space left on device"]
    assert inner.file.closed


# --- around a bus -------------------------------------------------------------------------------


def test_a_traced_bus_records_both_directions_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trace.blf"
    heard: list[CanFrame] = []
    confirmed: list[float] = []

    async def run() -> None:
        inner, peer = bus_pair()
        bus = TracedBus(inner, open_trace(path, STARTED_AT, never))
        bus.subscribe((0x0A2,), lambda frame, _at: heard.append(frame))
        peer.send(CanFrame(0x0A2, b"\x01"))  # for us
        peer.send(CanFrame(0x0A3, b"\x02"))  # nobody subscribed
        await pause(0.1)
        bus.send(CanFrame(0x615, b"\x03"), confirmed.append)
        bus.send(CanFrame(0x616, b"\x04"), bulk=True)
        await pause(0.1)
        assert not bus.fd
        bus.close()
        assert inner.listeners == 1  # the subscription of this test
        assert peer.sent[0] in heard

    run_virtual(run())
    assert [(m.arbitration_id, m.is_rx) for m in read(path)] == [
        (0x0A2, True),
        (0x0A3, True),
        (0x615, False),
        (0x616, False),
    ]
    assert heard == [CanFrame(0x0A2, b"\x01")]
    assert confirmed == pytest.approx([0.1 + LATENCY_S])


def test_what_this_host_sends_for_us_is_recorded_as_sent_and_a_second_tester_as_received(tmp_path: Path) -> None:
    path = tmp_path / "trace.blf"
    guarded: list[CanFrame] = []
    request = CanFrame(0x615, b"\x03")

    async def run() -> None:
        inner, _ = bus_pair()
        bus = TracedBus(inner, open_trace(path, STARTED_AT, never))
        bus.subscribe((request.can_id,), lambda frame, _at: guarded.append(frame))
        inner.deliver(request)
        bus.adopt(request.can_id)
        bus.adopt(request.can_id)
        assert set(inner.adopted) == {request.can_id}
        inner.deliver(request, of_this_host=True)
        inner.deliver(request)
        inner.deliver(request, of_this_host=True)
        inner.deliver(CanFrame(0x616, b""), of_this_host=True)
        bus.close()
        assert inner.listeners == 1

    run_virtual(run())
    assert [(m.arbitration_id, m.is_rx) for m in read(path)] == [
        (0x615, True),
        (0x615, False),
        (0x615, True),
        (0x615, False),
        (0x616, True),
    ]
    assert guarded == [request, request]


def test_what_was_never_sent_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "trace.blf"
    reported: list[BusError] = []

    async def run() -> None:
        inner, _ = bus_pair()
        bus = TracedBus(inner, open_trace(path, STARTED_AT, never))
        bus.watch(reported.append)
        inner.die(AdapterLost("pulled"))
        with pytest.raises(AdapterLost):
            bus.send(CanFrame(0x615, b"\x03"))
        bus.close()

    run_virtual(run())
    assert read(path) == []
    assert [error.name for error in reported] == ["ADAPTER_LOST"]


# --- the command for tshark ---------------------------------------------------------------------


def test_tshark_is_told_the_identifiers() -> None:
    command = tshark_command(
        Path("a b.blf"), [(0x615, 0x515), (0x18DA_0001 | EXTENDED_FLAG, 0x18DA_0002 | EXTENDED_FLAG)]
    )
    assert command == (
        "tshark -r 'a b.blf' -o iso15765.can.ids:1301,1557 -o iso15765.can.extended_ids:416940033,416940034 "
        "-d iso15765.subdissector,uds -Y uds"
    )


def test_without_identifiers_of_a_kind_tshark_is_not_told_of_it() -> None:
    assert "extended" not in tshark_command(Path("a.blf"), [(0x615, 0x515)])
    assert "can.ids" not in tshark_command(Path("a.blf"), [(1 | EXTENDED_FLAG, 2 | EXTENDED_FLAG)])


def test_tshark_reads_no_other_format() -> None:
    assert tshark_command(Path("a.asc"), [(0x615, 0x515)]) == ""
