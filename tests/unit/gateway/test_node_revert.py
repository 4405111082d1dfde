"""Bringing nodes back to their confirmed image, with a client of a few lines."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from ess_can.bus.clock import now, pause
from ess_can.errors import AccessDenied, AdapterLost, EssCanError, TrialBootFailed, UdsTimeout
from ess_can.gateway.node_client import NodeIdentity
from ess_can.gateway.node_revert import ask_to_revert, take_back
from ess_can.gateway.plan import Leftover
from ess_can.gateway.progress import Noted
from ess_can.gateway.station_master import StationMaster
from ess_can.journal.entries import Deed, Kind
from ess_can.signals.messages import ImageState
from tests.support.scripted_plant import BMU1
from tests.unit.gateway.test_node_upgrade import Bench, play


class Reverting(Bench):
    """The node says `says` once it was asked to revert."""

    says: ImageState | None = ImageState.CONFIRMED

    async def revert(self) -> None:
        await super().revert()
        if self.says is not None:
            self.hears(self.says, new=self.says is ImageState.TRIAL)


def result_of(bench: Bench) -> tuple[bool | None, str]:
    """Of the one deed that the journal has."""
    entry = bench.journal.last(Deed.REVERT)
    assert entry is not None
    assert entry.kind is Kind.RESULT
    return entry.ok, entry.text


def ask(fails: dict[str, list[Exception]], *, restart: bool = True) -> tuple[Bench, bool]:
    answers: list[bool] = []

    async def scenario(bench: Bench) -> None:
        bench.fails = fails
        bench.armed.suspect(BMU1)
        answers.append(await ask_to_revert(cast(StationMaster, bench), BMU1, bench.log, restart=restart))

    return play(scenario), answers[0]


@pytest.mark.parametrize("restart", [True, False])
def test_it_is_asked_once_and_restarted_only_if_it_has_to_be(restart: bool) -> None:
    bench, reverted = ask({}, restart=restart)
    assert reverted
    assert bench.armed.nodes == ()
    assert bench.calls == ["extended", "authenticate", "revert", *(["reset"] if restart else []), "hang up"]
    assert result_of(bench) == (True, "")


@pytest.mark.parametrize("error", [AccessDenied("no"), AdapterLost("gone")])
def test_what_another_try_would_only_meet_again_is_not_asked_again(error: EssCanError) -> None:
    bench, reverted = ask({"authenticate": [error]})
    assert bench.armed.nodes == (BMU1,)
    assert not reverted
    assert bench.calls == ["extended", "authenticate", "hang up"]
    assert result_of(bench) == (False, f"{error.name}: {error}")
    assert [event.text for event in bench.events if isinstance(event, Noted)] == [
        f"bmu1: could not be asked to revert ({error}); it does so by itself"
    ]


def test_one_that_gave_up_its_trial_and_is_gone_before_its_restart_did_revert() -> None:
    bench, reverted = ask({"reset": [AdapterLost("gone")]})
    assert reverted
    assert bench.calls[-2:] == ["reset", "hang up"]
    assert result_of(bench) == (True, "")


def test_one_that_stays_silent_is_asked_for_as_long_as_a_boot_takes() -> None:
    ended: list[float] = []

    async def scenario(bench: Bench) -> None:
        bench.fails = {"extended": [UdsTimeout("silent") for _ in range(99)]}
        assert not await ask_to_revert(cast(StationMaster, bench), BMU1, bench.log)
        ended.append(now())

    bench = play(scenario)
    assert 2.0 <= ended[0] < 2.6
    assert bench.calls.count("extended") == 5
    assert result_of(bench)[0] is False


def back(
    *,
    on_trial: bool,
    says: ImageState | None = ImageState.CONFIRMED,
    fails: dict[str, list[Exception]] | None = None,
) -> Bench:
    def make() -> Bench:
        bench = Reverting()
        bench.says = says
        return bench

    async def scenario(bench: Bench) -> None:
        bench.fails = fails or {}
        bench.hears(ImageState.TRIAL)  # what was heard before does not count
        await pause(0.1)
        await take_back(cast(StationMaster, bench), Leftover(BMU1, on_trial=on_trial), bench.log)

    return play(scenario, make)


@pytest.mark.parametrize("on_trial", [True, False])
def test_taken_back_when_it_says_so_itself(on_trial: bool) -> None:
    bench = back(on_trial=on_trial)
    assert ("reset" in bench.calls) is on_trial  # what only was activated goes on running
    assert bench.calls[-1] == "identify"


def test_one_on_trial_that_cannot_be_asked_may_come_back_by_itself() -> None:
    with pytest.raises(TrialBootFailed, match="does not go back to its confirmed image"):
        back(on_trial=True, fails={"extended": [AccessDenied("no")]})


def test_one_that_is_activated_and_cannot_be_asked_is_no_good() -> None:
    with pytest.raises(TrialBootFailed, match="may still boot another image"):
        back(on_trial=False, fails={"authenticate": [AccessDenied("no")]})


@pytest.mark.parametrize("says", [None, ImageState.TRIAL])
def test_one_that_does_not_show_its_confirmed_image(says: ImageState | None) -> None:
    with pytest.raises(TrialBootFailed, match="does not go back to its confirmed image"):
        back(on_trial=True, says=says)


class StaysArmed(Reverting):
    """Whatever it is asked, its next boot runs the other image."""

    async def identify(self) -> NodeIdentity:
        found = await super().identify()
        return replace(found, boot_state=replace(found.boot_state, armed=True))


def test_one_that_says_itself_that_it_boots_another_image_next() -> None:
    async def scenario(bench: Bench) -> None:
        await take_back(cast(StationMaster, bench), Leftover(BMU1, on_trial=False), bench.log)

    with pytest.raises(TrialBootFailed, match="still boots another image"):
        play(scenario, StaysArmed)
