"""The committed sample firmware runs on an emulated Cortex-M7 and speaks the DBC's language.

Frames are judged by an independent implementation of E2E and decoded by our codec, so DBC, firmware and package agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import e2e.p05
import pytest

from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.resources import sample_path
from ess_can.signals.dbc import StationCodec
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
    HvNoticeCondition,
    ImageState,
    Message,
    NodeInfo,
    PcsCommandCode,
    RackState,
)
from tests.interop.stm32h743 import DTCM, Board, FirmwareReset

VERSIONS = ("1.0.0", "1.1.0")
SCAN_MS = 240


def board(name: str, version: str = "1.1.0", *, rack: int = 1) -> Board:
    return Board(sample_path(f"{name}-{version}.bin").read_bytes(), rack=rack)


@pytest.fixture(scope="module")
def codec() -> StationCodec:
    return StationCodec.load()


M = TypeVar("M", bound=Message)


def last(codec: StationCodec, frames: list[CanFrame], kind: type[M]) -> M:
    return [d.message for f in frames if (d := codec.decode(f.can_id, f.data)) and isinstance(d.message, kind)][-1]


class Ems:
    """Sends EMS_PcsCommand every 50 ms, as the gateway does."""

    def __init__(self, codec: StationCodec, rack: Board) -> None:
        self.codec, self.rack, self.counter = codec, rack, 0

    def frame(self, command: PcsCommandCode) -> CanFrame:
        route = self.codec.route(EmsPcsCommand)
        assert route.e2e_data_id is not None
        data = bytearray(self.codec.encode(EmsPcsCommand(command)))
        data[2] = self.counter
        self.counter = (self.counter + 1) % 256
        e2e.p05.e2e_p05_protect(data, route.e2e_data_id, increment_counter=False)
        return CanFrame(route.can_id, bytes(data))

    def order(
        self,
        command: PcsCommandCode,
        milliseconds: int,
        spoil: Callable[[CanFrame], CanFrame] = lambda frame: frame,
    ) -> list[CanFrame]:
        frames: list[CanFrame] = []
        for _ in range(milliseconds // 50):
            self.rack.receive(spoil(self.frame(command)))
            frames += self.rack.run(50)
        return frames


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["bmu", "comm_gateway"])
def test_first_frame_tells_who_it_is(codec: StationCodec, name: str, version: str) -> None:
    node = board(name, version)
    (_, frame), *others = node.sent
    decoded = codec.decode(frame.can_id, frame.data)
    assert not others
    assert decoded is not None
    info = decoded.message
    assert isinstance(info, NodeInfo)
    assert decoded.node == NodeAddress.parse("bmu1" if name == "bmu" else "comm_gateway")
    assert info.node_type is NodeType[name.upper()]
    assert info.version == Version.parse(version)
    assert info.dbc_fingerprint == codec.fingerprint
    assert (info.bank, info.boot_counter, info.image_state, info.hardware_id) == (0, 7, ImageState.CONFIRMED, 0x11)


def test_image_without_handover_counts_as_on_trial(codec: StationCodec) -> None:
    node = Board(sample_path("bmu-1.1.0.bin").read_bytes(), handover=bytes(16))
    info = last(codec, [frame for _, frame in node.sent], NodeInfo)
    assert info.image_state is ImageState.TRIAL


def test_vector_table_moves_to_dtcm_where_it_is_aligned() -> None:
    node = board("bmu")
    table = node.vector_table
    assert table in range(DTCM, DTCM + 0x2_0000, 1024)  # 166 vectors: 1024 bytes
    image = sample_path("bmu-1.1.0.bin").read_bytes()
    assert [node.word(table + 4 * i) for i in range(166)] == [
        int.from_bytes(image[4 * i : 4 * i + 4], "little") for i in range(166)
    ]


@pytest.mark.parametrize("rack", [1, 4, 8])
@pytest.mark.parametrize("version", VERSIONS)
def test_bmu_sends_telemetry_with_the_cycle_times_of_the_dbc(codec: StationCodec, version: str, rack: int) -> None:
    node = board("bmu", version, rack=rack)
    frames = node.run(1000)
    expected = {
        codec.route(BmsHvStatus, rack).can_id: 20,
        codec.route(BmsState, rack).can_id: 5,
        codec.route(BmsCellSummary, rack).can_id: 10,
        codec.route(BmsAlarms, rack).can_id: 10,
        codec.node_route(NodeAddress(NodeType.BMU, rack)).can_id: 2,
    }
    assert Counter(frame.can_id for frame in frames) == expected
    assert node.watchdog_reloads >= 1000

    status = codec.route(BmsHvStatus, rack)
    assert status.e2e_data_id is not None
    protected = [frame.data for frame in frames if frame.can_id == status.can_id]
    assert all(e2e.p05.e2e_p05_check(data, status.e2e_data_id) for data in protected)
    assert [data[2] for data in protected] == list(range(20))


def test_bmu_measures(codec: StationCodec) -> None:
    node = board("bmu")
    node.current_a = -12.5
    frames = node.run(SCAN_MS + 560)
    status = last(codec, frames, BmsHvStatus)
    assert status.current_a == pytest.approx(-12.5, abs=0.1)
    assert status.link_voltage_v == 0.0
    assert status.hvil_closed
    assert not status.emergency_stop
    assert not status.hv_off  # 12.5 A flow
    cells = last(codec, frames, BmsCellSummary)
    assert cells.cell_voltage_min_v == pytest.approx(3.30, abs=0.006)
    assert cells.cell_voltage_max_v == pytest.approx(3.30, abs=0.006)
    assert cells.cell_temperature_max_degc == 25.0
    group = last(codec, frames, BmsCellGroup)
    assert group.cell_voltage_a_v == pytest.approx(3.30, abs=0.006)
    state = last(codec, frames, BmsState)
    assert state.string_voltage_v == pytest.approx(240 * 3.30, abs=1.0)
    assert state.aux_voltage_v == pytest.approx(24.0, abs=0.2)
    assert state.state is RackState.OPEN
    assert last(codec, frames, BmsAlarms) == BmsAlarms()


def test_unmeasured_cells_are_invalid_not_zero(codec: StationCodec) -> None:
    frames = board("bmu").run(SCAN_MS - 40)
    assert last(codec, frames, BmsCellSummary).cell_voltage_min_v is None
    assert last(codec, frames, BmsState).string_voltage_v is None


@pytest.mark.parametrize(("volt", "low", "high"), [(2.5, 0, 0), (3.25, 15, 26), (3.332, 55, 85), (3.6, 100, 100)])
@pytest.mark.parametrize("version", VERSIONS)
def test_state_of_charge_follows_the_voltage_at_rest(
    codec: StationCodec, version: str, volt: float, low: float, high: float
) -> None:
    node = board("bmu", version)
    node.cell_v = volt
    soc = last(codec, node.run(400), BmsState).soc_percent
    assert soc is not None
    assert low <= soc <= high


def test_releases_differ_in_state_of_charge(codec: StationCodec) -> None:
    seen = []
    for version in VERSIONS:
        node = board("bmu", version)
        node.cell_v, node.cell_degc = 3.29, 17.0
        seen.append(last(codec, node.run(400), BmsState).soc_percent)
    assert seen[0] != seen[1]


def test_poll_is_answered_with_its_token(codec: StationCodec) -> None:
    node = board("bmu")
    node.run(1000)
    node.receive(CanFrame(codec.route(EmsHvStatusPoll).can_id, codec.encode(EmsHvStatusPoll(0xC0FFEE))))
    frames = node.run(1)
    notice = last(codec, frames, BmsHvNotice)
    route = codec.route(BmsHvNotice)
    assert route.e2e_data_id is not None
    assert [e2e.p05.e2e_p05_check(f.data, route.e2e_data_id) for f in frames if f.can_id == route.can_id] == [True]
    assert (notice.token, notice.condition) == (0xC0FFEE, HvNoticeCondition.DISCONNECTED)
    assert notice.off_duration_s == pytest.approx(1.0, abs=0.1)


def test_closes_by_precharge_and_opens_on_order(codec: StationCodec) -> None:
    node = board("bmu")
    ems = Ems(codec, node)
    node.run(300)
    ems.order(PcsCommandCode.CLOSE, 50)
    assert node.coils == 0b110  # minus and precharge first
    status = last(codec, ems.order(PcsCommandCode.CLOSE, 450), BmsHvStatus)
    assert (status.main_plus, status.main_minus, status.precharge, status.hv_off) == (
        ContactorState.CLOSED,
        ContactorState.CLOSED,
        ContactorState.OPEN,
        False,
    )
    status = last(codec, ems.order(PcsCommandCode.OPEN, 100), BmsHvStatus)
    assert (status.main_plus, status.main_minus, status.hv_off) == (ContactorState.OPEN, ContactorState.OPEN, True)


def test_never_opens_above_the_break_current(codec: StationCodec) -> None:
    node = board("bmu")
    ems = Ems(codec, node)
    node.run(300)
    ems.order(PcsCommandCode.CLOSE, 500)
    node.current_a = 230.0
    ems.order(PcsCommandCode.OPEN, 200)
    assert node.coils == 0b011
    node.current_a = 0.0
    ems.order(PcsCommandCode.OPEN, 50)
    assert node.coils == 0


def test_damaged_or_repeated_order_does_not_close(codec: StationCodec) -> None:
    node = board("bmu")
    ems = Ems(codec, node)
    node.run(300)
    ems.order(PcsCommandCode.RELEASE, 50)
    ems.order(PcsCommandCode.CLOSE, 300, lambda f: CanFrame(f.can_id, f.data[:4] + bytes([f.data[4] ^ 1]) + f.data[5:]))
    assert node.coils == 0
    ems.counter = 0
    stale = ems.frame(PcsCommandCode.RELEASE)
    ems.order(PcsCommandCode.CLOSE, 300, lambda _: stale)
    assert node.coils == 0


def test_locked_rack_stays_open_and_silence_never_closes(codec: StationCodec) -> None:
    node = board("bmu")
    ems = Ems(codec, node)
    node.run(300)
    ems.order(PcsCommandCode.LOCK, 50)
    ems.order(PcsCommandCode.CLOSE, 300)
    assert node.coils == 0
    ems.order(PcsCommandCode.UNLOCK, 50)
    node.run(1000)
    assert node.coils == 0


def test_welded_contactor_is_told(codec: StationCodec) -> None:
    node = board("bmu")
    node.stuck_closed = 0b001
    frames = node.run(300)
    status = last(codec, frames, BmsHvStatus)
    assert status.weld_plus
    assert not status.hv_off
    assert last(codec, frames, BmsAlarms).weld
    assert last(codec, frames, BmsState).state is RackState.FAULT


def test_fault_restarts_the_node() -> None:
    node = board("bmu")
    node.run(1)
    with pytest.raises(FirmwareReset):
        node._exception(3)  # HardFault


def modbus_crc(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


INVALID = 0x8000
SENSORS = 3


def ask(node: Board, first: int, count: int) -> bytes:
    """The answer to Modbus function 4, without address and CRC."""
    node.serial_out.clear()
    request = bytes([1, 4, *first.to_bytes(2, "big"), *count.to_bytes(2, "big")])
    node.serial_in += request + modbus_crc(request)
    node.run(6)
    answer = bytes(node.serial_out)
    assert answer[0] == 1
    assert answer[-2:] == modbus_crc(answer[:-2])
    return answer[1:-2]


def registers(node: Board) -> list[int]:
    """All of them: read until the number does not exist."""
    values: list[int] = []
    while (answer := ask(node, len(values), 1))[0] == 4:
        values.append(int.from_bytes(answer[2:], "big"))
    assert answer == bytes([0x84, 2])
    return values


@pytest.mark.parametrize(("version", "expires"), [("1.0.0", False), ("1.1.0", True)])
def test_comm_gateway_offers_telemetry_as_registers(codec: StationCodec, version: str, expires: bool) -> None:
    node = board("comm_gateway", version)
    node.run(400)
    before = registers(node)
    assert set(before[:-SENSORS]) == {INVALID}  # nothing was heard
    assert INVALID not in before[-SENSORS:-1]  # thermistors in the middle of their range

    state = BmsState(RackState.FAULT, 50.0, 790.0, None)
    route = codec.route(BmsState, 2)
    assert route.can_id in node.filters()
    node.receive(CanFrame(route.can_id, codec.encode(state, 2)))
    node.run(1)
    after = registers(node)
    changed = [number for number, value in enumerate(after[:-SENSORS]) if value != INVALID]
    assert [after[number] for number in changed] == [4, 500, 3160]

    node.run(5100)
    value = int.from_bytes(ask(node, changed[0], 1)[2:], "big")
    assert value == (INVALID if expires else 4)


def test_comm_gateway_ignores_a_status_that_fails_e2e(codec: StationCodec) -> None:
    node = board("comm_gateway")
    route = codec.route(BmsHvStatus, 1)
    node.receive(CanFrame(route.can_id, bytes(8)))
    node.run(1)
    assert all(value == INVALID for value in registers(node)[:-SENSORS])


def test_comm_gateway_refuses_other_functions() -> None:
    node = board("comm_gateway")
    request = bytes([1, 6, 0, 0, 0, 1])
    node.serial_in += request + modbus_crc(request)
    node.run(6)
    assert bytes(node.serial_out)[:3] == bytes([1, 0x86, 1])
