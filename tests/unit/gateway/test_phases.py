"""The table of phases, walked."""

from __future__ import annotations

import pytest

from ess_can.gateway.phases import FINAL, TRANSITIONS, Phase, mermaid
from ess_can.gateway.report import PhaseLog, Report

P = Phase
EXPECTED = {
    (P.STATUS_CHECK, P.RAMP_DOWN),
    (P.STATUS_CHECK, P.RECONNECT),
    (P.STATUS_CHECK, P.NOTHING_TO_DO),
    (P.STATUS_CHECK, P.CHECKED),
    (P.STATUS_CHECK, P.REFUSED),
    (P.STATUS_CHECK, P.HOLD_OPEN),
    (P.STATUS_CHECK, P.DONE),
    (P.STATUS_CHECK, P.ROLLED_BACK),
    (P.PROVE_HV_OFF, P.ROLL_BACK),
    (P.ROLL_BACK, P.PROGRAM),
    (P.RAMP_DOWN, P.OPEN_CONTACTORS),
    (P.OPEN_CONTACTORS, P.PROVE_HV_OFF),
    (P.PROVE_HV_OFF, P.PROGRAM),
    (P.PROGRAM, P.TRIAL_BOOT),
    (P.TRIAL_BOOT, P.CONFIRM),
    (P.TRIAL_BOOT, P.ROLL_BACK),
    (P.CONFIRM, P.ROLL_BACK),
    (P.RECONNECT, P.DONE),
    (P.RECONNECT, P.FAILED),
    (P.RECONNECT, P.ROLLED_BACK),
    (P.HOLD_OPEN, P.HELD_OPEN),
    *((phase, P.RECONNECT) for phase in (P.RAMP_DOWN, P.OPEN_CONTACTORS, P.PROVE_HV_OFF, P.PROGRAM)),
    *((phase, P.RECONNECT) for phase in (P.TRIAL_BOOT, P.CONFIRM, P.ROLL_BACK)),
    *((phase, P.HOLD_OPEN) for phase in (P.RAMP_DOWN, P.OPEN_CONTACTORS, P.PROVE_HV_OFF, P.PROGRAM)),
    *((phase, P.HOLD_OPEN) for phase in (P.TRIAL_BOOT, P.ROLL_BACK, P.RECONNECT)),
}
PAIRS = [(a, b) for a in Phase for b in Phase]


def walked_to(phase: Phase) -> PhaseLog:
    """A log that has come to `phase` by legal steps."""
    paths: dict[Phase, list[Phase]] = {P.STATUS_CHECK: []}
    queue = [P.STATUS_CHECK]
    for at in queue:
        for following in sorted(TRANSITIONS[at], key=lambda p: p.name):
            if following not in paths:
                paths[following] = [*paths[at], following]
                queue.append(following)
    log = PhaseLog(Report(), 0.0)
    for step in paths[phase]:
        log.enter(step, 1.0)
    return log


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda phase: phase.name)
def test_every_transition_is_legal_or_not_as_the_design_says(before: Phase, after: Phase) -> None:
    log = walked_to(before)
    if (before, after) in EXPECTED:
        log.enter(after, 2.0)
        assert log.phase is after
    else:
        with pytest.raises(ValueError, match=f"from {before.name} to {after.name}"):
            log.enter(after, 2.0)
        assert log.phase is before


def test_seven_phases_are_final() -> None:
    assert {P.DONE, P.NOTHING_TO_DO, P.CHECKED, P.REFUSED, P.FAILED, P.ROLLED_BACK, P.HELD_OPEN} == FINAL


def test_the_diagram_has_each_transition_once_and_each_end() -> None:
    lines = mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert lines[1].strip() == "[*] --> STATUS_CHECK"
    drawn = [line.strip() for line in lines[2:]]
    wanted = {f"{a.name} --> {b.name}" for a, b in EXPECTED} | {f"{phase.name} --> [*]" for phase in FINAL}
    assert set(drawn) == wanted
    assert len(drawn) == len(wanted)
