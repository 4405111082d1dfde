"""A part of the circuit that is simulated elsewhere follows what is heard of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import StationLink
from ess_can.can.timing import BitTiming
from ess_can.signals.messages import BmsHvStatus, BmsState, ContactorState, PcsState, PcsStatus, RackState
from ess_can.sim.electrical import Contactor, ContactorSpec, RackCircuit, StationCircuit
from ess_can.sim.loop import run_virtual
from ess_can.sim.mirror import PcsMirror, RacksMirror
from ess_can.sim.wire import Wire
from tests.scenario.support import station_codec

OPEN, CLOSED, MOVING, INVALID = (
    ContactorState.OPEN,
    ContactorState.CLOSED,
    ContactorState.MOVING,
    ContactorState.INVALID,
)


class Rig:
    """A circuit of two closed racks; the other side speaks as `pcs`, `hv` and `soc` say, by rack, every 50 ms."""

    def __init__(self) -> None:
        wire = Wire(BitTiming(500_000))
        now = wire.loop.time()
        racks = [RackCircuit(closed=True) for _ in range(2)]
        self.circuit = StationCircuit(racks, now, pcs_contactor=Contactor(ContactorSpec(), closed=True))
        self.here = StationLink(wire.controller("here"), station_codec())
        self.there = StationLink(wire.controller("there"), station_codec())
        self.pcs: PcsStatus | None = None
        self.hv: dict[int, BmsHvStatus] = {}
        self.soc: dict[int, float] = {}
        self.cycle = Cycle(0.05, self._speak)
        self.cycle.start()

    def _speak(self, _now: float) -> None:
        if self.pcs is not None:
            self.there.send(self.pcs)
        for rack, status in self.hv.items():
            self.there.send(status, rack)
        for rack, soc in self.soc.items():
            self.there.send(BmsState(RackState.CLOSED, soc, 790.0, 24.0), rack)


def on_rig(script: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        await script(Rig())

    run_virtual(run())


def follow(rig: Rig, kind: type[PcsMirror] | type[RacksMirror]) -> PcsMirror | RacksMirror:
    mirror = kind(rig.circuit, rig.here)

    def step(now: float) -> None:
        rig.circuit.step(now)
        mirror.step(now)

    Cycle(0.01, step).start()
    return mirror


def pcs_status(contactors: ContactorState = CLOSED, current_a: float | None = -38.0) -> PcsStatus:
    return PcsStatus(PcsState.RUNNING, contactors, False, False, False, False, False, 0, current_a)


def hv_status(
    plus: ContactorState, minus: ContactorState, precharge: ContactorState = OPEN, link_v: float | None = None
) -> BmsHvStatus:
    return BmsHvStatus(plus, minus, precharge, True, False, False, False, False, link_v, 0.0)


def test_before_the_pcs_is_heard_nothing_changes() -> None:
    async def script(rig: Rig) -> None:
        mirror = follow(rig, PcsMirror)
        await pause(5.0)
        assert not mirror.heard
        assert rig.circuit.pcs_contactor.closed
        assert rig.circuit.bridge_current_a == 0.0

    on_rig(script)


def test_the_pcs_is_as_it_says_and_silence_opens_it() -> None:
    async def script(rig: Rig) -> None:
        mirror = follow(rig, PcsMirror)
        rig.pcs = pcs_status()
        await pause(0.3)
        assert mirror.heard
        assert rig.circuit.bridge_current_a == pytest.approx(-38.0)
        assert rig.circuit.racks[0].current_a == pytest.approx(-19.0, abs=0.5)
        rig.pcs = pcs_status(MOVING, None)  # neither says anything new
        await pause(0.2)
        assert rig.circuit.bridge_current_a == pytest.approx(-38.0)
        rig.pcs = None
        await pause(0.4)
        assert rig.circuit.pcs_contactor.closed
        await pause(0.2)
        assert not rig.circuit.pcs_contactor.closed
        assert rig.circuit.bridge_current_a == 0.0
        assert rig.circuit.pcs_contactor.arcs == 0
        rig.pcs = pcs_status(CLOSED, 0.0)
        await pause(0.3)
        assert rig.circuit.pcs_contactor.closed
        rig.pcs = pcs_status(OPEN, 0.0)
        await pause(0.1)
        assert not rig.circuit.pcs_contactor.closed

    on_rig(script)


def test_the_racks_are_as_they_say() -> None:
    async def script(rig: Rig) -> None:
        mirror = follow(rig, RacksMirror)
        await pause(5.0)
        assert not mirror.heard
        one, two = rig.circuit.racks
        assert one.main_plus.closed
        rig.hv = {1: hv_status(OPEN, OPEN), 2: hv_status(MOVING, INVALID)}
        await pause(0.2)
        assert mirror.heard
        assert not one.conductance_s
        assert two.conductance_s  # as it was seen last
        rig.hv[2] = hv_status(OPEN, OPEN)
        await pause(10.0)
        assert rig.circuit.link_voltage_v < 60.0
        rig.hv[1] = hv_status(OPEN, CLOSED, CLOSED)
        await pause(1.0)
        assert rig.circuit.link_voltage_v > 750.0
        assert (one.main_plus.closed, one.precharge.closed) == (False, True)

    on_rig(script)


def test_a_silent_rack_has_dropped_out_and_the_others_have_not() -> None:
    async def script(rig: Rig) -> None:
        follow(rig, RacksMirror)
        rig.hv = {1: hv_status(CLOSED, CLOSED), 2: hv_status(CLOSED, CLOSED)}
        await pause(0.5)
        del rig.hv[2]
        await pause(0.4)
        assert rig.circuit.racks[1].conductance_s
        await pause(0.2)
        assert not rig.circuit.racks[1].conductance_s
        assert rig.circuit.racks[0].conductance_s

    on_rig(script)


def test_what_the_racks_measure_on_the_link_counts() -> None:
    async def script(rig: Rig) -> None:
        follow(rig, RacksMirror)
        rig.hv = {1: hv_status(OPEN, OPEN, link_v=400.0), 2: hv_status(OPEN, OPEN, link_v=400.0)}
        await pause(2.0)
        assert rig.circuit.link_voltage_v == pytest.approx(400.0, abs=12.0)  # 50 ms of discharge in between
        rig.hv = {1: hv_status(OPEN, OPEN, link_v=None), 2: hv_status(OPEN, OPEN, link_v=None)}
        await pause(10.0)
        assert rig.circuit.link_voltage_v < 60.0

    on_rig(script)


def test_states_of_charge_follow_and_racks_that_are_not_here_are_ignored() -> None:
    async def script(rig: Rig) -> None:
        follow(rig, RacksMirror)
        rig.soc = {1: 31.5, 3: 90.0}
        rig.hv = {4: hv_status(OPEN, OPEN)}
        await pause(1.0)
        assert [round(rack.soc_percent, 1) for rack in rig.circuit.racks] == [31.5, 50.0]
        assert rig.circuit.racks[1].conductance_s

    on_rig(script)
