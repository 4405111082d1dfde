"""What must hold of whole runs: invariants 26 to 28.  `ess_can.campaign.run` judges each run by these."""

from __future__ import annotations

from collections.abc import Set

from ess_can.campaign.monitors.invariants import Invariant, Violation
from ess_can.campaign.result import RunResult
from ess_can.gateway.phases import FINAL, Phase
from ess_can.gateway.report import Report


def repeated(first: RunResult, second: RunResult) -> Violation | None:
    """26: two runs of one seed are the same: everything on the wire, and what came of it."""
    if first.trace_hash != second.trace_hash:
        text = f"seed {first.seed} gave {first.trace_hash[:16]} and then {second.trace_hash[:16]}"
    elif first != second:
        text = f"seed {first.seed} ended {first.ended} and then {second.ended}, and differs in more than that"
    else:
        return None
    return Violation(first.virtual_s, Invariant.REPEATABLE, text)


def came_to_an_end(
    report: Report | None, at_s: float, took_s: float, within_s: float, ends: Set[Phase] = FINAL
) -> Violation | None:
    """27: an upgrade came to one of these `ends` in at most `within_s`; no report is one that did not end at all."""
    if report is not None and report.result in ends and took_s <= within_s:
        return None
    stands = "nowhere" if report is None else f"{report.result.value}: {report.error}"
    return Violation(at_s, Invariant.LIVENESS, f"after {took_s:.0f} s of {within_s:.0f} s it stands at {stands}")


def accepted(report: Report | None, at_s: float) -> Violation | None:
    """28: the good upgrade of a plant in which nothing is wrong any more went in."""
    if report is not None and report.result is Phase.DONE:
        return None
    error = None if report is None else report.error
    name = "" if error is None else f": {error.name}: {error}"
    why = "did not end" if report is None else f"ended {report.result.value}{name}"
    return Violation(at_s, Invariant.AVAILABILITY, f"the good upgrade afterwards {why}")
