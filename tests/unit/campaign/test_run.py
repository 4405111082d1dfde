from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign import run
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.mixture import mixture_of, plain
from ess_can.campaign.operator import disconnect, partly_connected
from ess_can.campaign.plants import SMALLEST
from ess_can.campaign.releases import make_plant
from ess_can.campaign.run import behind, replay_seed, run_mixture, run_seed
from ess_can.campaign.station import Station
from ess_can.errors import UsageError
from ess_can.gateway.config import Afterwards
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.loop import run_virtual

_PROGRAM = """
from ess_can.campaign.run import run_seed
print([run_seed(seed).trace_hash for seed in (3, 8)])
"""


def test_an_undisturbed_upgrade_is_done_and_the_next_one_too() -> None:
    result = run_mixture(plain())
    assert result.good, result.wrong
    assert (result.ended, result.errors, result.kills, result.took_effect) == ("DONE", (), 0, ())
    assert "phase RECONNECT DONE" in result.edges
    assert result.frames > 800
    assert result.steps > 200
    assert result.entries > 20


def test_a_seed_runs_the_same_way_every_time_and_in_every_process() -> None:
    assert run_seed(3) == run_seed(3)
    traces = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        traces.add(done.stdout.strip())
    assert traces == {str([run_seed(seed).trace_hash for seed in (3, 8)])}


def test_a_result_may_travel_between_processes() -> None:
    result = run_mixture(plain())
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - it is our own


def test_a_replay_is_the_same_run() -> None:
    result, timeline = replay_seed(3)
    assert result == run_seed(3)
    assert timeline.lines


def test_a_replay_tells_of_everybody() -> None:
    _, timeline = replay_seed(1, ["gateway:kill@PROGRAM+0.05"])
    who = {line.who for line in timeline.lines}
    assert {"gateway", "journal", "fault", "PCS", "rack 1", "bmu1", "somebody"} <= who
    assert "died" in {line.what for line in timeline.lines if line.who == "gateway"}


def test_other_faults_may_take_the_place_of_a_seeds_own() -> None:
    result = run_seed(5, ["gateway:kill@PROGRAM+0.01"])
    assert result.faults == ("gateway:kill@PROGRAM+0.01",)
    assert result.plant == mixture_of(5).site.text
    assert (result.kills, result.took_effect) == (1, ("KILL_AT_TIME",))
    assert run_seed(5, []).faults == ()


def test_what_is_no_fault_is_refused() -> None:
    with pytest.raises(UsageError):
        run_seed(1, ["nonsense"])


def test_errors_on_the_way_are_told_beside_that_at_the_end() -> None:
    result = run_mixture(plain("plant:emergency-stop:1@PROGRAM+0.05"))
    assert result.errors[0] == "HELD_OPEN"
    assert "EMERGENCY_STOP" in result.errors


def test_a_gateway_that_stays_dead_is_started_when_the_faults_are_over() -> None:
    result = run_mixture(plain("gateway:kill@PROGRAM+0.05", restarts=()))
    assert result.good, result.wrong
    assert (result.ended, result.kills) == ("DONE", 1)


@dataclass(frozen=True)
class NeverHealed:
    """A contactor that stays welded whatever anybody does."""

    kind = FaultKind.WELD_PLUS
    text = "welded for good"

    def arm(self, station: Station) -> None:
        station.plant.circuit.racks[0].main_plus.fault = ContactorFault.WELDED


def test_a_plant_that_takes_no_good_upgrade_afterwards_is_a_finding() -> None:
    result = run_mixture(plain(), faults=[NeverHealed()])
    assert not result.good
    assert "CONTACTOR_WELDED" in result.wrong or "welded" in result.wrong.lower()
    assert "(invariant 28:" in result.unhealed or "(invariant 27:" in result.stuck


@dataclass(frozen=True)
class Breaks:
    """A defect of the simulated plant itself."""

    kind = FaultKind.NODE_RESET
    text = "a defect"

    def arm(self, station: Station) -> None:
        def on_step(at: float) -> None:
            if at > 3.0:
                raise ZeroDivisionError("in the plant")

        station.plant.on_step.append(on_step)


def test_a_simulation_that_breaks_is_a_finding_and_ends_no_campaign() -> None:
    result = run_mixture(plain(), faults=[Breaks()])
    assert "ZeroDivisionError: in the plant" in result.stuck


def test_an_attempt_without_end_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONGEST_S", 2.0)
    result = run_mixture(plain())
    assert "after 2 s of 2 s it stands at nowhere (invariant 27:" in result.stuck
    assert not result.good


def test_a_plant_found_open_is_left_open_and_connected_by_the_next() -> None:
    result = run_mixture(plain(site=replace(SMALLEST, plant=replace(SMALLEST.plant, running=False))))
    assert result.good, result.wrong
    assert "rack OPEN CLOSE" in result.edges  # by the good upgrade, which is told to


def test_held_open_by_choice() -> None:
    result = run_mixture(plain(site=replace(SMALLEST, afterwards=Afterwards.HOLD_OPEN)))
    assert result.good, result.wrong
    assert (result.ended, result.errors) == ("HELD_OPEN", ("HELD_OPEN_BY_CHOICE",))


def test_an_operator_disconnects_what_is_partly_connected() -> None:
    async def play() -> tuple[bool, bool, bool]:
        plant = make_plant(SMALLEST.plant)
        plant.start()
        await pause(1.0)
        whole = partly_connected(plant)
        plant.circuit.pcs_contactor.drive(False, plant.wire.loop.time())
        await pause(0.2)
        partly = partly_connected(plant)
        await disconnect(plant)
        return whole, partly, partly_connected(plant)

    assert run_virtual(play()) == (False, True, False)


def test_what_is_behind_an_error_is_found_once_each() -> None:
    first, second, third, other = ValueError("first"), KeyError("second"), UsageError("third"), UsageError("other")
    third.__cause__, third.__context__, second.__context__ = second, second, first
    first.__context__ = third  # a circle ends, too
    assert behind(None, third, other, third) == [third, other, second, first]
    assert behind(None) == []
