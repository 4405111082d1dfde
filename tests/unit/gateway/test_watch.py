"""What ends an upgrade at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import (
    BusError,
    BusOff,
    ContactorWelded,
    EmergencyStop,
    ErrorPassive,
    EssCanError,
    IdConflict,
    OtherGateway,
    PcsFault,
)
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    EmsPcsCommand,
    EmsUpgradeNotice,
    PcsCommandCode,
    PcsState,
    UpgradePhase,
)
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import CODEC, PCS_OFF, RACK_OFF, ScriptedPlant

Spoil = Callable[[ScriptedPlant], object]


def watch(spoil: Spoil, *, armed: bool = True) -> PlantWatch:
    """A watch over a plant that is off, and to which this happens."""

    async def scenario() -> PlantWatch:
        bus, peer = bus_pair()
        plant = ScriptedPlant(peer, pcs=PCS_OFF, racks={1: RACK_OFF, 2: RACK_OFF})
        seen = PlantWatch(StationLink(bus, CODEC))
        if armed:
            seen.arm()
        plant.start()
        await pause(0.2)
        assert seen.holds
        spoil(plant)
        await pause(0.2)
        seen.close()
        return seen

    return run_virtual(scenario())


EMERGENCIES: list[tuple[str, Spoil, type[EssCanError]]] = [
    ("pcs e-stop flag", lambda p: setattr(p, "pcs", replace(PCS_OFF, emergency_stop=True)), EmergencyStop),
    ("pcs e-stop", lambda p: setattr(p, "pcs", replace(PCS_OFF, state=PcsState.EMERGENCY_STOP)), EmergencyStop),
    ("pcs fault", lambda p: setattr(p, "pcs", replace(PCS_OFF, state=PcsState.FAULT, fault_code=2)), PcsFault),
    ("rack e-stop", lambda p: p.set_racks(replace(RACK_OFF, emergency_stop=True)), EmergencyStop),
    ("rack hvil", lambda p: p.set_racks(replace(RACK_OFF, hvil_closed=False)), EmergencyStop),
    ("rack weld plus", lambda p: p.set_racks(replace(RACK_OFF, weld_plus=True)), ContactorWelded),
    ("rack weld minus", lambda p: p.set_racks(replace(RACK_OFF, weld_minus=True)), ContactorWelded),
    ("fire", lambda p: p.alarms.update({2: BmsAlarms(fire=True)}), EmergencyStop),
    ("stop alarm", lambda p: p.alarms.update({2: BmsAlarms(emergency_stop=True)}), EmergencyStop),
    ("insulation", lambda p: p.alarms.update({2: BmsAlarms(insulation=True)}), EmergencyStop),
    ("hvil alarm", lambda p: p.alarms.update({2: BmsAlarms(hvil_open=True)}), EmergencyStop),
    ("weld alarm", lambda p: p.alarms.update({2: BmsAlarms(weld=True)}), ContactorWelded),
]


@pytest.mark.parametrize(("spoil", "kind"), [e[1:] for e in EMERGENCIES], ids=[e[0] for e in EMERGENCIES])
def test_an_emergency_ends_it_and_forbids_to_reconnect(spoil: Spoil, kind: type[EssCanError]) -> None:
    seen = watch(spoil)
    assert type(seen.error) is kind
    assert seen.forbids_reconnect is seen.error
    assert seen.emergency.error is seen.error


def test_an_emergency_stop_is_graver_than_what_was_seen_before_it_and_nothing_than_it() -> None:
    def spoil(plant: ScriptedPlant) -> None:
        plant.pcs = replace(PCS_OFF, state=PcsState.FAULT, fault_code=2)
        asyncio.get_running_loop().call_later(0.1, stop, plant)

    def stop(plant: ScriptedPlant) -> None:
        plant.pcs = replace(PCS_OFF, emergency_stop=True)
        plant.set_racks(replace(RACK_OFF, weld_plus=True))

    seen = watch(spoil)
    assert isinstance(seen.error, PcsFault)
    assert isinstance(seen.forbids_reconnect, EmergencyStop)


@pytest.mark.parametrize("spoil", [e[1] for e in EMERGENCIES], ids=[e[0] for e in EMERGENCIES])
def test_before_it_is_armed_the_policy_judges_instead(spoil: Spoil) -> None:
    seen = watch(spoil, armed=False)
    assert seen.holds
    assert seen.emergency.holds
    assert seen.forbids_reconnect is None


@pytest.mark.parametrize("alarm", [BmsAlarms(overvoltage=True), BmsAlarms(undertemperature=True)])
def test_a_lesser_alarm_does_not_end_it(alarm: BmsAlarms) -> None:
    assert watch(lambda plant: plant.alarms.update({1: alarm})).holds


def foreign_command(plant: ScriptedPlant) -> None:
    plant.link.send(EmsPcsCommand(PcsCommandCode.RUN))


def foreign_notice(plant: ScriptedPlant) -> None:
    plant.link.send(EmsUpgradeNotice(UpgradePhase.PREPARING, NodeType.BMU, 0, 0.0, 7))


@pytest.mark.parametrize(("spoil", "kind"), [(foreign_command, IdConflict), (foreign_notice, OtherGateway)])
def test_another_master_ends_it(spoil: Spoil, kind: type[EssCanError]) -> None:
    assert type(watch(spoil).error) is kind
    assert watch(spoil, armed=False).holds


@pytest.mark.parametrize("can_id", CODEC.gateway_messages)
@pytest.mark.parametrize("data", [b"", b"\xff" * 64])
def test_any_frame_that_only_we_should_send_ends_it(can_id: int, data: bytes) -> None:
    frame = CanFrame(can_id, data, fd=len(data) > 8)
    error = watch(lambda plant: plant.link.bus.send(frame)).error
    assert isinstance(error, IdConflict)
    assert CODEC.gateway_messages[can_id] in error.what
    assert str(frame) in error.why


@pytest.mark.parametrize("armed", [True, False])
def test_the_loss_of_the_bus_always_ends_it(armed: bool) -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        seen = PlantWatch(StationLink(bus, CODEC))
        if armed:
            seen.arm()
        lost = BusOff("off")
        bus.die(lost)
        assert seen.error is lost

    run_virtual(scenario())


def test_a_warning_of_the_bus_ends_nothing_and_is_told() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        seen = PlantWatch(StationLink(bus, CODEC))
        seen.arm()
        first, second = ErrorPassive("passive", why="TEC 128, REC 0"), ErrorPassive("again")
        bus.warn(first)
        assert seen.last_warning is first
        told: list[BusError] = []
        seen.on_warning = told.append
        bus.warn(second)
        assert told == [second]
        assert seen.last_warning is second
        assert seen.holds

    run_virtual(scenario())


def test_the_first_emergency_is_the_one_that_is_told() -> None:
    def both(plant: ScriptedPlant) -> None:
        plant.set_racks(replace(RACK_OFF, weld_plus=True))
        plant.pcs = replace(PCS_OFF, emergency_stop=True)

    seen = watch(both)
    assert isinstance(seen.forbids_reconnect, EmergencyStop)  # the PCS speaks first


def test_after_close_it_sees_nothing() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        seen = PlantWatch(StationLink(bus, CODEC))
        seen.arm()
        seen.close()
        bus.die(BusOff("off"))
        assert seen.holds

    run_virtual(scenario())
