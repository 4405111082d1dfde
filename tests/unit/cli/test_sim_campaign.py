from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from ess_can.campaign import campaign
from ess_can.campaign.result import RunResult
from tests.unit.campaign.results import result
from tests.unit.cli.run import document, run


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[RunResult | type[BaseException]]:
    """What the runs of a campaign come to, in order; an exception is raised in its turn."""
    planned: list[RunResult | type[BaseException]] = []

    def fake(first: int, seeds: int, *, jobs: int) -> Iterator[RunResult]:
        assert (first, jobs >= 1) == (1, True)
        for one in planned[:seeds]:
            if not isinstance(one, RunResult):
                raise one
            yield one

    monkeypatch.setattr(campaign, "run_campaign", fake)
    return planned


def test_a_good_campaign_ends_with_0(results: list[RunResult | type[BaseException]]) -> None:
    results += [result(1), result(2, ended="HELD_OPEN", errors=("BUS_OFF", "HELD_OPEN"), kills=2)]
    done = run("sim", "campaign", "--seeds", 2, "--jobs", 1)
    assert done.exit_code == 0
    assert "2 of 2 runs, 0 findings" in done.stdout
    assert "2 runs in" in done.stdout
    assert "killed 2 times" in done.stdout
    assert "1 HELD_OPEN" in done.stdout
    assert "1 BUS_OFF" in done.stdout
    assert "2 BUS_SILENCE" in done.stdout
    assert "broken rules: 0\nwithout a final state: 0\nno good upgrade afterwards: 0\n" in done.stdout


def test_whatever_is_wrong_ends_with_120_and_says_how_to_see_it_again(
    results: list[RunResult | type[BaseException]],
) -> None:
    results += [result(1), result(2, violations=("14: silence was read as off",)), result(3, stuck="it waits")]
    done = run("sim", "campaign", "--seeds", 3, "-j", 2)
    assert done.exit_code == 120
    assert "  seed 2: 14: silence was read as off\n    ess-can sim replay --seed 2\n" in done.stdout
    assert "without a final state: 1\n  seed 3: it waits\n" in done.stdout
    assert "INVARIANT_VIOLATED: 2 findings in 3 runs" in done.stderr
    assert "`ess-can sim replay --seed 2`" in done.stderr


@pytest.mark.parametrize("wrong", [result(1, stuck="it waits"), result(1, unhealed="no"), result(1, violations=("x",))])
def test_each_kind_of_finding_counts(results: list[RunResult | type[BaseException]], wrong: RunResult) -> None:
    results.append(wrong)
    assert run("sim", "campaign", "--seeds", 1).exit_code == 120


def test_many_findings_are_cut_short_for_people(results: list[RunResult | type[BaseException]]) -> None:
    results += [result(seed, violations=("rule",)) for seed in range(1, 31)]
    done = run("sim", "campaign", "--seeds", 30)
    assert "and 10 more: --json lists all" in done.stdout
    assert "sim replay --seed 21\n" not in done.stdout


def test_json_has_all_of_it(results: list[RunResult | type[BaseException]]) -> None:
    results += [result(1, unhealed="HELD_OPEN"), result(2)]
    done = run("sim", "campaign", "--seeds", 2, "--jobs", 1, "--json")
    assert done.exit_code == 120
    told = document(done)
    assert (told["result"], told["exit_code"], told["error"]["name"]) == ("error", 120, "INVARIANT_VIOLATED")
    assert (told["first_seed"], told["seeds"], told["runs"], told["jobs"]) == (1, 2, 2, 1)
    assert told["not_healed"] == [{"seed": 1, "text": "HELD_OPEN", "replay": "ess-can sim replay --seed 1"}]
    assert (told["violations"], told["without_final_state"]) == ([], [])
    assert told["ended"] == {"DONE": 2}
    assert told["faults"] == {"BUS_SILENCE": 2}


def test_json_of_a_good_campaign(results: list[RunResult | type[BaseException]]) -> None:
    results.append(result(1))
    told = document(run("sim", "campaign", "--seeds", 1, "--json"))
    assert (told["result"], told["exit_code"], told["error"]) == ("ok", 0, None)


def test_an_interruption_sums_up_what_was_done(results: list[RunResult | type[BaseException]]) -> None:
    results += [result(1), KeyboardInterrupt]
    done = run("sim", "campaign", "--seeds", 5)
    assert done.exit_code == 3
    assert "1 runs in" in done.stdout
    assert "INTERRUPTED: interrupted after 1 of 5 runs" in done.stderr


def test_an_interruption_hides_no_finding(results: list[RunResult | type[BaseException]]) -> None:
    results += [result(1, violations=("rule",)), KeyboardInterrupt]
    assert run("sim", "campaign", "--seeds", 5).exit_code == 120


def test_on_a_terminal_there_is_a_bar(
    results: list[RunResult | type[BaseException]], monkeypatch: pytest.MonkeyPatch
) -> None:
    results += [result(1, violations=("rule",)), result(2)]
    monkeypatch.setattr(Console, "is_terminal", True)
    done = run("sim", "campaign", "--seeds", 2)
    assert done.exit_code == 120
    assert "seed 1: rule" in done.stdout
    assert "2 of 2 runs" not in done.stdout
    assert "2 runs in" in done.stdout


def test_a_document_is_all_that_json_prints(results: list[RunResult | type[BaseException]]) -> None:
    results.append(result(1, violations=("rule",)))
    json.loads(run("sim", "campaign", "--seeds", 1, "--json").stdout)
