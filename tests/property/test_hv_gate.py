"""Whatever arrives in whatever order: what a grant needs and what ends it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import pairwise

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
        recent = self.history[-self.needed :]
        all_good = len(recent) == self.needed and all(kind is Kind.GOOD for kind, _ in recent)
        gaps = [later - earlier for (_, earlier), (_, later) in pairwise(recent)]
        return all_good and all(gap <= self.max_age_s + 1e-9 for gap in gaps) and self.stands(now)

    def stands(self, now: float) -> bool:
        if not self.history:
            return False
        kind, at = self.history[-1]
        return kind in (Kind.GOOD, Kind.LOST) and now - at <= self.max_age_s + 1e-9


def close_to_the_edge(models: tuple[Model, ...], now: float) -> bool:
    """Exactly as old as allowed: floats may see it either way."""
    times = [(m.max_age_s, [at for _, at in m.history] + [now]) for m in models]
    return any(abs(later - earlier - age) < 1e-6 for age, ats in times for earlier, later in pairwise(ats))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(WEIGHTED, WEIGHTED, WEIGHTED, st.sampled_from([0.05, 0.05, 0.05, 0.06, 0.21])), max_size=45))
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
