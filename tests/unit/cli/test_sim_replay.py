from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.campaign import run as campaign_run
from ess_can.campaign.result import RunResult
from ess_can.campaign.timeline import Timeline
from tests.unit.campaign.results import result
from tests.unit.cli.run import document, run


def test_a_replay_tells_what_happened_when() -> None:
    done = run("sim", "replay", "--seed", 1, "--faults", "gateway:kill@PROGRAM+0.05")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Seed 1: ")
    assert lines[1] == "Faults: gateway:kill@PROGRAM+0.05."
    assert any("gateway      died" in line for line in lines)
    assert "good upgrade after   done" in lines
    assert "broken rules         0" in lines
    assert any(line.startswith("trace  ") for line in lines)


def test_json_has_the_timeline_and_the_hash() -> None:
    told = document(run("sim", "replay", "--seed", 2, "--faults", "none", "--json"))
    assert (told["result"], told["exit_code"], told["error"], told["seed"]) == ("ok", 0, None, 2)
    assert (told["faults"], told["took_effect"], told["violations"]) == ([], [], [])
    assert len(told["trace_hash"]) == 64
    assert {"at", "who", "what"} == set(told["timeline"][0])
    again = document(run("sim", "replay", "--seed", 2, "--faults", "none", "--json"))
    assert again == told


def test_the_kinds_of_faults_are_listed() -> None:
    done = run("sim", "replay", "--seed", 1, "--faults", "help")
    assert done.exit_code == 0
    for text in ("frame:", "bus:", "node:", "flash:", "plant:", "gateway:"):
        assert text in done.stdout


def test_several_faults() -> None:
    told = document(
        run(
            "sim",
            "replay",
            "--seed",
            2,
            "--faults",
            "frame:10:lost",
            "--faults",
            "node:bmu1:reset@PROGRAM+0.05",
            "--json",
        )
    )
    assert told["faults"] == ["frame:10:lost", "node:bmu1:reset@PROGRAM+0.05"]


def test_what_is_no_fault_is_told_with_where_to_look() -> None:
    done = run("sim", "replay", "--seed", 1, "--faults", "nonsense")
    assert done.exit_code == 2
    assert "--faults help" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        result(7, violations=("14: silence was read as off",)),
        result(7, stuck="it waits"),
        result(7, unhealed="HELD_OPEN: no"),
        replace(result(7, ended=""), stuck="it waits"),
    ],
)
def test_a_finding_ends_with_120(monkeypatch: pytest.MonkeyPatch, wrong: RunResult) -> None:
    timeline = Timeline()
    for at in (1.0, 2.0):
        timeline.add(at, "bmu1", "boots")
    monkeypatch.setattr(campaign_run, "replay_seed", lambda _seed, _faults: (wrong, timeline))
    done = run("sim", "replay", "--seed", 7)
    assert done.exit_code == 120
    assert wrong.wrong in done.stdout + done.stderr
    assert "INVARIANT_VIOLATED" in done.stderr
    assert "boots (2 times, until 2.000 s)" in done.stdout
    told = document(run("sim", "replay", "--seed", 7, "--json"))
    assert (told["exit_code"], told["error"]["name"]) == (120, "INVARIANT_VIOLATED")
