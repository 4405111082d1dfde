"""Guards of the gateway's proof that high voltage is off: nothing is written without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import ess_can.bus.station as station_module
import ess_can.gateway.hv_gate as hv_gate
from ess_can.bus.clock import Guard as ClockGuard
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.plants import SMALLEST
from ess_can.campaign.station import Fault, Station
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, BusInterrupted
from ess_can.gateway.hv_gate import HvGate
from ess_can.gateway.interlock import Interlock, Permit
from ess_can.signals.e2e import E2eMonitor, Verdict
from ess_can.signals.messages import (
    BmsHvNotice,
    BmsHvStatus,
    ContactorState,
    HvNoticeCondition,
    Message,
    PcsState,
    PcsStatus,
)
from ess_can.sim.hv_evidence import PcsEvidence
from tests.campaign.guard import Act, Guard, Off, Run, Value, around, both, by, saying, says
from tests.campaign.guard import upgrade as small_upgrade

LONG: Final = replace(SMALLEST, payload_bytes=24_000)
"""An image that is transferred for about a second."""
WORK: Final = "PROGRAM+0.2"
_OFF: Final = {
    "main_plus": ContactorState.OPEN,
    "main_minus": ContactorState.OPEN,
    "precharge": ContactorState.OPEN,
    "weld_plus": False,
    "weld_minus": False,
    "link_voltage_v": 0.0,
    "current_a": 0.0,
    "hv_off": True,
}
_PCS_OFF: Final = {
    "contactors": ContactorState.OPEN,
    "state": PcsState.STANDBY,
    "lock_acknowledged": True,
    "dc_current_a": 0.0,
}


def upgrade(*faults: str | Fault, ends: str = "", tells: str = "") -> Run:
    """An upgrade with a long transfer."""
    return small_upgrade(*faults, ends=ends, tells=tells, site=LONG)


def _blind(name: str, good: object, when: Callable[[object], bool] = lambda _: True) -> Off:
    """The gate takes this field for good whatever it says."""
    which = "rack_objection" if name in _OFF else "pcs_objection"

    def make(original: Callable[..., object]) -> object:
        def objection(status: Message, limits: object) -> object:
            seen = replace(status, **{name: good}) if when(getattr(status, name)) else status
            return original(seen, limits)

        return objection

    return around(hv_gate, which, make)


def _is(value: object) -> Callable[[object], bool]:
    return lambda said: said == value


NODES_BELIEVE: Final = by(PcsEvidence, "held_open", lambda *_: True)
"""The nodes ask nothing of the PCS."""


def _objections() -> Iterator[Guard]:
    """Each thing that speaks against "off", by itself."""
    closed, moving, invalid = ContactorState.CLOSED, ContactorState.MOVING, ContactorState.INVALID
    rack: tuple[tuple[str, str, Value], ...] = (
        ("main+ closed", "main_plus", closed),
        ("main- closed", "main_minus", closed),
        ("precharge closed", "precharge", closed),
        ("main+ moving", "main_plus", moving),
        ("main- invalid", "main_minus", invalid),
        ("link voltage high", "link_voltage_v", 61.0),
        ("link voltage invalid", "link_voltage_v", None),
        ("current flows", "current_a", 2.0),
        ("current invalid", "current_a", None),
        ("the BMU does not say off", "hv_off", False),
    )
    for what, name, value in rack:
        yield _objection(f"rack: {what}", "rack", BmsHvStatus, name, value, _OFF[name])
    pcs: tuple[tuple[str, str, Value], ...] = (
        ("contactors closed", "contactors", closed),
        ("not in standby", "state", PcsState.CLOSING),
        ("lock not acknowledged", "lock_acknowledged", False),
        ("current flows", "dc_current_a", 2.0),
        ("current invalid", "dc_current_a", None),
    )
    for what, name, value in pcs:
        yield _objection(f"PCS: {what}", "pcs", PcsStatus, name, value, _PCS_OFF[name])


MAY_RETURN: Final = by(Interlock, "_require_off", lambda *_: None)
"""High voltage may come back."""
STAYS_OFF: Final = "the watch over high voltage that has to stay off"


def _objection(what: str, source: str, kind: type[Message], name: str, value: Value, good: object) -> Guard:
    pcs = kind is PcsStatus
    offs, behind = [_blind(name, good, _is(value))], []
    if pcs:
        offs, behind = [*offs, NODES_BELIEVE], ["the nodes' own gate"]
    if value is ContactorState.CLOSED or isinstance(value, float):
        offs, behind = [*offs, MAY_RETURN], [*behind, STAYS_OFF]
    return Guard(
        f"proof, {what}",
        f"gateway.hv_gate:{source}_objection",
        "work while this speaks against high voltage being off",
        both(*offs),
        upgrade(saying(what, kind, f"{WORK}~1", {name: value})),
        Invariant.PERMIT,
        " and ".join(behind),
    )


class _NoCrc(E2eMonitor):
    def receive(self, data: bytes | bytearray | None, now: float) -> Verdict:
        super().receive(data, now)
        return Verdict.OK


def _anybody_asked(original: Callable[..., object]) -> object:
    def on_notice(gate: HvGate, rack: int, notice: BmsHvNotice, now: float) -> None:
        gate._tokens.setdefault(notice.token, now)
        original(gate, rack, notice, now)

    return on_notice


def _asked_just_now(original: Callable[..., object]) -> object:
    def on_notice(gate: HvGate, rack: int, notice: BmsHvNotice, now: float) -> None:
        if notice.token in gate._tokens:
            gate._tokens[notice.token] = now
        original(gate, rack, notice, now)

    return on_notice


def _any_condition(original: Callable[..., object]) -> object:
    def on_notice(gate: HvGate, rack: int, notice: BmsHvNotice, now: float) -> None:
        original(gate, rack, replace(notice, condition=HvNoticeCondition.DISCONNECTED), now)

    return on_notice


def _fresh_for_ever(needed: Callable[[int], bool]) -> Off:
    def make(original: Callable[..., object]) -> object:
        def is_fresh(evidence: hv_gate._Evidence, now: float) -> bool:
            if needed(evidence.needed):
                return evidence.last_good_at is not None
            return bool(original(evidence, now))

        return is_fresh

    return around(hv_gate._Evidence, "is_fresh", make)


def _no_settling(evidence: hv_gate._Evidence, now: float) -> str:
    if evidence.last_good_at is None:
        return evidence.objection.text
    return "" if evidence.is_fresh(now) else "silent"


def _losses_count(original: Callable[..., object]) -> object:
    def judge(gate: HvGate, key: object, objection: object, _verdict: Verdict | None, now: float) -> None:
        original(gate, key, objection, Verdict.OK, now)

    return judge


def _every_fifth(station: Station) -> None:
    from ess_can.sim.wire import WireFault

    can_id = station.plant.codec.route(BmsHvStatus, 1).can_id
    seen = 0

    def rule(_index: int, frame: CanFrame) -> WireFault | None:
        nonlocal seen
        seen += frame.can_id == can_id
        return WireFault.LOSE if frame.can_id == can_id and not seen % 5 else None

    station.on_transmission(rule)


def _wrong_checksum(station: Station) -> None:
    """Only the checksum of the rack's status is wrong, for a second: what it says stays the same."""
    can_id = station.plant.codec.route(BmsHvStatus, 1).can_id

    def rule(_index: int, frame: CanFrame) -> CanFrame | None:
        return CanFrame(can_id, bytes((frame.data[0] ^ 1,)) + frame.data[1:]) if frame.can_id == can_id else None

    station.later(1.0, station.on_transmission(rule))


def _stuck(station: Station) -> None:
    """The rack repeats one frame for ever."""
    can_id = station.plant.codec.route(BmsHvStatus, 1).can_id
    kept: list[CanFrame] = []

    def rule(_index: int, frame: CanFrame) -> CanFrame | None:
        if frame.can_id != can_id:
            return None
        kept.append(frame)
        return kept[0]

    remove = station.on_transmission(rule)
    station.later(1.0, remove)


def _not_told(original: Callable[..., object]) -> object:
    def on_bus(interlock: Interlock, error: BusError) -> None:
        if not isinstance(error, BusInterrupted):
            original(interlock, error)

    return on_bus


def _ends_only_at_the_end(original: Callable[..., object]) -> object:
    def trip(guard: ClockGuard, error: object) -> None:
        if isinstance(guard, Permit):
            guard.error = None
        else:
            original(guard, error)

    return trip


REVOKED: Final = "HV_PERMIT_REVOKED"
LATE: Final = upgrade("frame:hv-notice#25x30:delayed=0.35")

GUARDS: Final = (
    *_objections(),
    Guard(
        "proof, the rack answers that it is not off",
        "gateway.hv_gate:HvGate.on_notice",
        "work while a rack's answer to a poll says that high voltage is not off",
        around(HvGate, "on_notice", _any_condition),
        upgrade(says("NOT_DISCONNECTED", BmsHvNotice, f"{WORK}~1", condition=HvNoticeCondition.NOT_DISCONNECTED)),
        Invariant.PERMIT,
    ),
    Guard(
        "proof, bad frame",
        "gateway.interlock:Interlock._on_rejected",
        "work on a proof after which a frame came that is invalid",
        by(Interlock, "_on_rejected", lambda *_: None),
        upgrade(f"plant:hv-status-bad:1@{WORK}~1"),
        Invariant.PERMIT,
    ),
    Guard(
        "proof, silence of the status",
        "gateway.hv_gate:_Evidence.is_fresh",
        "taking a rack's silence for high voltage off",
        _fresh_for_ever(lambda needed: needed > 1),
        upgrade(f"plant:hv-status-lost:1@{WORK}~1"),
        Invariant.SILENCE,
    ),
    Guard(
        "proof, age of the answers",
        "gateway.hv_gate:_Evidence.is_fresh",
        "work on a rack's answer that is older than 250 ms",
        _fresh_for_ever(lambda needed: needed == 1),
        upgrade("frame:hv-notice#25x30:lost"),
        Invariant.PERMIT,
    ),
    Guard(
        "proof, an answer is as old as its question",
        "gateway.hv_gate:HvGate.on_notice",
        "taking an answer that was long under way for a new one",
        around(HvGate, "on_notice", _asked_just_now),
        LATE,
        Invariant.PERMIT,
    ),
    Guard(
        "proof, token echoed",
        "gateway.hv_gate:HvGate.on_notice",
        "taking an answer to nobody, or to somebody else, for an answer to us",
        around(HvGate, "on_notice", _anybody_asked),
        upgrade(says("another token", BmsHvNotice, f"{WORK}~1", token=0xABCDEF)),
        Invariant.PERMIT,
    ),
    Guard(
        "proof, settling count",
        "gateway.hv_gate:_Evidence.missing",
        "work on the first good frame after bad ones",
        by(hv_gate._Evidence, "missing", _no_settling),
        upgrade(f"plant:hv-status-bad:1@{WORK}~0.45"),
        Invariant.PERMIT,
    ),
    Guard(
        "proof, a loss starts the count anew",
        "gateway.hv_gate:HvGate._judge",
        "counting good frames in a row over gaps",
        around(HvGate, "_judge", _losses_count),
        upgrade(Act("every fifth BMS_HvStatus is lost", "PROVE_HV_OFF+0", _every_fifth), ends="FAILED"),
        Invariant.PERMIT,
    ),
    Guard(
        "E2E, checksum",
        "bus.station:StationLink._receiver",
        "acting on corrupted frames",
        by(station_module, "E2eMonitor", _NoCrc),
        upgrade(Act("the checksum of BMS_HvStatus is wrong", WORK, _wrong_checksum)),
        Invariant.PERMIT,
    ),
    Guard(
        "E2E, sequence",
        "bus.station:_USABLE",
        "taking a sender that repeats itself for one that is alive",
        by(station_module, "_USABLE", (None, *(set(Verdict) - {Verdict.ERROR}))),
        upgrade(Act("BMS_HvStatus is repeated", WORK, _stuck)),
        Invariant.PERMIT,
    ),
    Guard(
        "permit, it cancels what runs under it",
        "gateway.interlock:Permit.trip",
        "going on with a transfer after the proof was lost",
        around(ClockGuard, "trip", _ends_only_at_the_end),
        upgrade(f"plant:hv-status-bad:1@{WORK}~1"),
        Invariant.PERMIT,
    ),
    Guard(
        "interlock, starved program",
        "gateway.interlock:Interlock._look",
        "taking what waited in a queue for fresh evidence",
        both(by(Interlock, "_look", lambda *_: False), _fresh_for_ever(lambda _: True)),
        upgrade("gateway:starved=0.4@PROGRAM+0.2", tells=REVOKED),
        f"tells nothing of {REVOKED}",
        "the age of the evidence",
    ),
    Guard(
        "interlock, proof anew after bus-off",
        "gateway.interlock:Interlock._on_bus",
        "going on as if nothing could have been said while the controller was off",
        around(Interlock, "_on_bus", _not_told),
        upgrade("bus:off=1@PROGRAM+0.2", tells=REVOKED),
        f"tells nothing of {REVOKED}",
    ),
)
