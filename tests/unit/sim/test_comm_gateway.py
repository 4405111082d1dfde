"""The comm gateway proves high voltage off by what it hears, and by nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.signals.messages import BmsHvStatus, ContactorState, PcsState, PcsStatus
from ess_can.sim.comm_gateway import CommGatewayApplication
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import Behaviour
from ess_can.sim.wire import Wire
from tests.scenario.support import station_codec

OPEN = ContactorState.OPEN
OFF = BmsHvStatus(OPEN, OPEN, OPEN, True, False, False, True, False, 2.0, 0.0)
LOCKED = PcsStatus(PcsState.STANDBY, OPEN, True, True, False, False, False, 0, 0.0)


class Rig:
    def __init__(self) -> None:
        self.wire = Wire(BitTiming(500_000))
        self.others = StationLink(self.wire.controller("others"), station_codec())
        self.application = CommGatewayApplication(2)
        self.racks: dict[int, BmsHvStatus | None] = {1: OFF, 2: OFF}
        self.pcs: PcsStatus | None = LOCKED
        self.application.start(
            StationLink(self.wire.controller("comm_gateway"), station_codec()), Behaviour.GOOD, self.time
        )
        Cycle(0.05, self._say).start()

    @property
    def time(self) -> float:
        return self.wire.loop.time()

    @property
    def allowed(self) -> bool:
        return self.application.programming_allowed(self.time)

    def _say(self, _at: float) -> None:
        for rack, status in self.racks.items():
            if status is not None:
                self.others.send(status, rack)
        if self.pcs is not None:
            self.others.send(self.pcs)


def on_rig(script: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        await script(Rig())

    run_virtual(run())


def test_it_allows_programming_when_all_say_off() -> None:
    async def script(rig: Rig) -> None:
        assert not rig.allowed
        await pause(0.5)
        assert rig.allowed
        assert rig.application.reset_allowed(rig.time)
        rig.application.hold(True)
        assert rig.allowed

    on_rig(script)


SPOILERS: dict[str, Callable[[Rig], None]] = {
    "a rack says on": lambda rig: rig.racks.update({2: replace(OFF, hv_off=False)}),
    "a rack is silent": lambda rig: rig.racks.update({1: None}),
    "the PCS is silent": lambda rig: setattr(rig, "pcs", None),
    "the PCS is unlocked": lambda rig: setattr(rig, "pcs", replace(LOCKED, lock_acknowledged=False)),
    "the PCS is closed": lambda rig: setattr(rig, "pcs", replace(LOCKED, contactors=ContactorState.CLOSED)),
    "the PCS runs": lambda rig: setattr(rig, "pcs", replace(LOCKED, state=PcsState.RUNNING)),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_it_stops_to_allow_it(name: str) -> None:
    async def script(rig: Rig) -> None:
        await pause(0.5)
        assert rig.allowed
        SPOILERS[name](rig)
        await pause(0.35)
        assert not rig.allowed

    on_rig(script)


@pytest.mark.parametrize("message_type", [BmsHvStatus, PcsStatus])
def test_a_frame_that_fails_its_check_ends_it_at_once(message_type: type[BmsHvStatus | PcsStatus]) -> None:
    async def script(rig: Rig) -> None:
        await pause(0.52)
        assert rig.allowed
        rig.others.bus.send(CanFrame(station_codec().route(message_type).can_id, bytes(8)))
        await pause(0.001)
        assert not rig.allowed
        await pause(0.5)
        assert rig.allowed

    on_rig(script)


def test_a_restart_forgets_what_was_heard() -> None:
    async def script(rig: Rig) -> None:
        await pause(0.5)
        rig.application.stop(rig.time)
        assert not rig.allowed

    on_rig(script)
