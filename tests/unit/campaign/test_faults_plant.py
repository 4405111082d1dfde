"""Faults of PCS, racks and high voltage: each shows on the plant itself, and is gone when it is healed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.station import StationLink
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.faults.plant import NAMES
from ess_can.campaign.station import Station
from ess_can.errors import UsageError
from ess_can.signals.messages import BmsHvStatus, ContactorState, EmsPcsCommand, PcsState
from ess_can.sim.hv_control import RackControl
from ess_can.sim.latches import Latch
from tests.unit.campaign.stations import healed, on_station

Look = Callable[[Station], object]


def rack(station: Station) -> RackControl:
    return station.plant.racks[0]


def cell_extremes(station: Station) -> tuple[float | None, ...]:
    low, high = station.plant.hardware[0].cell_extremes_v()
    return tuple(None if each is None else round(each, 2) for each in (low, high))


def cell_extremes_of(station: Station, number: int) -> list[float]:
    return [each or 0.0 for each in station.plant.hardware[number].cell_extremes_v()]


SHOWS: dict[str, tuple[float, Look, object]] = {
    # Name: how long after it began somebody looks, at what, and what is there.
    "ramp-ignored": (3.0, lambda s: abs(s.plant.circuit.bridge_current_a) > 30, True),
    "pcs-current-stuck": (0.1, lambda s: s.plant.pcs.measured_current_a == 0.0, True),
    "rack-current-stuck": (0.1, lambda s: s.plant.hardware[0].read().current_a == 0.0, True),
    "weld-plus": (
        3.0,
        lambda s: Latch.WELD_PLUS in rack(s).latches and s.plant.circuit.racks[0].main_plus.closed,
        True,
    ),
    "weld-minus": (
        3.0,
        lambda s: Latch.WELD_MINUS in rack(s).latches and s.plant.circuit.racks[0].main_minus.closed,
        True,
    ),
    "feedback-open": (0.1, lambda s: rack(s).hv_status(now()).main_plus, ContactorState.OPEN),
    "feedback-closed": (3.0, lambda s: s.plant.circuit.racks[0].main_plus.feedback, ContactorState.CLOSED),
    "link-charged": (3.0, lambda s: s.plant.circuit.link_voltage_v > 700, True),
    "voltage-invalid": (0.2, lambda s: rack(s).hv_status(now()).link_voltage_v, None),
    "voltage-frozen": (3.0, lambda s: (s.plant.hardware[0].read().link_voltage_v or 0) > 700, True),
    "hv-closes": (3.0, lambda s: s.plant.circuit.link_voltage_v > 700, True),
    "closed-by-hand": (0.1, lambda s: s.plant.circuit.racks[0].precharge.closed, True),
    "pcs-restarts": (0.1, lambda s: s.plant.pcs.state, PcsState.INIT),
    "emergency-stop": (
        0.1,
        lambda s: (Latch.EMERGENCY_STOP in rack(s).latches, s.plant.pcs.state),
        (True, PcsState.EMERGENCY_STOP),
    ),
    "insulation": (0.1, lambda s: Latch.INSULATION in rack(s).latches, True),
    "fire": (0.1, lambda s: Latch.FIRE in rack(s).latches, True),
    "hvil": (0.1, lambda s: Latch.HVIL_OPEN in rack(s).latches, True),
    "aux-low": (0.1, lambda s: (rack(s).state(now()).aux_voltage_v or 0) < 21, True),
    "soc-low": (0.1, lambda s: s.plant.circuit.racks[0].soc_percent < 5, True),
    "strings-apart": (0.1, lambda s: s.plant.circuit.racks[0].ocv_v - s.plant.circuit.racks[1].ocv_v > 3.0, True),
    "grid-service": (0.1, lambda s: s.plant.pcs.status(now()).grid_service_active, True),
    "cell-high": (0.1, lambda s: cell_extremes(s)[1], 3.62),
    "cell-unknown": (0.1, cell_extremes, (None, None)),
    "cell-hot": (0.1, lambda s: s.plant.hardware[0].temperature_max_degc, 52.0),
}
MOMENTS = {"hv-closes": 2.9}
SWITCHES = {"pcs-restarts", "closed-by-hand"}
ELSEWHERE = {"hv-status-lost", "hv-status-bad", "heartbeat-unheard", "precharge-fails"}


def test_every_name_is_looked_at() -> None:
    assert set(NAMES) == set(SHOWS) | ELSEWHERE


def inputs(station: Station) -> list[object]:
    """All that can be set about a plant, as it is set."""
    plant, circuit = station.plant, station.plant.circuit
    found: list[object] = [plant.pcs.faults, plant.pcs.grid_service_active, circuit.link, circuit.external_source_v]
    found += [(contactor.fault, contactor.feedback_fault) for contactor in circuit.contactors]
    for number, hardware in enumerate(plant.hardware):
        found += [hardware.string_sensor, hardware.link_sensor, hardware.current_sensor, hardware.hvil_closed]
        found += [hardware.emergency_stop, hardware.fire, hardware.insulation_fault, hardware.aux_voltage_v]
        found += [hardware.temperature_max_degc, hardware.cell_voltage_v(3) is not None]
        found += [round(circuit.racks[number].soc_percent), [c < 3.5 for c in cell_extremes_of(station, number)]]
    return found


@pytest.mark.parametrize("name", SHOWS)
def test_it_shows_and_is_healed(name: str) -> None:
    after_s, look, shown = SHOWS[name]
    fault = parse_fault(f"plant:{name}@{MOMENTS.get(name, 0.01)}")

    async def undisturbed(station: Station) -> None:
        station.start_upgrade()
        await pause(0.01 + after_s)
        assert look(station) != shown

    async def act(station: Station) -> None:
        good = inputs(station)
        station.arm(fault)
        station.start_upgrade()
        assert not station.took_effect(fault)
        await pause(0.01 + after_s)
        assert station.took_effect(fault)
        assert look(station) == shown
        assert inputs(station) != good or name in SWITCHES
        station.kill_gateway()
        await healed(station)
        assert inputs(station) == good
        assert not any(control.latches for control in station.plant.racks)
        assert station.plant.pcs.state not in (PcsState.FAULT, PcsState.EMERGENCY_STOP)
        assert [contactor.closed for contactor in station.plant.circuit.contactors] == [
            contactor.coil for contactor in station.plant.circuit.contactors
        ]

    on_station(undisturbed, racks=2)
    on_station(act, racks=2)


def test_what_lasts_for_a_time_is_over_then() -> None:
    async def act(station: Station) -> list[bool]:
        station.start_upgrade()
        seen = []
        for _ in range(4):
            await pause(0.1)
            seen.append(station.plant.pcs.grid_service_active)
        return seen

    assert on_station(act, "plant:grid-service@0.15~0.1") == [False, True, False, False]


@pytest.mark.parametrize("name", ["hv-status-lost:2", "hv-status-bad:2", "heartbeat-unheard"])
def test_messages_that_nobody_can_use(name: str) -> None:
    """Nothing usable of this kind while it lasts, and everything else as ever."""
    begins_s, lasts_s = 1.0, 1.5

    async def act(station: Station) -> tuple[list[tuple[float, int]], list[float]]:
        link = StationLink(station.plant.wire.controller("listener"), station.plant.codec)
        statuses: list[tuple[float, int]] = []
        commands: list[float] = []
        link.subscribe(BmsHvStatus, lambda r: statuses.append((r.at, r.index)))
        link.subscribe(EmsPcsCommand, lambda r: commands.append(r.at))
        station.start_upgrade()
        await pause(4.0)
        begun = station.begun_at or 0.0
        return [(at - begun, index) for at, index in statuses], [at - begun for at in commands]

    statuses, commands = on_station(act, f"plant:{name}@{begins_s}~{lasts_s}", racks=2)
    counts = {
        index: sum(1 for at, i in statuses if i == index and begins_s < at < begins_s + lasts_s) for index in (1, 2)
    }
    ordered = sum(1 for at in commands if begins_s < at < begins_s + lasts_s)
    assert counts[1] > 10
    assert (counts[2] == 0) == name.startswith("hv-status")
    assert (ordered == 0) == (name == "heartbeat-unheard")
    assert any(index == 2 and at > begins_s + lasts_s for at, index in statuses)


CONTACTORS = ("main_plus", "main_minus", "precharge")


@pytest.mark.parametrize(
    ("moment", "before", "by_hand"),
    [
        ("0.1", {"main_plus", "main_minus"}, {"precharge"}),
        ("PROVE_HV_OFF+1", set(), {"main_minus", "precharge"}),
    ],
)
def test_contactors_that_are_closed_by_hand_are_let_go_and_what_the_bmu_closed_stays(
    moment: str, before: set[str], by_hand: set[str]
) -> None:
    async def act(station: Station) -> None:
        fault = parse_fault(f"plant:closed-by-hand:1@{moment}~0.1")
        circuit, seen = station.plant.circuit.racks[0], set[str]()

        def now_closed() -> set[str]:
            return {name for name in CONTACTORS if getattr(circuit, name).closed}

        station.arm(fault)
        station.start_upgrade()
        while not station.took_effect(fault):
            seen = now_closed()
            await pause(0.001)
        assert seen == before
        assert now_closed() == before | by_hand
        await pause(0.11)
        assert now_closed() == before

    on_station(act, racks=1)


def test_contactors_closed_by_hand_are_the_bmus_once_it_closes_them_itself() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        assert await station.ended()
        assert all(
            each.closed
            for each in (station.plant.circuit.racks[0].main_plus, station.plant.circuit.racks[0].main_minus)
        )

    on_station(act, "plant:closed-by-hand:1@RECONNECT+0.25~0.1")


def test_a_precharge_contactor_that_does_not_close() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        assert await station.ended()
        assert Latch.PRECHARGE_FAILED in rack(station).latches
        assert not station.plant.circuit.racks[0].conductance_s
        await healed(station)
        assert not rack(station).latches
        station.start_resume()
        assert await station.ended()
        assert station.plant.circuit.racks[0].conductance_s > 0

    on_station(act, "plant:precharge-fails:1@0")


def test_a_rack_that_is_not_there() -> None:
    async def act(_station: Station) -> None:
        """Nothing."""

    with pytest.raises(UsageError, match="rack 3"):
        on_station(act, "plant:fire:3@0", racks=2)
