"""Invariants 26 to 28: what must hold of whole runs, each broken by a run that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.campaign import run
from ess_can.campaign.mixture import Mixture, plain
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.monitors.runs import accepted, came_to_an_end, repeated
from ess_can.campaign.result import RunResult
from ess_can.campaign.run import TWICE, checked_seed, run_mixture
from ess_can.errors import HeldOpen
from ess_can.gateway.phases import FINAL, Phase
from ess_can.gateway.report import Report
from tests.scenario.support import play
from tests.unit.campaign.results import result

HELD = Report(result=Phase.HELD_OPEN, error=HeldOpen("held"))
I = Invariant  # noqa: E741 - the tests read better


@pytest.mark.parametrize("change", [{"trace_hash": "b" * 64}, {"ended": "HELD_OPEN"}, {"errors": ("BUS_OFF",)}])
def test_26_two_runs_of_a_seed_that_differ(change: dict[str, object]) -> None:
    found = repeated(result(7), replace(result(7), **change))  # type: ignore[arg-type]
    assert found is not None
    assert found.invariant is I.REPEATABLE
    assert repeated(result(7), result(7)) is None


def test_26_the_hash_is_that_of_the_wire_and_monitors_do_not_change_it() -> None:
    first, second = play(), play()
    assert first.trace_hash == second.trace_hash
    assert first.scene.monitors.trace_hash == first.trace_hash


@pytest.mark.parametrize(("seed", "runs"), [(TWICE, 2), (3 * TWICE, 2), (TWICE + 1, 1)])
def test_26_a_campaign_runs_some_seeds_twice(seed: int, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[RunResult] = []

    def never_the_same(mixture: Mixture) -> RunResult:
        given.append(replace(result(mixture.seed), trace_hash=f"{len(given):064x}"))
        return given[-1]

    monkeypatch.setattr(run, "run_mixture", never_the_same)
    wrong = checked_seed(seed).wrong
    assert len(given) == runs
    assert ("(invariant 26:" in wrong) is (runs == 2)


@pytest.mark.parametrize(
    ("report", "took_s"),
    [(None, 10.0), (Report(result=Phase.PROGRAM), 10.0), (Report(result=Phase.DONE), 101.0)],
)
def test_27_no_end_in_time(report: Report | None, took_s: float) -> None:
    found = came_to_an_end(report, 500.0, took_s, 100.0)
    assert found is not None
    assert found.invariant is I.LIVENESS
    assert came_to_an_end(Report(result=Phase.HELD_OPEN), 500.0, 99.0, 100.0) is None


def test_27_an_upgrade_that_is_refused_for_good_has_not_ended() -> None:
    refused = Report(result=Phase.REFUSED)
    assert came_to_an_end(refused, 500.0, 9.0, 100.0) is None
    assert came_to_an_end(refused, 500.0, 9.0, 100.0, FINAL - {Phase.REFUSED}) is not None


def test_27_a_run_that_comes_to_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONGEST_S", 2.0)
    assert "(invariant 27:" in run_mixture(plain()).wrong


@pytest.mark.parametrize("report", [None, HELD, Report(result=Phase.NOTHING_TO_DO)])
def test_28_the_good_upgrade_does_not_go_in(report: Report | None) -> None:
    found = accepted(report, 5.0)
    assert found is not None
    assert found.invariant is I.AVAILABILITY
    assert accepted(Report(result=Phase.DONE), 5.0) is None
