"""The proof that high voltage is off, worked out from what reached the receivers on the wire, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ess_can.campaign.monitors.wire_view import WireView
from ess_can.can.frame import CanFrame
from ess_can.signals.dbc import Route, StationCodec
from ess_can.signals.e2e import E2eMonitor, Verdict
from ess_can.signals.messages import (
    BmsHvNotice,
    BmsHvStatus,
    ContactorState,
    EmsHvStatusPoll,
    HvNoticeCondition,
    Message,
    PcsState,
    PcsStatus,
)

EVIDENCE_AGE_S = 0.250
_IN_A_ROW = 10
_TOKEN_AGE_S = 0.5
_OFF_V = 60.0
_OFF_A = 1.0
_MAX_DELTA = 3
_APART = 0.5
"""In cycles: what comes sooner after one that counted is from a queue, and settles nothing."""
_STRETCH = 1.25
"""In cycles: by how much one status can be newer than the one whose counter comes next before it."""


@dataclass(slots=True)
class Source:
    """One sender's word.  `good_at` is None while its last word was no evidence; `mute` if that is not for what it said
    but for how it came: not at all yet, or invalid."""

    name: str
    needed: int
    monitor: E2eMonitor
    cycle_s: float = 0.0
    good_at: float | None = None
    in_a_row: int = 0
    counted_at: float = -inf
    mute: bool = True

    @property
    def settles(self) -> bool:
        """It takes time to prove anything."""
        return self.needed > 1

    def valid_until(self) -> float:
        """When its evidence ends if nothing more comes."""
        return -inf if self.good_at is None else self.good_at + EVIDENCE_AGE_S


class WireEvidence:
    """`lost_at` is since when the proof does not stand any more (minus infinity: it never stood), None while it does;
    `silent` says whether it ended by silence or invalid data.  Ask `standing` first: it looks at the clock.
    """

    def __init__(self, view: WireView, codec: StationCodec, racks: tuple[int, ...]) -> None:
        self.lost_at: float | None = -inf
        self.silent = True
        self.why = "nothing was proved yet"
        pcs = codec.route(PcsStatus)
        self.pcs = Source(pcs.name, 1, E2eMonitor(pcs.e2e_data_id or 0, _MAX_DELTA))
        """What the nodes hear of the PCS: they listen whoever commands."""
        self.pcs_bad_at = -inf
        """When the PCS's last word came that was no evidence."""
        self._codec = codec
        self._tokens: dict[int, float] = {}
        self._sources = [Source(pcs.name, _IN_A_ROW, E2eMonitor(pcs.e2e_data_id or 0, _MAX_DELTA), pcs.cycle_s or 0.0)]
        self._listen(view, pcs, self._sources[0])
        self._listen(view, pcs, self.pcs)
        for rack in racks:
            for message_type, needed in ((BmsHvStatus, _IN_A_ROW), (BmsHvNotice, 1)):
                route = codec.route(message_type, rack)
                monitor = E2eMonitor(route.e2e_data_id or 0, _MAX_DELTA)
                source = Source(route.name, needed, monitor, route.cycle_s or 0.0)
                self._sources.append(source)
                self._listen(view, route, source)
        view.sent.setdefault(codec.route(EmsHvStatusPoll).can_id, []).append(self._on_poll)

    def gateway_started(self, at: float) -> None:
        """A new gateway process listens: it heard nothing before, and judges the next frame of each as a first one."""
        for source in self._sources:
            source.monitor = E2eMonitor(source.monitor.data_id, _MAX_DELTA)
            self._bad(source, at, f"{source.name} was not heard yet", mute=True)

    def _listen(self, view: WireView, route: Route, source: Source) -> None:
        def on_frame(frame: CanFrame, at: float, _sender: str) -> None:
            self.standing(at)
            verdict = source.monitor.receive(frame.data, at)
            decoded = self._codec.decode(frame.can_id, frame.data)
            message = None if decoded is None else decoded.message
            if message is None or verdict not in (Verdict.OK, Verdict.OK_SOME_LOST):
                self._bad(source, at, f"{source.name} is invalid ({verdict.value})", mute=True)
                return
            self._judge(source, message, at, counts=verdict is Verdict.OK)

        view.delivered.setdefault(route.can_id, []).append(on_frame)

    def _on_poll(self, frame: CanFrame, at: float, _sender: str) -> None:
        decoded = self._codec.decode(frame.can_id, frame.data)
        if decoded is not None and isinstance(decoded.message, EmsHvStatusPoll):
            if len(self._tokens) > 64:
                self._tokens = {token: asked for token, asked in self._tokens.items() if at - asked <= _TOKEN_AGE_S}
            self._tokens[decoded.message.token] = at

    def _judge(self, source: Source, message: Message, at: float, *, counts: bool) -> None:
        seen_at = at
        if isinstance(message, BmsHvNotice):
            asked_at = self._tokens.get(message.token, -inf)
            if at - asked_at > _TOKEN_AGE_S:
                return  # answers nobody: says nothing
            counts = True  # its token says that it is new, whatever was lost before it
            seen_at = max(asked_at, source.good_at or asked_at)
        if not _is_off(message):
            self._bad(source, at, f"{source.name} does not say that high voltage is off", mute=False)
            return
        if source.good_at is None or source.valid_until() < at:
            source.in_a_row = 0
        elif source.settles and counts:
            seen_at = min(at, source.good_at + _STRETCH * source.cycle_s)
        source.good_at = seen_at
        if not counts:
            source.in_a_row = 0
        elif source.in_a_row == 0 or not source.settles or at - source.counted_at >= _APART * source.cycle_s:
            source.in_a_row += 1
            source.counted_at = at
        source.mute = False
        if self.lost_at is not None and self._complete(at):
            self.lost_at = None

    def _complete(self, at: float) -> bool:
        return all(source.in_a_row >= source.needed and source.valid_until() >= at for source in self._sources)

    def _bad(self, source: Source, at: float, why: str, *, mute: bool) -> None:
        if source is self.pcs and source.good_at is not None:
            self.pcs_bad_at = min(at, source.valid_until())
        source.good_at = None
        source.in_a_row = 0
        source.mute = mute
        if source is not self.pcs:
            self._lose(at, why, silent=mute)

    def _lose(self, at: float, why: str, *, silent: bool) -> None:
        if self.lost_at is None:
            self.lost_at = at
        self.why, self.silent = why, silent

    def standing(self, at: float) -> bool:
        """Whether the proof stands at `at`."""
        if self.lost_at is None:
            for source in self._sources:
                if source.valid_until() < at:
                    self._lose(source.valid_until(), f"{source.name} is silent", silent=True)
        return self.lost_at is None


def _is_off(message: Message) -> bool:
    if isinstance(message, BmsHvStatus):
        return (
            message.main_plus is message.main_minus is message.precharge is ContactorState.OPEN
            and not (message.weld_plus or message.weld_minus)
            and message.hv_off
            and message.link_voltage_v is not None
            and message.link_voltage_v < _OFF_V
            and message.current_a is not None
            and abs(message.current_a) < _OFF_A
        )
    if isinstance(message, PcsStatus):
        return (
            message.contactors is ContactorState.OPEN
            and message.state is PcsState.STANDBY
            and message.lock_acknowledged
            and message.dc_current_a is not None
            and abs(message.dc_current_a) < _OFF_A
        )
    return isinstance(message, BmsHvNotice) and message.condition is HvNoticeCondition.DISCONNECTED
