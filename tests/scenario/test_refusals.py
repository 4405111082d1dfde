"""Each state of the plant that forbids an upgrade: one typed error, and nothing sent that changes the plant."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from ess_can.bus.clock import Cycle
from ess_can.bus.station import StationLink
from ess_can.campaign.monitors import Invariant
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import BusError
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import (
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    Message,
    PcsCommandCode,
    PcsStatus,
    UpgradePhase,
)
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.latches import Latch
from ess_can.sim.pcs import PcsFaultCode, PcsFaults
from ess_can.sim.plant import Plant
from ess_can.sim.rack import SensorFault
from tests.scenario.support import BMU1, BMU2, COMM_GATEWAY, OLD, QUICK, Scene, changes_plant, play, station_codec

Prepare = Callable[[Plant], None]


def later(plant: Plant, act: Callable[[float], None]) -> None:
    """Act half a second after the start, when everybody is up."""
    loop = plant.wire.loop
    loop.call_later(0.5, lambda: act(loop.time()))


def pcs_fault(plant: Plant) -> None:
    later(plant, lambda at: plant.pcs.trip(PcsFaultCode.INTERNAL, at))


def pcs_current_invalid(plant: Plant) -> None:
    plant.pcs.faults = PcsFaults(current_sensor_stuck=True, current_sensor_value_a=None)


def pcs_current_stuck_at_zero(plant: Plant) -> None:
    plant.pcs.faults = PcsFaults(current_sensor_stuck=True)


def pcs_restarts_for_ever(plant: Plant) -> None:
    Cycle(0.2, plant.pcs.restart).start()


def pcs_silent(plant: Plant) -> None:
    later(plant, lambda _: plant.pcs_node.power_off())


def grid_service(plant: Plant) -> None:
    plant.pcs.grid_service_active = True


def pcs_emergency_stop(plant: Plant) -> None:
    later(plant, plant.pcs.press_emergency_stop)


def rack_emergency_stop(plant: Plant) -> None:
    plant.hardware[1].emergency_stop = True


def rack_fire(plant: Plant) -> None:
    plant.hardware[0].fire = True


def rack_hvil(plant: Plant) -> None:
    plant.hardware[1].hvil_closed = False


def rack_insulation(plant: Plant) -> None:
    plant.hardware[0].insulation_fault = True


def rack_weld(plant: Plant) -> None:
    """A plant that was opened before, and one contactor did not."""
    plant.circuit.racks[0].main_plus.fault = ContactorFault.WELDED
    plant.circuit.racks[0].main_plus.closed = True


def rack_current_stuck(plant: Plant) -> None:
    plant.hardware[0].current_sensor = SensorFault(0.0)


def rack_current_invalid(plant: Plant) -> None:
    plant.hardware[1].current_sensor = SensorFault()


def soc(percent: float) -> Prepare:
    return lambda plant: plant.circuit.racks[1].set_soc(percent)


def cell(voltage_v: float | None) -> Prepare:
    return lambda plant: plant.hardware[0].set_cell_voltage(17, voltage_v)


def cold(plant: Plant) -> None:
    plant.hardware[0].temperature_min_degc = -5.0


def hot(plant: Plant) -> None:
    plant.hardware[1].temperature_max_degc = 52.0


def aux_low(plant: Plant) -> None:
    plant.hardware[1].aux_voltage_v = 20.0


def missing(address: NodeAddress) -> Prepare:
    def prepare(plant: Plant) -> None:
        later(plant, plant.nodes[address].power_off)

    return prepare


def unconfirmed(plant: Plant) -> None:
    """Rack 2's record says that what it runs is on trial."""
    boot = plant.nodes[BMU2].records.boot
    record = boot.load()
    assert record is not None
    bank = record.active_bank
    confirmed = tuple(None if number == bank else image for number, image in enumerate(record.confirmed))
    boot.store(
        replace(
            record,
            active_bank=1 - bank,
            confirmed=(confirmed[0], confirmed[1]),
            trial=record.confirmed[bank],
            tries_left=1,
        )
    )


def another(message: Message, period_s: float) -> Prepare:
    """Somebody else sends this."""

    def prepare(plant: Plant) -> None:
        link = StationLink(plant.wire.controller("stranger"), plant.codec)
        cycle = Cycle(period_s, lambda _: link.send(message))
        plant.wire.loop.call_later(0.3, cycle.start)

    return prepare


def frames(can_id: int, data: bytes, period_s: float) -> Prepare:
    """Somebody else sends this, well formed or not."""

    def prepare(plant: Plant) -> None:
        stranger = plant.wire.controller("stranger")
        cycle = Cycle(period_s, lambda _: stranger.send(CanFrame(can_id, data)))
        plant.wire.loop.call_later(0.3, cycle.start)

    return prepare


def wrong_dbc(plant: Plant) -> None:
    """The nodes were built with another DBC."""
    other_id = plant.codec.node_route(BMU2).can_id

    def fault(_index: int, frame: CanFrame) -> CanFrame | None:
        if frame.can_id != other_id:
            return None
        decoded = plant.codec.decode(frame.can_id, frame.data)
        assert decoded is not None
        foreign = replace(decoded.message, dbc_fingerprint=plant.codec.fingerprint ^ 0x0101)  # type: ignore[call-arg]
        return CanFrame(frame.can_id, plant.codec.encode(foreign, BMU2))

    plant.wire.fault = fault


def silent(plant: Plant) -> None:
    def off(at: float) -> None:
        for node in plant.nodes.values():
            node.power_off(at)
        plant.pcs_node.power_off()

    later(plant, off)


def nothing_known(plant: Plant) -> None:
    """A bus that carries somebody else's traffic."""
    silent(plant)
    stranger = plant.wire.controller("stranger")
    plant.wire.controller("its partner")

    def chatter(_at: float) -> None:
        with suppress(BusError):
            stranger.send(CanFrame(0x7E0, b"\x02\x3e\x80"))

    Cycle(0.1, chatter).start()


_REQUEST_BMU2 = station_codec().diagnostic_ids(BMU2)[0]
_NOTICE_ID = station_codec().route(EmsUpgradeNotice).can_id
_NOTICE = EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 1, 0.0, 0xBEEF)

CASES: dict[str, tuple[Prepare, str, int]] = {
    "the PCS is in fault": (pcs_fault, "PCS_FAULT", 41),
    "the PCS does not know its current": (pcs_current_invalid, "PCS_FAULT", 41),
    "the PCS restarts again and again": (pcs_restarts_for_ever, "PCS_FAULT", 41),
    "a grid service is active": (grid_service, "DISPATCH_ACTIVE", 42),
    "emergency stop at the PCS": (pcs_emergency_stop, "EMERGENCY_STOP", 43),
    "emergency stop at a rack": (rack_emergency_stop, "EMERGENCY_STOP", 43),
    "fire": (rack_fire, "EMERGENCY_STOP", 43),
    "interlock loop open": (rack_hvil, "EMERGENCY_STOP", 43),
    "insulation alarm": (rack_insulation, "BMS_FAULT", 44),
    "state of charge too low": (soc(8.0), "SOC_OUT_OF_BAND", 45),
    "state of charge too high": (soc(97.0), "SOC_OUT_OF_BAND", 45),
    "a cell too low": (cell(2.7), "CELL_VOLTAGE_OUT_OF_BAND", 46),
    "a cell too high": (cell(3.62), "CELL_VOLTAGE_OUT_OF_BAND", 46),
    "a cell unknown": (cell(None), "BMS_FAULT", 44),
    "too cold": (cold, "CELL_TEMPERATURE_OUT_OF_BAND", 47),
    "too hot": (hot, "CELL_TEMPERATURE_OUT_OF_BAND", 47),
    "auxiliary supply low": (aux_low, "AUX_SUPPLY_LOW", 48),
    "a rack is missing": (missing(BMU2), "NODE_MISSING", 49),
    "the comm gateway is missing": (missing(COMM_GATEWAY), "NODE_MISSING", 49),
    "the PCS is silent": (pcs_silent, "NODE_MISSING", 49),
    "a node runs on trial": (unconfirmed, "NODE_UNHEALTHY", 50),
    "the PCS's sensor is stuck at zero": (pcs_current_stuck_at_zero, "CURRENT_MISMATCH", 53),
    "a rack's sensor is stuck at zero": (rack_current_stuck, "CURRENT_MISMATCH", 53),
    "a rack does not know its current": (rack_current_invalid, "BMS_FAULT", 44),
    "another DBC": (wrong_dbc, "DBC_MISMATCH", 16),
    "another gateway": (another(_NOTICE, 0.5), "OTHER_GATEWAY", 18),
    "another master": (another(EmsPcsCommand(PcsCommandCode.RUN, 10.0), 0.05), "ID_CONFLICT", 17),
    "another gateway polls": (another(EmsHvStatusPoll(0x123456), 0.1), "ID_CONFLICT", 17),
    "a tester keeps its session with a BMU": (frames(_REQUEST_BMU2, b"\x02\x3e\x80", 0.5), "ID_CONFLICT", 17),
    "nonsense on the identifier of our notice": (frames(_NOTICE_ID, b"\xff", 0.5), "ID_CONFLICT", 17),
    "the bus is silent": (silent, "BUS_SILENT", 14),
    "no valid traffic": (nothing_known, "NO_VALID_TRAFFIC", 19),
}


_BREAKS = {"a node runs on trial": frozenset({Invariant.BOOTABLE, Invariant.LOCK})}
"""The plant is on the grid, and nothing would boot once that trial ends."""


@pytest.mark.parametrize("case", CASES)
def test_refused_without_a_trace(case: str) -> None:
    prepare, error, exit_code = CASES[case]
    outcome = play(prepare=prepare, breaks=_BREAKS.get(case, frozenset()))
    outcome.require(Phase.REFUSED, error, exit_code)
    assert outcome.why
    assert not changes_plant(outcome.scene)
    assert not outcome.scene.monitors.operations
    assert all(version == OLD for version in outcome.versions.values())


def test_a_welded_contactor_is_refused() -> None:
    outcome = play(spec=replace(QUICK, running=False), prepare=rack_weld)
    outcome.require(Phase.REFUSED, "CONTACTOR_WELDED", 51)
    assert Latch.WELD_PLUS in outcome.scene.plant.racks[0].latches
    assert not changes_plant(outcome.scene)


def test_a_rack_that_nobody_expected_is_refused() -> None:
    outcome = play(config=lambda _: GatewayConfig((BMU1, COMM_GATEWAY)))
    outcome.require(Phase.REFUSED, "NODE_MISSING", 49)
    assert "bmu2 is heard but not expected" in str(outcome.report.error)
    assert not changes_plant(outcome.scene)


def test_the_gravest_reason_is_named_first_and_the_others_beside_it() -> None:
    def prepare(plant: Plant) -> None:
        grid_service(plant)
        aux_low(plant)
        rack_emergency_stop(plant)

    outcome = play(prepare=prepare)
    outcome.require(Phase.REFUSED, "EMERGENCY_STOP", 43)
    assert "grid service" in outcome.why
    assert "auxiliary supply" in outcome.why


def test_a_plant_whose_status_cannot_be_trusted_is_missing() -> None:
    """PCS_Status arrives, but fails its end-to-end check."""

    def prepare(plant: Plant) -> None:
        can_id = plant.codec.route(PcsStatus).can_id

        def corrupt(_index: int, frame: CanFrame) -> CanFrame | None:
            if frame.can_id != can_id:
                return None
            return CanFrame(can_id, frame.data[:-1] + bytes((frame.data[-1] ^ 0x10,)))

        plant.wire.fault = corrupt

    outcome = play(prepare=prepare)
    outcome.require(Phase.REFUSED, "NODE_MISSING", 49)
    assert not changes_plant(outcome.scene)


def test_a_fault_that_comes_while_the_nodes_are_asked_is_seen() -> None:
    async def trip(scene: Scene) -> None:
        await scene.step(NodeStep.IDENTIFY, BMU2)
        scene.plant.pcs.grid_service_active = True

    outcome = play(trip, spec=replace(QUICK, bit_timing=BitTiming(125_000)))
    outcome.require(Phase.REFUSED, "DISPATCH_ACTIVE", 42)
    assert not changes_plant(outcome.scene)
