"""What is recorded of the plant, and whether new firmware measures plausibly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import TrialBootFailed
from ess_can.gateway.foreign import ForeignFrame
from ess_can.gateway.plant_view import Connection, PlantView, RackView, Sample
from ess_can.identity import NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    BmsState,
    ContactorState,
    EmsPcsCommand,
    EmsUpgradeNotice,
    PcsCommandCode,
    UpgradePhase,
)
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CELLS, CODEC, PCS_RUNNING, RACK_CLOSED, STATE, ScriptedPlant

C = ContactorState
NOTICE = CODEC.encode(EmsUpgradeNotice(UpgradePhase.PREPARING, NodeType.BMU, 0, 0.0, 7))


def test_everything_is_recorded_with_its_time() -> None:
    async def scenario() -> None:
        bus, peer = bus_pair()
        view, plant = PlantView(), ScriptedPlant(peer)
        stop = view.attach(StationLink(bus, CODEC))
        assert view.any_frame_at is None
        await pause(1.0)
        plant.speak()
        await pause(0.1)
        plant.speak()  # a monitor that joins takes no frame before the second, unless it is the sender's first
        plant.link.send(EmsPcsCommand(PcsCommandCode.RUN))
        plant.link.send(EmsUpgradeNotice(UpgradePhase.PREPARING, NodeType.BMU, 0, 0.0, 7))
        await pause(0.1)
        assert view.pcs is not None
        assert view.pcs.value == PCS_RUNNING
        assert view.pcs.at == pytest.approx(1.1005)
        for rack in (1, 2):
            seen = view.rack(rack)
            assert None not in (seen.hv, seen.state, seen.cells, seen.alarms)
            assert seen.hv is not None
            assert seen.hv.value == RACK_CLOSED
        assert set(view.nodes) == {BMU1, BMU2}
        (foreign,) = view.foreign.values()
        assert foreign.name == "EMS_PcsCommand"
        assert foreign.at == pytest.approx(1.1005)
        assert view.foreign_notice is not None
        assert view.plant_frame_at == pytest.approx(1.1005)
        stop()

    run_virtual(scenario())


def test_strangers_are_listened_to_until_the_plant_is_heard_so_that_an_adapter_may_filter() -> None:
    async def scenario() -> None:
        bus, peer = bus_pair()
        view, plant = PlantView(), ScriptedPlant(peer)
        stop = view.attach(StationLink(bus, CODEC))
        before = bus.listeners
        bus.deliver(CanFrame(0x7FF, b""))
        assert (view.any_frame_at, view.plant_frame_at) == (0.0, None)
        await pause(1.0)
        plant.speak()
        await pause(0.1)
        assert view.plant_frame_at == pytest.approx(1.0005)
        assert bus.listeners == before - 1
        bus.deliver(CanFrame(0x7FF, b""))
        assert view.any_frame_at is not None
        assert view.any_frame_at < 1.1
        stop()
        assert bus.listeners == before - 2

    run_virtual(scenario())


def test_a_plant_that_is_the_first_to_be_heard_is_a_frame_too() -> None:
    async def scenario() -> None:
        bus, peer = bus_pair()
        view = PlantView()
        view.attach(StationLink(bus, CODEC))
        ScriptedPlant(peer).speak()
        await pause(0.1)
        assert view.any_frame_at == pytest.approx(0.0005)

    run_virtual(scenario())


@pytest.mark.parametrize("can_id", CODEC.gateway_messages)
@pytest.mark.parametrize("data", [b"", NOTICE])
def test_a_frame_that_only_we_should_send_is_recorded_whatever_is_in_it(can_id: int, data: bytes) -> None:
    async def scenario() -> None:
        bus, view = MemoryBus(), PlantView()
        view.attach(StationLink(bus, CODEC))
        frame = CanFrame(can_id, data)
        bus.deliver(frame)
        notice = can_id == CODEC.route(EmsUpgradeNotice).can_id and data == NOTICE  # says itself what it means
        recorded = ForeignFrame(CODEC.gateway_messages[can_id], frame, 0.0)
        assert view.foreign == ({} if notice else {can_id: recorded})

    run_virtual(scenario())


def test_what_others_may_send_is_not_recorded() -> None:
    async def scenario() -> None:
        bus, view = MemoryBus(), PlantView()
        request_id, response_id = CODEC.diagnostic_ids(BMU1)
        view.attach(StationLink(bus, CODEC))
        bus.deliver(CanFrame(response_id, bytes(8)))
        bus.deliver(CanFrame(request_id, bytes(8)))
        assert list(view.foreign) == [request_id]

    run_virtual(scenario())


def test_frames_that_are_not_the_plants_are_noticed_as_frames_only() -> None:
    async def scenario() -> None:
        bus, view = MemoryBus(), PlantView()
        view.attach(StationLink(bus, CODEC))
        bus.deliver(CanFrame(0x7FF, b"\x01"))
        assert view.any_frame_at == 0.0
        assert view.plant_frame_at is None
        assert view.rack(7) == RackView()

    run_virtual(scenario())


def rack(state: BmsState = STATE, cells: BmsCellSummary = CELLS, at: float = 10.0) -> RackView:
    return RackView(Sample(RACK_CLOSED, at), Sample(state, at), Sample(cells, at), Sample(BmsAlarms(), at))


def test_a_snapshot_does_not_change_any_more() -> None:
    view = PlantView(racks={1: rack()})
    before = view.snapshot()
    view.rack(1).state = None
    assert before[1].state is not None


@pytest.mark.parametrize(
    ("state", "cells"),
    [
        (STATE, CELLS),
        (replace(STATE, soc_percent=59.9), CELLS),
        (replace(STATE, string_voltage_v=751.0), CELLS),
        (STATE, replace(CELLS, cell_voltage_max_v=3.49)),
        (STATE, replace(CELLS, cell_temperature_max_degc=39.0)),
    ],
)
def test_values_that_stayed_are_plausible(state: BmsState, cells: BmsCellSummary) -> None:
    PlantView(racks={1: rack(state, cells, 20.0)}).require_plausible({1: rack()}, 15.0)


@pytest.mark.parametrize(
    ("state", "cells", "name"),
    [
        (replace(STATE, soc_percent=61.0), CELLS, "state of charge"),
        (replace(STATE, soc_percent=None), CELLS, "state of charge"),
        (replace(STATE, string_voltage_v=79.0), CELLS, "string voltage"),
        (STATE, replace(CELLS, cell_voltage_min_v=3.0), "lowest cell voltage"),
        (STATE, replace(CELLS, cell_voltage_max_v=None), "highest cell voltage"),
        (STATE, replace(CELLS, cell_temperature_min_degc=-20.0), "lowest cell temperature"),
        (STATE, replace(CELLS, cell_temperature_max_degc=60.0), "highest cell temperature"),
    ],
)
def test_a_value_that_jumped_fails_the_trial(state: BmsState, cells: BmsCellSummary, name: str) -> None:
    with pytest.raises(TrialBootFailed, match="rack 1 measures implausibly") as caught:
        PlantView(racks={1: rack(state, cells, 20.0)}).require_plausible({1: rack()}, 15.0)
    assert name in caught.value.why


def test_what_was_not_known_before_cannot_have_jumped() -> None:
    old = rack(replace(STATE, soc_percent=None), replace(CELLS, cell_voltage_min_v=None))
    PlantView(racks={1: rack(at=20.0)}).require_plausible({1: old}, 15.0)


@pytest.mark.parametrize("name", ["hv", "state", "cells", "alarms"])
@pytest.mark.parametrize("stale", [True, False])
def test_silence_after_the_restart_is_not_plausible(name: str, stale: bool) -> None:
    view = PlantView(racks={1: rack(at=20.0)})
    assert view.heard_since((1,), 15.0)
    old = getattr(rack(), name) if stale else None
    setattr(view.rack(1), name, old)
    assert not view.heard_since((1,), 15.0)
    with pytest.raises(TrialBootFailed, match="rack 1 does not say all"):
        view.require_plausible({1: rack()}, 15.0)


def test_racks_that_were_unknown_before_are_compared_as_far_as_known() -> None:
    PlantView(racks={1: rack(at=20.0)}).require_plausible({1: RackView()}, 15.0)


@pytest.mark.parametrize(
    ("pcs", "racks", "expected"),
    [
        (C.CLOSED, ((C.CLOSED, C.CLOSED), (C.CLOSED, C.CLOSED)), Connection.CONNECTED),
        (C.OPEN, ((C.OPEN, C.OPEN), (C.OPEN, C.OPEN)), Connection.OPEN),
        (C.CLOSED, ((C.CLOSED, C.CLOSED), (C.OPEN, C.OPEN)), Connection.PARTLY),
        (C.OPEN, ((C.CLOSED, C.CLOSED), (C.CLOSED, C.CLOSED)), Connection.PARTLY),
        (C.CLOSED, ((C.CLOSED, C.OPEN), (C.CLOSED, C.CLOSED)), Connection.PARTLY),
        (C.OPEN, ((C.OPEN, C.OPEN), (C.OPEN, C.MOVING)), Connection.PARTLY),
        (C.INVALID, ((C.OPEN, C.OPEN), (C.OPEN, C.OPEN)), Connection.PARTLY),
    ],
)
def test_whether_high_voltage_is_connected(
    pcs: ContactorState, racks: tuple[tuple[ContactorState, ContactorState], ...], expected: Connection
) -> None:
    view = PlantView(pcs=Sample(replace(PCS_RUNNING, contactors=pcs), 5.0))
    for number, (plus, minus) in enumerate(racks, start=1):
        view.rack(number).hv = Sample(replace(RACK_CLOSED, main_plus=plus, main_minus=minus), 5.0)
    assert view.connection((1, 2), since=5.0) is expected
    assert view.connection((1, 2), since=5.1) is Connection.UNKNOWN
    assert view.connection((1, 2, 3), since=5.0) is Connection.UNKNOWN
