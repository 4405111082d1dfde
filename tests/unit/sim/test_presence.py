from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import IdConflict
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Part, PlantSpec
from ess_can.sim.presence import LISTEN_S, require_alone, sent_identifiers
from tests.scenario.support import BMU1, BMU2, COMM_GATEWAY, QUICK, small_plant, station_codec
from tests.support.memory_bus import bus_pair

ONE_RACK = replace(QUICK, racks=1)


def of(part: Part, spec: PlantSpec = ONE_RACK) -> dict[int, str]:
    return sent_identifiers(replace(spec, parts=frozenset({part})), station_codec())


def test_what_a_part_sends_is_its_own_alone() -> None:
    codec = station_codec()
    assert list(of(Part.PCS).values()) == ["PCS_Status"]
    bms = of(Part.BMS)
    assert {codec.diagnostic_ids(node)[1] for node in (BMU1, COMM_GATEWAY)} <= bms.keys()
    assert {codec.node_route(node).can_id for node in (BMU1, COMM_GATEWAY)} <= bms.keys()
    assert codec.node_route(BMU2).can_id not in bms
    assert codec.node_route(BMU2).can_id in of(Part.BMS, QUICK)
    assert not bms.keys() & {*codec.gateway_messages, *of(Part.PCS)}
    assert sent_identifiers(ONE_RACK, codec) == {**bms, **of(Part.PCS)}


@pytest.mark.parametrize("part", list(Part))
def test_everything_that_a_part_sends_is_listened_for(part: Part) -> None:
    async def run() -> None:
        plant = small_plant(replace(ONE_RACK, parts=frozenset({part})))
        sent: set[int] = set()
        plant.wire.on_frame.append(lambda frame, _at, _sender: sent.add(frame.can_id))
        plant.start()
        await pause(LISTEN_S)
        assert sent
        assert sent <= of(part).keys()
        plant.stop()

    run_virtual(run())


def test_silence_and_what_others_send_is_no_conflict() -> None:
    async def run() -> None:
        here, there = bus_pair()
        link = StationLink(there, station_codec())
        task_end = now() + LISTEN_S
        link.send(EmsPcsCommand(PcsCommandCode.RELEASE, 0.0))
        there.send(CanFrame(0x7FF, b""))
        await require_alone(here, of(Part.BMS))
        assert now() >= task_end
        assert here.listeners == 0

    run_virtual(run())


@pytest.mark.parametrize("part", list(Part))
def test_each_frame_of_ours_is_a_conflict_at_once(part: Part) -> None:
    async def run() -> None:
        for can_id, name in of(part).items():
            here, there = bus_pair()
            began = now()
            there.send(CanFrame(can_id, bytes(8)))
            with pytest.raises(IdConflict, match=name) as caught:
                await require_alone(here, of(part))
            assert caught.value.exit_code == 17
            assert now() - began < 0.1
            assert here.listeners == 0

    run_virtual(run())


@pytest.mark.parametrize("part", list(Part))
def test_a_plant_that_runs_is_heard(part: Part) -> None:
    async def run() -> None:
        plant = small_plant(replace(ONE_RACK, parts=frozenset({part})))
        plant.start()
        with pytest.raises(IdConflict):
            await require_alone(plant.wire.controller("other"), sent_identifiers(ONE_RACK, station_codec()))
        plant.stop()

    run_virtual(run())
