"""Whatever arrives in whatever order: what a grant needs and what ends it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.gateway.config import HvLimits
from ess_can.gateway.hv_gate import HvGate, Source
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import BmsHvNotice, ContactorState, HvNoticeCondition
from tests.support.scripted_plant import PCS_OFF, RACK_OFF

LIMITS = HvLimits()
CYCLE_S = 0.05
SILENCE_S = 0.2


STEPS_S = st.sampled_from([CYCLE_S] * 12 + [0.0004, 0.0301, 0.0613, 0.2107])
"""Between messages: cycles, and what is in step with nothing."""


class Kind(Enum):
    GOOD = auto()
    LOST = auto()
    BAD = auto()
    CONTRADICTS = auto()
    SILENT = auto()


WEIGHTED = st.sampled_from([Kind.GOOD] * 30 + [Kind.LOST, Kind.BAD, Kind.CONTRADICTS, Kind.SILENT, Kind.SILENT])


@dataclass
class Model:
    """The rule, told in another way: what one source sent, newest last."""

    needed: int
    max_age_s: float
    history: list[tuple[Kind, float]]

    def proves(self, now: float) -> bool:
        """No status counts that comes more than half a cycle too early after any that counted."""
        counted: list[float] = []
        for (kind, at), made in zip(self.history, self.made()[:-1], strict=True):
            if kind is not Kind.GOOD or at - made > self.max_age_s:
                counted = []
            due = [before + (len(counted) - n - 0.5) * CYCLE_S for n, before in enumerate(counted)]
            if kind is Kind.GOOD and at >= max(due, default=0.0):
                counted.append(at)
        return len(counted) >= self.needed and self.stands(now)

    def made(self) -> list[float]:
        """When the message before each one can have been made at the latest, and when the last; -inf without one."""
        times = [-inf]
        for kind, at in self.history:
            before = times[-1] if at - times[-1] <= self.max_age_s else at
            cycles = {Kind.GOOD: 1, Kind.LOST: 2}.get(kind)
            times.append(
                -inf if cycles is None else at if self.needed == 1 else min(at, before + cycles * 1.1 * CYCLE_S)
            )
        return times

    def stands(self, now: float) -> bool:
        return now - self.made()[-1] <= self.max_age_s


def close_to_the_edge(models: tuple[Model, ...], now: float) -> bool:
    """Exactly as old or as early as allowed: floats may see it either way.  The steps are such that little is."""
    for model in models:
        ats = [at for _, at in model.history] + [now]
        if any(abs(at - made - model.max_age_s) < 1e-6 for at, made in zip(ats, model.made(), strict=True)):
            return True
        halves = {round((later - earlier) / CYCLE_S * 2, 4) for earlier in ats for later in ats if later > earlier}
        if any(half == int(half) and half % 2 for half in halves):
            return True
    return False


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(WEIGHTED, WEIGHTED, WEIGHTED, STEPS_S), max_size=45))
def test_the_gate_agrees_with_the_rule(steps: list[tuple[Kind, Kind, Kind, float]]) -> None:
    gate = HvGate((1,), LIMITS, CYCLE_S)
    rack, pcs, notice = Model(10, SILENCE_S, []), Model(10, SILENCE_S, []), Model(1, LIMITS.evidence_age_s, [])
    models = (rack, pcs, notice)
    now = 0.0
    for token, (rack_kind, pcs_kind, notice_kind, step_s) in enumerate(steps):
        now += step_s
        verdicts = {Kind.GOOD: Verdict.OK, Kind.LOST: Verdict.OK_SOME_LOST, Kind.CONTRADICTS: Verdict.OK}
        if rack_kind is Kind.BAD:
            gate.on_bad_frame(Source.RACK_STATUS, 1, Verdict.ERROR)
        elif rack_kind is not Kind.SILENT:
            closed = ContactorState.CLOSED if rack_kind is Kind.CONTRADICTS else ContactorState.OPEN
            gate.on_rack_status(1, replace(RACK_OFF, main_plus=closed), verdicts[rack_kind], now)
        if pcs_kind is Kind.BAD:
            gate.on_bad_frame(Source.PCS_STATUS, 0, Verdict.REPEATED)
        elif pcs_kind is not Kind.SILENT:
            gate.on_pcs_status(
                replace(PCS_OFF, lock_acknowledged=pcs_kind is not Kind.CONTRADICTS), verdicts[pcs_kind], now
            )
        gate.poll_sent(token, now)
        if notice_kind is Kind.BAD:
            gate.on_bad_frame(Source.RACK_NOTICE, 1, None)
        elif notice_kind is Kind.LOST:  # an answer to nobody
            gate.on_notice(1, BmsHvNotice(token + 1000, HvNoticeCondition.DISCONNECTED, 0.0), now)
        elif notice_kind is not Kind.SILENT:
            off = notice_kind is Kind.GOOD
            condition = HvNoticeCondition.DISCONNECTED if off else HvNoticeCondition.NOT_DISCONNECTED
            gate.on_notice(1, BmsHvNotice(token, condition, 0.0), now)
        for model, kind in ((rack, rack_kind), (pcs, pcs_kind)):
            if kind is not Kind.SILENT:
                model.history.append((kind, now))
        if notice_kind not in (Kind.SILENT, Kind.LOST):
            notice.history.append((notice_kind, now))
        if close_to_the_edge(models, now):
            continue
        assert (gate.missing(now) == ()) == all(model.proves(now) for model in models)
        assert (gate.lost(now) is None) == all(model.stands(now) for model in models)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0002, 0.01, 0.024, 0.026, 0.05, 0.19]), min_size=9, max_size=60))
def test_however_statuses_come_a_proof_takes_a_settling_time(gaps_s: list[float]) -> None:
    gate = HvGate((1,), LIMITS, CYCLE_S)
    now = 0.0
    for token, gap_s in enumerate([0.0, *gaps_s]):
        now += gap_s
        gate.on_pcs_status(PCS_OFF, Verdict.OK, now)
        gate.on_rack_status(1, RACK_OFF, Verdict.OK, now)
        gate.poll_sent(token, now)
        gate.on_notice(1, BmsHvNotice(token, HvNoticeCondition.DISCONNECTED, 0.0), now)
        if not gate.missing(now):
            assert now >= (LIMITS.consecutive_good - 1.5) * CYCLE_S - 1e-9
            return


@settings(max_examples=100, deadline=None)
@given(st.floats(0.0, 10.0), st.sampled_from(list(Source)))
def test_silence_is_never_off(silence_s: float, source: Source) -> None:
    """Everybody proves it is off, then one falls silent: the proof lives no longer than the evidence may be old."""
    gate = HvGate((1,), LIMITS, CYCLE_S)
    for n in range(10):
        gate.on_rack_status(1, RACK_OFF, Verdict.OK, n * CYCLE_S)
        gate.on_pcs_status(PCS_OFF, Verdict.OK, n * CYCLE_S)
    last = 9 * CYCLE_S
    gate.poll_sent(1, last)
    gate.on_notice(1, BmsHvNotice(1, HvNoticeCondition.DISCONNECTED, 0.0), last)
    assert gate.missing(last) == ()
    now = last + silence_s
    gate.poll_sent(2, now)
    if source is not Source.RACK_STATUS:
        gate.on_rack_status(1, RACK_OFF, Verdict.OK, now)
    if source is not Source.PCS_STATUS:
        gate.on_pcs_status(PCS_OFF, Verdict.OK, now)
    if source is not Source.RACK_NOTICE:
        gate.on_notice(1, BmsHvNotice(2, HvNoticeCondition.DISCONNECTED, 0.0), now)
    if silence_s > LIMITS.evidence_age_s + 1e-6:
        assert gate.lost(now) is not None
        assert gate.missing(now) != ()
