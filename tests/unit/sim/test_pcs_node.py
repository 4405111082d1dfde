"""The PCS on the bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import Received, StationLink
from ess_can.can.timing import BitTiming
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode, PcsState, PcsStatus
from ess_can.sim.electrical import RackCircuit, StationCircuit
from ess_can.sim.loop import run_virtual
from ess_can.sim.pcs import Pcs
from ess_can.sim.pcs_node import PcsNode
from ess_can.sim.wire import Wire
from tests.scenario.support import station_codec


class Rig:
    def __init__(self) -> None:
        self.wire = Wire(BitTiming(500_000))
        self.pcs = Pcs(StationCircuit([RackCircuit()], self.time), self.time)
        self.node = PcsNode(self.pcs, self.wire.controller("PCS"), station_codec())
        self.ems = StationLink(self.wire.controller("EMS"), station_codec())
        self.wire.controller("another node, which acknowledges")
        self.heard: list[Received[PcsStatus]] = []
        self.ems.subscribe(PcsStatus, self.heard.append)
        Cycle(0.01, self.pcs.step).start()

    @property
    def time(self) -> float:
        return self.wire.loop.time()


def on_rig(script: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        await script(Rig())

    run_virtual(run())


def test_it_sends_its_status_every_50_ms() -> None:
    async def script(rig: Rig) -> None:
        rig.node.power_on()
        await pause(1.0)
        assert len(rig.heard) == 20
        assert rig.ems.counters.e2e_rejected == 0
        assert rig.heard[-1].message.state is PcsState.STANDBY

    on_rig(script)


def test_it_takes_orders() -> None:
    async def script(rig: Rig) -> None:
        rig.node.power_on()
        order = Cycle(0.05, lambda _: rig.ems.send(EmsPcsCommand(PcsCommandCode.LOCK)))
        order.start()
        await pause(0.5)
        assert rig.heard[-1].message.remote_control
        assert rig.heard[-1].message.lock_acknowledged
        order.stop()
        await pause(1.0)
        assert rig.heard[-1].message.heartbeat_lost
        assert rig.heard[-1].message.lock_acknowledged

    on_rig(script)


def test_without_power_it_neither_hears_nor_speaks() -> None:
    async def script(rig: Rig) -> None:
        rig.node.power_on()
        await pause(0.2)
        rig.node.power_off()
        heard = len(rig.heard)
        rig.ems.send(EmsPcsCommand(PcsCommandCode.LOCK))
        await pause(1.0)
        assert len(rig.heard) == heard
        assert not rig.pcs.locked
        rig.node.power_on()
        rig.ems.send(EmsPcsCommand(PcsCommandCode.LOCK))
        await pause(0.2)
        assert rig.pcs.locked

    on_rig(script)


def test_a_restart_forgets_the_lock() -> None:
    async def script(rig: Rig) -> None:
        rig.node.power_on()
        rig.ems.send(EmsPcsCommand(PcsCommandCode.LOCK))
        await pause(0.2)
        rig.node.restart(rig.time)
        assert rig.pcs.state is PcsState.INIT
        await pause(1.0)
        assert rig.heard[-1].message.state is PcsState.STANDBY
        assert not rig.heard[-1].message.lock_acknowledged

    on_rig(script)
