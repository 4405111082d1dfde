"""Each condition of "high voltage is off" matters by itself.

For every condition there are two sets of evidence that differ in it alone, and on which the gate decides differently:
the gateway's gate, which permits programming, and the BMU's own, which refuses without it.  `conditions_table` gives
them as a table for the documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace

import pytest

from ess_can.gateway.config import HvLimits
from ess_can.gateway.hv_gate import HvGate, Source
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import BmsHvNotice, BmsHvStatus, ContactorState, HvNoticeCondition, PcsState, PcsStatus
from ess_can.sim.electrical import RackCircuit, StationCircuit
from ess_can.sim.hv_control import RackControl
from ess_can.sim.latches import Latch
from ess_can.sim.rack import RackHardware, RackReadings
from tests.support.latch_store import MemoryLatchStore
from tests.support.scripted_plant import PCS_OFF, RACK_OFF

CYCLE_S = 0.05
NOW = 100.0
OPEN = ContactorState.OPEN
LIMITS = HvLimits()


# --- the gateway's gate -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """What the gateway was shown of rack 1 (rack 2 is good) and the PCS, up to `NOW`.

    `good` are consecutive good messages, `apart_s` one after the other, `verdict` that on the last one (None: no
    protection, `bad` ones are not offered), `age_s` how old it is.  The notice answers a poll of `asked_s` ago,
    `answered_after_s` after it, with its token if `echoed`.  `blind` is whether nobody could look just now.
    """

    limits: HvLimits = LIMITS
    rack: BmsHvStatus = RACK_OFF
    rack_good: int = 10
    rack_apart_s: float = CYCLE_S
    rack_verdict: Verdict | None = Verdict.OK
    rack_age_s: float = 0.0
    pcs: PcsStatus = PCS_OFF
    pcs_good: int = 10
    pcs_apart_s: float = CYCLE_S
    pcs_verdict: Verdict | None = Verdict.OK
    pcs_age_s: float = 0.0
    condition: HvNoticeCondition = HvNoticeCondition.DISCONNECTED
    notice_verdict: Verdict | None = Verdict.OK
    echoed: bool = True
    asked_s: float = 0.05
    answered_after_s: float = 0.0
    blind: bool = False

    def is_proof(self) -> bool:
        """The gate's decision."""
        gate = HvGate((1, 2), self.limits, CYCLE_S)
        for count in range(20, 0, -1):
            at = NOW - (count - 1) * CYCLE_S
            gate.on_rack_status(2, RACK_OFF, Verdict.OK, at)
        for count in range(self.rack_good, 0, -1):
            at, last = NOW - self.rack_age_s - (count - 1) * self.rack_apart_s, count == 1
            verdict = self.rack_verdict if last else Verdict.OK
            if verdict in (Verdict.OK, Verdict.OK_SOME_LOST, None):
                gate.on_rack_status(1, self.rack if last else RACK_OFF, verdict, at)
            else:
                gate.on_bad_frame(Source.RACK_STATUS, 1, verdict)
        for count in range(self.pcs_good, 0, -1):
            at, last = NOW - self.pcs_age_s - (count - 1) * self.pcs_apart_s, count == 1
            verdict = self.pcs_verdict if last else Verdict.OK
            if verdict in (Verdict.OK, Verdict.OK_SOME_LOST, None):
                gate.on_pcs_status(self.pcs if last else PCS_OFF, verdict, at)
            else:
                gate.on_bad_frame(Source.PCS_STATUS, 0, verdict)
        gate.poll_sent(7, NOW - self.asked_s)
        answered_at = NOW - self.asked_s + self.answered_after_s
        gate.on_notice(2, BmsHvNotice(7, HvNoticeCondition.DISCONNECTED, 1.0), NOW - self.asked_s)
        if self.notice_verdict is Verdict.OK:
            gate.on_notice(1, BmsHvNotice(7 if self.echoed else 8, self.condition, 1.0), answered_at)
        else:
            gate.on_bad_frame(Source.RACK_NOTICE, 1, self.notice_verdict)
        if self.blind:
            gate.begin_anew("nobody could look")
        return not gate.missing(NOW)


@dataclass(frozen=True, slots=True)
class Pair:
    """A condition, and evidence with and without it; `with_` and `without` differ in nothing else."""

    gate: str
    condition: str
    with_: Shown | OwnProof
    without: Shown | OwnProof
    instead: str


NOT_OPEN = tuple(state for state in ContactorState if state is not OPEN)


def gateway_pairs() -> Iterator[Pair]:
    good = Shown()
    edge = replace(RACK_OFF, link_voltage_v=59.9, current_a=0.9)

    def pair(condition: str, without: Shown, instead: str, with_: Shown = good) -> Pair:
        return Pair("gateway", condition, with_, without, instead)

    for state in NOT_OPEN:
        yield pair("rack: main+ OPEN", replace(good, rack=replace(RACK_OFF, main_plus=state)), state.name)
        yield pair("rack: main- OPEN", replace(good, rack=replace(RACK_OFF, main_minus=state)), state.name)
        yield pair("rack: precharge OPEN", replace(good, rack=replace(RACK_OFF, precharge=state)), state.name)
        yield pair("PCS: contactors OPEN", replace(good, pcs=replace(PCS_OFF, contactors=state)), state.name)
    yield pair("rack: main+ not welded", replace(good, rack=replace(RACK_OFF, weld_plus=True)), "welded")
    yield pair("rack: main- not welded", replace(good, rack=replace(RACK_OFF, weld_minus=True)), "welded")
    at_edge = replace(good, rack=edge)
    hot = replace(good, rack=replace(edge, link_voltage_v=60.0))
    yield pair("rack: link below 60 V", hot, "60.0 V (59.9 V is)", at_edge)
    yield pair("rack: link voltage valid", replace(good, rack=replace(RACK_OFF, link_voltage_v=None)), "invalid")
    for current_a in (1.0, -1.0):
        with_ = replace(good, rack=replace(edge, current_a=0.9 * current_a))
        without = replace(good, rack=replace(edge, current_a=current_a))
        yield pair("rack: current below 1 A", without, f"{current_a:g} A ({0.9 * current_a:g} A is)", with_)
        with_ = replace(good, pcs=replace(PCS_OFF, dc_current_a=0.9 * current_a))
        without = replace(good, pcs=replace(PCS_OFF, dc_current_a=current_a))
        yield pair("PCS: current below 1 A", without, f"{current_a:g} A ({0.9 * current_a:g} A is)", with_)
    yield pair("rack: current valid", replace(good, rack=replace(RACK_OFF, current_a=None)), "invalid")
    yield pair("rack: says HV off", replace(good, rack=replace(RACK_OFF, hv_off=False)), "does not")
    for pcs_state in PcsState:
        if pcs_state is not PcsState.STANDBY:
            yield pair("PCS: STANDBY", replace(good, pcs=replace(PCS_OFF, state=pcs_state)), pcs_state.name)
    yield pair("PCS: lock acknowledged", replace(good, pcs=replace(PCS_OFF, lock_acknowledged=False)), "not")
    yield pair("PCS: current valid", replace(good, pcs=replace(PCS_OFF, dc_current_a=None)), "invalid")
    for verdict in (Verdict.ERROR, Verdict.REPEATED, Verdict.WRONG_SEQUENCE, Verdict.OK_SOME_LOST, None):
        text = "undecodable or unprotected" if verdict is None else verdict.value
        yield pair("rack: status E2E-valid, none lost", replace(good, rack_verdict=verdict), text)
        yield pair("PCS: status E2E-valid, none lost", replace(good, pcs_verdict=verdict), text)
        if verdict is not Verdict.OK_SOME_LOST:
            yield pair("rack: notice E2E-valid", replace(good, notice_verdict=verdict), text)
    yield pair("rack: ten good in a row", replace(good, rack_good=9), "nine")
    yield pair("PCS: ten good in a row", replace(good, pcs_good=9), "nine")
    for apart_s in (0.040, 0.00025):
        text = f"one each {1000 * apart_s:g} ms (50 ms is)"
        yield pair("rack: the ten a cycle apart", replace(good, rack_apart_s=apart_s), text)
        yield pair("PCS: the ten a cycle apart", replace(good, pcs_apart_s=apart_s), text)
    # Three missed cycles are 0.2 s; just beside it, because floats see the edge either way.
    for name in ("rack", "PCS"):
        ages = (0.199, 0.201)
        with_, without = (
            replace(good, rack_age_s=age) if name == "rack" else replace(good, pcs_age_s=age) for age in ages
        )
        yield pair(f"{name}: last status at most 200 ms ago", without, "201 ms (199 ms is)", with_)
    for condition in HvNoticeCondition:
        if condition is not HvNoticeCondition.DISCONNECTED:
            yield pair("rack: notifies DISCONNECTED", replace(good, condition=condition), condition.name)
    yield pair("rack: notice echoes our token", replace(good, echoed=False), "another token")
    with_, without = replace(good, asked_s=0.249), replace(good, asked_s=0.251)
    yield pair("rack: asked at most 250 ms ago", without, "251 ms (249 ms is)", with_)
    late = replace(good, limits=HvLimits(token_age_s=0.1), asked_s=0.15)
    with_, without = replace(late, answered_after_s=0.09), replace(late, answered_after_s=0.11)
    yield pair("rack: answered within the token's age", without, "110 of 100 ms (90 ms is)", with_)
    yield pair("gateway: could look all the time", replace(good, blind=True), "starved, asleep, or bus-off")


# --- the BMU's own gate -------------------------------------------------------------------------------


class ToldHardware(RackHardware):
    """A rack whose sensors read what they are told."""

    __slots__ = ("told",)
    told: RackReadings

    def read(self) -> RackReadings:
        return self.told


@dataclass(frozen=True, slots=True)
class Contacts:
    """Feedbacks."""

    plus: ContactorState = OPEN
    minus: ContactorState = OPEN
    precharge: ContactorState = OPEN


OFF = RackReadings(790.0, 59.9, 0.9, 365.0, 365.0)


@dataclass(frozen=True, slots=True)
class OwnProof:
    """What a BMU measured for `settled_s`, and heard from the PCS for `pcs_settled_s`; then `latch` was latched.

    `now` and `contacts_now` are what its sensors read this instant, since its last look, `looked_s` ago.
    """

    string_v: float | None = 790.0
    link_v: float | None = 59.9
    current_a: float | None = 0.9
    across_plus_v: float = 365.0
    across_minus_v: float = 365.0
    contacts: Contacts = Contacts()
    ordered_closed: bool = False
    settled_s: float = 1.0
    latch: Latch | None = None
    pcs: PcsStatus = PCS_OFF
    pcs_settled_s: float = 1.0
    pcs_age_s: float = 0.0
    pcs_rejected: bool = False
    link_now_v: float | None = 10.0
    current_now_a: float | None = 0.0
    contacts_now: Contacts = Contacts()
    looked_s: float = 0.0

    def is_proof(self) -> bool:
        """The BMU's decision."""
        rack = RackCircuit()
        circuit = StationCircuit([rack], NOW)
        hardware = ToldHardware(circuit, rack)
        hardware.told = RackReadings(
            self.string_v, self.link_v, self.current_a, self.across_plus_v, self.across_minus_v
        )
        _show(rack, self.contacts)
        store = MemoryLatchStore()
        if self.latch is not None:
            store.save(frozenset({self.latch}))
        control = RackControl(hardware, store, NOW)
        if self.ordered_closed:
            rack.main_minus.coil = True
        begin, end = NOW, NOW + 2.0
        steps = [(end - self.looked_s - 0.01 * n, False) for n in range(round(self.settled_s / 0.01) + 1)]
        heard = [
            (end - self.pcs_age_s - CYCLE_S * n, True)
            for n in range(round(max(0.0, self.pcs_settled_s - self.pcs_age_s) / CYCLE_S) + 1)
        ]
        assert all(at > begin for at, _ in (*steps, *heard))
        for at, is_status in sorted((*steps, *heard)):
            if is_status:
                control.on_pcs_status(self.pcs, at)
            else:
                control.step(at)
        if self.pcs_rejected:
            control.on_pcs_status_rejected()
        hardware.told = hardware.told._replace(link_voltage_v=self.link_now_v, current_a=self.current_now_a)
        _show(rack, self.contacts if self.contacts != Contacts() else self.contacts_now)
        return control.programming_allowed(end)


def _show(rack: RackCircuit, contacts: Contacts) -> None:
    shown = (contacts.plus, contacts.minus, contacts.precharge)
    for contactor, state in zip(rack.contactors, shown, strict=True):
        contactor.feedback_fault = state


def bmu_pairs() -> Iterator[Pair]:
    good = OwnProof()

    def pair(condition: str, without: OwnProof, instead: str, with_: OwnProof = good) -> Pair:
        return Pair("BMU", condition, with_, without, instead)

    for state in NOT_OPEN:
        for name, contacts in (
            ("main+", Contacts(plus=state)),
            ("main-", Contacts(minus=state)),
            ("precharge", Contacts(precharge=state)),
        ):
            yield pair(f"{name} OPEN", replace(good, contacts=contacts), state.name)
            yield pair(f"{name} OPEN this instant", replace(good, contacts_now=contacts), state.name)
        yield pair("PCS: contactors OPEN", replace(good, pcs=replace(PCS_OFF, contactors=state)), state.name)
    yield pair("no coil energised", replace(good, ordered_closed=True), "main- is")
    yield pair("link below 60 V", replace(good, link_v=60.0), "60.0 V (59.9 V is)")
    yield pair("link voltage valid", replace(good, link_v=None), "invalid")
    yield pair("link below 60 V this instant", replace(good, link_now_v=60.0), "60.0 V")
    yield pair("link voltage valid this instant", replace(good, link_now_v=None), "invalid")
    for current_a in (1.0, -1.0):
        with_ = replace(good, current_a=0.9 * current_a)
        without = replace(good, current_a=current_a)
        yield pair("current below 1 A", without, f"{current_a:g} A ({0.9 * current_a:g} A is)", with_)
        yield pair("current below 1 A this instant", replace(good, current_now_a=current_a), f"{current_a:g} A")
        with_ = replace(good, pcs=replace(PCS_OFF, dc_current_a=0.9 * current_a))
        without = replace(good, pcs=replace(PCS_OFF, dc_current_a=current_a))
        yield pair("PCS: current below 1 A", without, f"{current_a:g} A ({0.9 * current_a:g} A is)", with_)
    yield pair("current valid", replace(good, current_a=None), "invalid")
    yield pair("current valid this instant", replace(good, current_now_a=None), "invalid")
    yield pair("string voltage valid", replace(good, string_v=None), "invalid")
    yield pair("voltages add up around the loop", replace(good, across_plus_v=380.0), "15 V too much")
    low = replace(good, across_plus_v=183.0, across_minus_v=547.0)
    yield pair("main+ holds a quarter of the gap", replace(low, across_plus_v=182.0), "182 of 182.5 V", low)
    low = replace(good, across_plus_v=547.0, across_minus_v=183.0)
    yield pair("main- holds a quarter of the gap", replace(low, across_minus_v=182.0), "182 of 182.5 V", low)
    small = replace(good, string_v=160.0, across_plus_v=50.0, across_minus_v=50.0)
    yield pair("the gap is 100 V, so that it tells", replace(small, string_v=159.0), "99 V (100 V is)", small)
    with_, without = replace(good, settled_s=0.41), replace(good, settled_s=0.39)
    yield pair("held for 200 ms after 200 ms open", without, "390 ms (410 ms is)", with_)
    for latch in Latch:
        if latch is not Latch.PRECHARGE_FAILED:
            yield pair(f"{latch.value} not latched", replace(good, latch=latch), "latched")
    with_, without = replace(good, looked_s=0.24), replace(good, looked_s=0.26)
    yield pair("looked at 250 ms ago at most", without, "260 ms (240 ms is)", with_)
    for pcs_state in PcsState:
        if pcs_state is not PcsState.STANDBY:
            yield pair("PCS: STANDBY", replace(good, pcs=replace(PCS_OFF, state=pcs_state)), pcs_state.name)
    yield pair("PCS: lock acknowledged", replace(good, pcs=replace(PCS_OFF, lock_acknowledged=False)), "not")
    yield pair("PCS: no emergency stop", replace(good, pcs=replace(PCS_OFF, emergency_stop=True)), "pressed")
    yield pair("PCS: current valid", replace(good, pcs=replace(PCS_OFF, dc_current_a=None)), "invalid")
    yield pair("PCS: last status E2E-valid", replace(good, pcs_rejected=True), "rejected")
    with_, without = replace(good, pcs_age_s=0.24), replace(good, pcs_age_s=0.26)
    yield pair("PCS: heard 250 ms ago at most", without, "260 ms (240 ms is)", with_)
    with_, without = replace(good, pcs_settled_s=0.25), replace(good, pcs_settled_s=0.15)
    yield pair("PCS: so for 200 ms", without, "150 ms (250 ms is)", with_)


# --- what is shown ------------------------------------------------------------------------------------

PAIRS = (*gateway_pairs(), *bmu_pairs())


def conditions_table() -> str:
    """Every pair as a table: what counts as proof, and what in its place does not."""
    rows = [f"| {pair.gate} | {pair.condition} | {pair.instead} |" for pair in PAIRS]
    return "\n".join(["| gate | condition | no proof with |", "| --- | --- | --- |", *rows])


def differences(one: object, other: object) -> int:
    """In how many fields, at whatever depth, two values differ."""
    if type(one) is type(other) and is_dataclass(one):
        return sum(differences(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return int(one != other)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.gate}, {pair.condition}: {pair.instead}")
def test_each_condition_decides_by_itself(pair: Pair) -> None:
    assert differences(pair.with_, pair.without) == 1
    assert pair.with_.is_proof()
    assert not pair.without.is_proof()


def _named(kind: type[Shown | OwnProof]) -> set[str]:
    """Fields, at whatever depth, in which some pair differs."""
    return {name for pair in PAIRS if isinstance(pair.with_, kind) for name in _differing(pair.with_, pair.without, "")}


def _differing(one: object, other: object, name: str) -> Iterator[str]:
    if type(one) is type(other) and is_dataclass(one):
        for field in fields(one):
            yield from _differing(getattr(one, field.name), getattr(other, field.name), field.name)
    elif one != other:
        yield name


def test_no_field_is_left_out() -> None:
    status = {f.name for f in fields(BmsHvStatus)} - {"hvil_closed", "emergency_stop"}  # those end the whole upgrade
    own = {f.name for f in fields(Shown)} - {"limits", "rack", "pcs", "asked_s"}
    assert status | own | {"contactors", "state", "lock_acknowledged", "dc_current_a", "asked_s"} <= _named(Shown)
    assert {f.name for f in fields(OwnProof)} - {"contacts", "contacts_now", "pcs"} <= _named(OwnProof)


def test_the_table_has_a_row_for_each() -> None:
    assert conditions_table().count("\n") == len(PAIRS) + 1


def test_what_is_no_condition_changes_nothing() -> None:
    assert OwnProof(latch=Latch.PRECHARGE_FAILED).is_proof()
    assert Shown(pcs=replace(PCS_OFF, heartbeat_lost=True)).is_proof()
