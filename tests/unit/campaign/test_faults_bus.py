"""Faults of frames and of the bus: what everybody receives, and what controllers become."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest

from ess_can.bus.clock import now, pause
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.faults.frames import CLASSES, identifiers
from ess_can.campaign.station import Station
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, BusOff, ErrorPassive
from ess_can.sim.controller import ControllerState
from tests.unit.campaign.stations import healed, on_station

HV_STATUS = 0.1


class Heard(NamedTuple):
    at: float
    frame: CanFrame


def heard_by_all(*faults: str, seconds: float = 1.0, seed: int = 1) -> list[Heard]:
    """What a listener receives in the first second of an upgrade, with times since its begin."""

    async def act(station: Station) -> list[Heard]:
        heard: list[Heard] = []
        listener = station.plant.wire.controller("listener")
        station.start_upgrade()
        begun_at = now()
        listener.subscribe(None, lambda frame, at: heard.append(Heard(at - begun_at, frame)))
        await pause(seconds)
        for fault in station.faults:
            assert station.took_effect(fault)
        return heard

    return on_station(act, *faults, seed=seed)


GOOD = heard_by_all()


def test_a_frame_is_lost() -> None:
    bad = heard_by_all("frame:20:lost")
    assert bad == GOOD[:20] + GOOD[21:]


def test_frames_in_a_row_are_lost() -> None:
    bad = heard_by_all("frame:20x2:lost")
    assert bad[:100] == (GOOD[:20] + GOOD[22:])[:100]


def test_a_frame_is_duplicated() -> None:
    bad = heard_by_all("frame:20:duplicated")
    assert [each.frame for each in bad[:22]] == [each.frame for each in (*GOOD[:21], GOOD[20])]


def test_two_frames_are_swapped() -> None:
    bad = heard_by_all("frame:20:swapped")
    assert [each.frame for each in bad[:23]] == [each.frame for each in (*GOOD[:20], GOOD[21], GOOD[20], GOOD[22])]


def test_a_frame_is_corrupted_by_the_seed() -> None:
    bad = heard_by_all("frame:20:corrupted")
    assert bad[:20] == GOOD[:20]
    assert bad[20].at == GOOD[20].at
    flipped = int.from_bytes(bad[20].frame.data, "big") ^ int.from_bytes(GOOD[20].frame.data, "big")
    assert 1 <= flipped.bit_count() <= 3
    assert bad[20].frame.can_id == GOOD[20].frame.can_id
    assert heard_by_all("frame:20:corrupted") == bad
    others = {heard_by_all("frame:20:corrupted", seed=seed)[20].frame.data for seed in range(2, 6)}
    assert len(others) > 1


def test_a_frame_is_delayed_and_others_overtake_it() -> None:
    bad = heard_by_all("frame:20:delayed=0.03")
    late = next(each for each in bad if each.frame == GOOD[20].frame)
    assert late.at == pytest.approx(GOOD[20].at + 0.03)
    assert [each for each in bad if each is not late] == GOOD[:20] + GOOD[21:]
    assert bad.index(late) > 20


@pytest.mark.parametrize("name", ["pcs-status", "hv-status", "state", "cells", "alarms"])
def test_a_frame_by_its_class(name: str) -> None:
    ids: list[frozenset[int]] = []

    async def codec(station: Station) -> None:
        ids.append(identifiers(station.plant.codec, name))

    on_station(codec)
    place = [index for index, each in enumerate(GOOD) if each.frame.can_id in ids[0]][1]
    assert heard_by_all(f"frame:{name}#1:lost") == GOOD[:place] + GOOD[place + 1 :]


@pytest.mark.parametrize("name", CLASSES)
def test_a_frame_of_every_class(name: str) -> None:
    """Of this class one frame less is received than sent, and of all others none."""

    async def act(station: Station) -> None:
        station.plant.wire.controller("listener").subscribe(None, lambda frame, _at: received.update([frame.can_id]))
        station.plant.wire.on_frame.append(lambda frame, _at, _sender: sent.update([frame.can_id]))
        station.start_upgrade()
        await station.ended()
        lost = sent - received
        assert lost.total() == 1
        assert lost.keys() <= identifiers(station.plant.codec, name)

    sent: Counter[int] = Counter()
    received: Counter[int] = Counter()
    on_station(act, f"frame:{name}#1:lost")


# --- the bus ------------------------------------------------------------------------------------------


def test_the_gateway_becomes_error_passive_and_is_told() -> None:
    async def act(station: Station) -> list[BusError]:
        told: list[BusError] = []
        station.controller.watch(told.append)
        station.start_upgrade()
        states = []
        for wait_s in (0.09, 0.02):
            await pause(wait_s)
            states.append(station.controller.state)
        assert states == [ControllerState.ERROR_ACTIVE, ControllerState.ERROR_PASSIVE]
        return told

    assert [type(error) for error in on_station(act, "bus:passive@0.1")] == [ErrorPassive]


def test_bus_off_as_often_as_is_said() -> None:
    async def act(station: Station) -> list[BusError]:
        told: list[BusError] = []
        station.controller.watch(lambda error: told.append(error) if isinstance(error, BusOff) else None)
        station.start_upgrade()
        await pause(0.11)
        station.kill_gateway()
        assert station.controller.state is ControllerState.BUS_OFF
        for _ in range(4):
            station.controller.restart()
            await pause(0.2)
        assert station.controller.online
        return told

    assert len(on_station(act, "bus:off=3@0.1")) == 3


def test_healing_brings_a_controller_back_from_bus_off() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        await pause(0.11)
        station.kill_gateway()
        assert not station.controller.online
        await healed(station)
        assert station.controller.online
        assert station.controller.state is ControllerState.ERROR_ACTIVE

    on_station(act, "bus:off=9@0.1")


def test_a_silent_bus() -> None:
    heard = heard_by_all("bus:silent@0.2~0.5", seconds=1.0)
    assert not [each for each in heard if 0.201 < each.at < 0.7]
    assert [each for each in heard if each.at > 0.7]


@pytest.mark.parametrize("percent", [20, 60])
def test_a_babbler_takes_its_share(percent: int) -> None:
    async def act(station: Station) -> float:
        station.start_upgrade()
        await pause(0.1)
        before = station.plant.wire.busy_s({0})
        await pause(1.0)
        share = station.plant.wire.busy_s({0}) - before
        await healed(station)
        after = station.plant.wire.busy_s({0})
        await pause(1.0)
        assert station.plant.wire.busy_s({0}) == after
        return share

    assert on_station(act, f"bus:babbler={percent}@0.05") == pytest.approx(percent / 100, abs=0.03)


@pytest.mark.parametrize(("fault", "error"), [("foreign", "ID_CONFLICT"), ("second-gateway", "OTHER_GATEWAY")])
def test_somebody_speaks_as_we_do(fault: str, error: str) -> None:
    async def act(station: Station) -> str:
        station.start_upgrade()
        assert await station.ended()
        assert station.report is not None
        assert station.report.error is not None
        name = station.report.error.name
        senders: set[str] = set()
        station.plant.wire.on_frame.append(lambda _frame, _at, sender: senders.add(sender))
        await healed(station)
        senders.clear()
        await pause(1.0)
        assert senders <= {"PCS", *map(str, station.plant.addresses)}
        return name

    assert on_station(act, f"bus:{fault}@0") == error


def test_a_burst_of_errors() -> None:
    async def act(station: Station) -> int:
        station.start_upgrade()
        await pause(1.0)
        return station.plant.wire.error_frames

    assert on_station(act) == 0
    assert on_station(act, "bus:errors=7@0.3") == 7


def test_faults_that_are_over_cost_nothing() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        await pause(0.5)
        assert station.plant.wire.fault is not None
        station.heal()
        assert station.plant.wire.fault is None

    on_station(act, "frame:20:lost", "bus:silent@0.1~0.1")


def test_two_faults_of_one_frame_both_count_it() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        await pause(0.5)
        assert all(station.took_effect(fault) for fault in station.faults)

    on_station(act, "frame:hv-status#0:lost", "frame:hv-status#0:corrupted", "frame:hv-status#1:delayed=0.1")


def test_what_did_not_happen_took_no_effect() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        await pause(0.5)
        assert not station.took_effect(station.faults[0])
        assert not station.effects

    on_station(act, "frame:999999:lost")
    assert parse_fault("frame:1:lost") == parse_fault("frame:1:lost")
