from __future__ import annotations

import os
from itertools import islice

import pytest

from ess_can.campaign.campaign import CHUNK, cores, run_campaign
from ess_can.campaign.result import RunResult, Summary
from tests.unit.campaign.results import result


def fake(seed: int) -> RunResult:
    """A run without a simulation, for other processes to import."""
    return result(
        seed,
        ended=("DONE", "HELD_OPEN")[seed % 2],
        errors=("BUS_OFF",) if seed % 3 else (),
        violations=(f"rule {seed} broken",) if seed % 7 == 0 else (),
        stuck="it waits" if seed == 20 else "",
        unhealed="HELD_OPEN" if seed == 21 else "",
    )


def failing(seed: int) -> RunResult:
    if seed == 9:
        raise RuntimeError("a defect of the campaign itself")
    return fake(seed)


def test_each_seed_is_run_in_its_turn() -> None:
    assert [one.seed for one in run_campaign(5, 3, jobs=1, run=fake)] == [5, 6, 7]


@pytest.mark.parametrize("seeds", [1, CHUNK, CHUNK + 1, 50])
def test_the_number_of_jobs_changes_nothing(seeds: int) -> None:
    alone = list(run_campaign(3, seeds, jobs=1, run=fake))
    assert list(run_campaign(3, seeds, jobs=2, run=fake)) == alone
    assert Summary.of(run_campaign(3, seeds, jobs=3, run=fake)) == Summary.of(alone)


def test_it_may_be_left_before_its_end() -> None:
    """As an interruption does: what has not begun is dropped, and no process is left behind."""
    running = run_campaign(1, 10_000, jobs=2, run=fake)
    assert [one.seed for one in islice(running, 10)] == list(range(1, 11))
    running.close()


def test_a_defect_of_a_run_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="itself"):
        list(run_campaign(1, 40, jobs=2, run=failing))


def test_all_cores_that_we_may_use() -> None:
    assert cores() >= 1


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() >= 1
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_the_summary_counts_what_happened() -> None:
    summary = Summary.of(map(fake, range(1, 22)))
    assert (summary.runs, summary.ended["DONE"], summary.ended["HELD_OPEN"]) == (21, 10, 11)
    assert summary.errors == {"BUS_OFF": 14}
    assert [one.seed for one in summary.violations] == [7, 14, 21]
    assert [(one.seed, one.text) for one in summary.stuck] == [(20, "it waits")]
    assert [(one.seed, one.text) for one in summary.unhealed] == [(21, "HELD_OPEN")]
    assert not summary.good
    assert [one.seed for one in summary.findings] == [7, 14, 21, 20, 21]
    assert Summary.of([fake(1)]).good


def test_a_run_without_any_attempt_that_ended_is_counted_as_such() -> None:
    assert Summary.of([result(1, ended="")]).ended == {"none": 1}
