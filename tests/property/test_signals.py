"""Every message survives the wire, and nothing on the wire upsets the codec."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.can.frame import EXTENDED_FLAG
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.binding import FAMILIES
from ess_can.signals.dbc import StationCodec
from ess_can.signals.e2e import E2eMonitor, E2eSender, Verdict, check, protect
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

CODEC = StationCodec.load()
KNOWN_IDS = [route.can_id for message_type in FAMILIES for route in CODEC.routes(message_type)]
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)
T = TypeVar("T")


def steps(low: int, high: int, step: float, offset: float = 0.0) -> st.SearchStrategy[float]:
    """Numbers that the wire carries exactly."""
    return st.integers(low, high).map(lambda raw: round(raw * step + offset, 3))


def bits(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**count - 1)


def maybe(values: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | values


FLAG = st.booleans()
CONTACTOR = st.sampled_from(ContactorState)
CURRENT = maybe(steps(-32767, 32767, 0.1))
LINK = maybe(steps(0, 8190, 0.25))
CELL = maybe(steps(0, 16382, 0.001))
TEMPERATURE = maybe(steps(0, 254, 1.0, -40.0))

MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(EmsPcsCommand, st.sampled_from(PcsCommandCode), steps(-32768, 32767, 0.1), FLAG),
    st.builds(EmsHvStatusPoll, bits(24)),
    st.builds(
        EmsUpgradeNotice,
        st.sampled_from(UpgradePhase),
        st.sampled_from(NodeType),
        bits(8),
        steps(0, 65535, 0.1),
        bits(32),
    ),
    st.builds(PcsStatus, st.sampled_from(PcsState), CONTACTOR, FLAG, FLAG, FLAG, FLAG, FLAG, bits(8), CURRENT),
    st.builds(BmsHvStatus, CONTACTOR, CONTACTOR, CONTACTOR, FLAG, FLAG, FLAG, FLAG, FLAG, LINK, CURRENT),
    st.builds(BmsHvNotice, bits(24), st.sampled_from(HvNoticeCondition), steps(0, 4095, 0.1)),
    st.builds(BmsState, st.sampled_from(RackState), maybe(steps(0, 1000, 0.1)), LINK, maybe(steps(0, 254, 0.125))),
    st.builds(BmsCellSummary, CELL, CELL, TEMPERATURE, TEMPERATURE),
    st.builds(BmsCellGroup, st.integers(1, 4), CELL, CELL, CELL),
    st.builds(BmsAlarms, *[FLAG] * 12),
    st.builds(
        NodeInfo,
        st.sampled_from(NodeType),
        bits(1),
        bits(4),
        st.sampled_from(ImageState),
        bits(14),
        bits(8),
        bits(8),
        bits(8),
        bits(16),
    ),
)


@SETTINGS
@given(MESSAGES, st.integers(1, 4))
def test_every_message_survives_the_wire(message: Message, rack: int) -> None:
    index: int | NodeAddress = rack if len(CODEC.routes(type(message))) == 4 else 1
    if isinstance(message, NodeInfo):
        index = NodeAddress(NodeType.BMU, rack)
    route = CODEC.route(type(message), index)
    data = CODEC.encode(message, index)
    assert len(data) == route.length
    decoded = CODEC.decode(route.can_id, data)
    assert decoded is not None
    assert decoded.message == message
    assert decoded.route == route


@SETTINGS
@given(st.floats(0.0, 2047.5), st.floats(-3276.7, 3276.7))
def test_a_number_arrives_within_half_a_step(volts: float, amperes: float) -> None:
    closed = ContactorState.CLOSED
    status = BmsHvStatus(closed, closed, closed, True, False, False, False, False, volts, amperes)
    decoded = CODEC.decode(CODEC.route(BmsHvStatus).can_id, CODEC.encode(status))
    assert decoded is not None
    assert isinstance(decoded.message, BmsHvStatus)
    assert decoded.message.link_voltage_v is not None
    assert decoded.message.current_a is not None
    assert abs(decoded.message.link_voltage_v - volts) <= 0.125 + 1e-9
    assert abs(decoded.message.current_a - amperes) <= 0.05 + 1e-9


@SETTINGS
@given(
    st.sampled_from(KNOWN_IDS) | st.integers(0, 0x7FF) | st.integers(EXTENDED_FLAG, EXTENDED_FLAG + 0x1FFF_FFFF),
    st.binary(min_size=8, max_size=8) | st.binary(max_size=64),
)
def test_any_frame_is_decoded_or_counted(can_id: int, data: bytes) -> None:
    counters = CODEC.counters
    before = counters.unknown_id + counters.wrong_length + counters.bad_value
    decoded = CODEC.decode(can_id, data)
    after = counters.unknown_id + counters.wrong_length + counters.bad_value
    assert after - before == (decoded is None)
    if decoded is not None:
        # what was understood can be said again and means the same
        index = decoded.node if isinstance(decoded.message, NodeInfo) else decoded.index
        assert index is not None
        again = CODEC.decode(can_id, CODEC.encode(decoded.message, index))
        assert again == decoded


@SETTINGS
@given(st.binary(min_size=3, max_size=64), bits(16), bits(8))
def test_what_is_protected_checks(data: bytes, data_id: int, counter: int) -> None:
    protected = protect(data, data_id, counter)
    assert check(protected, data_id)
    assert (protected[2], protected[3:]) == (counter, data[3:])


@SETTINGS
@given(st.lists(st.none() | st.binary(max_size=12) | st.integers(1, 5), max_size=40))
def test_a_monitor_follows_any_traffic(traffic: list[bytes | int | None]) -> None:
    """Bytes are noise, a number is a valid frame after as many were sent: only those can be good."""
    sender, monitor = E2eSender(0x0E11), E2eMonitor(0x0E11, max_delta=3)
    for now, item in enumerate(traffic):
        row, good = monitor.consecutive_ok, monitor.last_good_at
        frame = item if not isinstance(item, int) else [sender.protect(bytes(8)) for _ in range(item)][-1]
        verdict = monitor.receive(frame, float(now))
        if item is None:
            assert (verdict, monitor.consecutive_ok) == (Verdict.NO_NEW_DATA, row)
        elif isinstance(item, bytes):
            # the noise that happens to pass has one chance in 65536; this seed draws none
            assert (verdict, monitor.consecutive_ok) == (Verdict.ERROR, 0)
        else:
            expected = {1: Verdict.OK, 2: Verdict.OK_SOME_LOST, 3: Verdict.OK_SOME_LOST}
            assert verdict is expected.get(item, Verdict.WRONG_SEQUENCE)
            assert monitor.consecutive_ok == (row + 1 if item == 1 else 0)
            if item <= 3:
                assert monitor.last_good_at == float(now)
                continue
        assert monitor.last_good_at == good
