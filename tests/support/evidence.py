"""Bad evidence on the wire: what a frame that spoke for "high voltage off" becomes, and when it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ess_can.can.frame import CanFrame
from ess_can.signals.dbc import Route, StationCodec
from ess_can.signals.e2e import protect
from ess_can.signals.messages import (
    BmsHvNotice,
    BmsHvStatus,
    ContactorState,
    HvNoticeCondition,
    Message,
    PcsState,
    PcsStatus,
)
from ess_can.sim.wire import WireFault

Spoil = Callable[[StationCodec, CanFrame], CanFrame | WireFault]


@dataclass(frozen=True, slots=True)
class Bad:
    """One kind of bad evidence: of which message, and what becomes of its frame.

    `valid_s` is for how long the last good frame before it still counts: not at all unless it is silence.
    """

    name: str
    message_type: type[BmsHvStatus | BmsHvNotice | PcsStatus]
    spoil: Spoil
    valid_s: float = 0.0

    def can_id(self, codec: StationCodec, rack: int) -> int:
        """Of its frames; what is said of a rack is said of this one."""
        return codec.route(self.message_type, 1 if self.message_type is PcsStatus else rack).can_id


def rack_says(change: Callable[[BmsHvStatus], BmsHvStatus]) -> Spoil:
    def spoil(codec: StationCodec, frame: CanFrame) -> CanFrame:
        message = _message(codec, frame)
        assert isinstance(message, BmsHvStatus)
        return _instead(codec, frame, change(message))

    return spoil


def pcs_says(change: Callable[[PcsStatus], PcsStatus]) -> Spoil:
    def spoil(codec: StationCodec, frame: CanFrame) -> CanFrame:
        message = _message(codec, frame)
        assert isinstance(message, PcsStatus)
        return _instead(codec, frame, change(message))

    return spoil


def rack_notifies(change: Callable[[BmsHvNotice], BmsHvNotice]) -> Spoil:
    def spoil(codec: StationCodec, frame: CanFrame) -> CanFrame:
        message = _message(codec, frame)
        assert isinstance(message, BmsHvNotice)
        return _instead(codec, frame, change(message))

    return spoil


def _message(codec: StationCodec, frame: CanFrame) -> Message:
    decoded = codec.decode(frame.can_id, frame.data)
    assert decoded is not None
    return decoded.message


def _route(codec: StationCodec, frame: CanFrame) -> Route:
    decoded = codec.decode(frame.can_id, frame.data)
    assert decoded is not None
    return decoded.route


def _instead(codec: StationCodec, frame: CanFrame, message: Message) -> CanFrame:
    """The same frame with this content: its sender says something else."""
    route = _route(codec, frame)
    assert route.e2e_data_id is not None
    return frame._replace(data=protect(codec.encode(message, route.index), route.e2e_data_id, frame.data[2]))


def bad_check(_codec: StationCodec, frame: CanFrame) -> CanFrame:
    return frame._replace(data=frame.data[:-1] + bytes((frame.data[-1] ^ 1,)))


def counter_jump(codec: StationCodec, frame: CanFrame) -> CanFrame:
    """A counter that differs from the last one by five, whichever it was: by each frame once more."""
    data_id = _route(codec, frame).e2e_data_id
    assert data_id is not None
    return frame._replace(data=protect(frame.data, data_id, frame.data[2] * 5 % 256))


def short(_codec: StationCodec, frame: CanFrame) -> CanFrame:
    return frame._replace(data=frame.data[:-1])


def silence(_codec: StationCodec, _frame: CanFrame) -> WireFault:
    return WireFault.LOSE


def _with_plus(state: ContactorState) -> Spoil:
    return rack_says(lambda m: replace(m, main_plus=state))


def _with_minus(state: ContactorState) -> Spoil:
    return rack_says(lambda m: replace(m, main_minus=state))


def _with_precharge(state: ContactorState) -> Spoil:
    return rack_says(lambda m: replace(m, precharge=state))


def _with_pcs_contactors(state: ContactorState) -> Spoil:
    return pcs_says(lambda m: replace(m, contactors=state))


def _in_state(state: PcsState) -> Spoil:
    return pcs_says(lambda m: replace(m, state=state))


def _notifying(condition: HvNoticeCondition) -> Spoil:
    return rack_notifies(lambda m: replace(m, condition=condition))


NOT_OPEN = tuple(state for state in ContactorState if state is not ContactorState.OPEN)
NOT_STANDBY = tuple(state for state in PcsState if state is not PcsState.STANDBY)
NOT_OFF = tuple(condition for condition in HvNoticeCondition if condition is not HvNoticeCondition.DISCONNECTED)

KINDS: tuple[Bad, ...] = (
    *(Bad(f"main+ {state.name}", BmsHvStatus, _with_plus(state)) for state in NOT_OPEN),
    *(Bad(f"main- {state.name}", BmsHvStatus, _with_minus(state)) for state in NOT_OPEN),
    *(Bad(f"precharge {state.name}", BmsHvStatus, _with_precharge(state)) for state in NOT_OPEN),
    Bad("weld+", BmsHvStatus, rack_says(lambda m: replace(m, weld_plus=True))),
    Bad("weld-", BmsHvStatus, rack_says(lambda m: replace(m, weld_minus=True))),
    Bad("rack does not say off", BmsHvStatus, rack_says(lambda m: replace(m, hv_off=False))),
    Bad("link at 60 V", BmsHvStatus, rack_says(lambda m: replace(m, link_voltage_v=60.0))),
    Bad("link voltage invalid", BmsHvStatus, rack_says(lambda m: replace(m, link_voltage_v=None))),
    Bad("1 A in the rack", BmsHvStatus, rack_says(lambda m: replace(m, current_a=1.0))),
    Bad("rack current invalid", BmsHvStatus, rack_says(lambda m: replace(m, current_a=None))),
    Bad("HVIL open", BmsHvStatus, rack_says(lambda m: replace(m, hvil_closed=False))),
    Bad("emergency stop at the rack", BmsHvStatus, rack_says(lambda m: replace(m, emergency_stop=True))),
    *(Bad(f"PCS contactors {state.name}", PcsStatus, _with_pcs_contactors(state)) for state in NOT_OPEN),
    *(Bad(f"PCS {state.name}", PcsStatus, _in_state(state)) for state in NOT_STANDBY),
    Bad("PCS not locked", PcsStatus, pcs_says(lambda m: replace(m, lock_acknowledged=False))),
    Bad("1 A at the PCS", PcsStatus, pcs_says(lambda m: replace(m, dc_current_a=1.0))),
    Bad("PCS current invalid", PcsStatus, pcs_says(lambda m: replace(m, dc_current_a=None))),
    Bad("emergency stop at the PCS", PcsStatus, pcs_says(lambda m: replace(m, emergency_stop=True))),
    *(Bad(f"notice {condition.name}", BmsHvNotice, _notifying(condition)) for condition in NOT_OFF),
    Bad("notice with a stale token", BmsHvNotice, rack_notifies(lambda m: replace(m, token=0)), 0.25),
    Bad("bad check of BMS_HvStatus", BmsHvStatus, bad_check),
    Bad("bad check of BMS_HvNotice", BmsHvNotice, bad_check),
    Bad("bad check of PCS_Status", PcsStatus, bad_check),
    Bad("counter jump of BMS_HvStatus", BmsHvStatus, counter_jump),
    Bad("counter jump of BMS_HvNotice", BmsHvNotice, counter_jump),
    Bad("counter jump of PCS_Status", PcsStatus, counter_jump),
    Bad("short BMS_HvStatus", BmsHvStatus, short),
    Bad("short BMS_HvNotice", BmsHvNotice, short),
    Bad("short PCS_Status", PcsStatus, short),
    Bad("BMS_HvStatus silent", BmsHvStatus, silence, 0.2),
    Bad("BMS_HvNotice silent", BmsHvNotice, silence, 0.25),
    Bad("PCS_Status silent", PcsStatus, silence, 0.2),
)
"""Every kind."""
