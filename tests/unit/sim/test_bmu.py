"""The BMU's application on a bus: what it sends, what it answers, what it obeys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import Received, StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellGroup,
    BmsCellSummary,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    ContactorState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    HvNoticeCondition,
    Message,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    RackState,
)
from ess_can.sim.bmu import BmuApplication
from ess_can.sim.electrical import RackCircuit, StationCircuit
from ess_can.sim.hv_control import RackControl
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import Behaviour
from ess_can.sim.rack import RackHardware
from ess_can.sim.wire import Wire
from tests.scenario.support import station_codec
from tests.support.latch_store import MemoryLatchStore

M = TypeVar("M", bound=Message)


class Rig:
    """Rack 2 with its BMU on a wire, and a link that plays PCS and EMS."""

    def __init__(self) -> None:
        self.wire = Wire(BitTiming(500_000))
        codec = station_codec()
        rack = RackCircuit()
        self.circuit = StationCircuit([rack], self.time)
        self.hardware = RackHardware(self.circuit, rack)
        self.control = RackControl(self.hardware, MemoryLatchStore(), self.time, index=2)
        self.application = BmuApplication(self.control, 2)
        self.link = StationLink(self.wire.controller("bmu2", depth=32), codec)
        self.other = StationLink(self.wire.controller("others"), codec)
        self.pcs = PcsStatus(PcsState.STANDBY, ContactorState.OPEN, True, True, False, False, False, 0, 0.0)
        self.steps = Cycle(0.01, self.control.step)
        self.pcs_cycle = Cycle(0.05, lambda _: self.other.send(self.pcs))
        self.steps.start()

    @property
    def time(self) -> float:
        return self.wire.loop.time()

    def is_in(self, state: RackState) -> bool:
        return self.control.rack_state is state

    def start(self, behaviour: Behaviour = Behaviour.GOOD) -> None:
        self.application.start(self.link, behaviour, self.time)

    def listen(self, message_type: type[M]) -> list[Received[M]]:
        heard: list[Received[M]] = []
        self.other.subscribe(message_type, heard.append)
        return heard

    async def rest(self) -> None:
        """PCS status arrives until the rack is proved off."""
        self.pcs_cycle.start()
        await pause(1.0)


def on_rig(script: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        await script(Rig())

    run_virtual(run())


def test_it_sends_everything_in_its_cycle_and_every_page_of_the_cells() -> None:
    async def script(rig: Rig) -> None:
        status, state, alarms = rig.listen(BmsHvStatus), rig.listen(BmsState), rig.listen(BmsAlarms)
        summaries, groups = rig.listen(BmsCellSummary), rig.listen(BmsCellGroup)
        rig.start()
        await pause(1.99)
        assert (len(status), len(state), len(alarms)) == (40, 10, 20)
        assert {received.index for received in status} == {2}
        assert len(summaries) == 4
        assert [received.message.page for received in groups] == [1, 2, 3, 4] * 4
        assert rig.link.counters.e2e_rejected == 0

    on_rig(script)


def test_it_answers_a_poll_with_its_token() -> None:
    async def script(rig: Rig) -> None:
        notices = rig.listen(BmsHvNotice)
        rig.start()
        await rig.rest()
        rig.other.send(EmsHvStatusPoll(0xABCDEF))
        await pause(0.05)
        assert [(n.message.token, n.message.condition) for n in notices] == [(0xABCDEF, HvNoticeCondition.DISCONNECTED)]

    on_rig(script)


def test_it_proves_high_voltage_off_only_while_the_pcs_says_so() -> None:
    async def script(rig: Rig) -> None:
        rig.start()
        await pause(1.0)
        assert not rig.application.programming_allowed(rig.time)
        await rig.rest()
        assert rig.application.programming_allowed(rig.time)
        assert rig.application.reset_allowed(rig.time)
        rig.pcs_cycle.stop()
        await pause(0.3)
        assert not rig.application.programming_allowed(rig.time)

    on_rig(script)


def test_a_pcs_status_that_fails_its_check_proves_nothing() -> None:
    async def script(rig: Rig) -> None:
        rig.start()
        await rig.rest()
        assert rig.application.programming_allowed(rig.time)
        await pause(0.02)
        can_id = rig.other.codec.route(PcsStatus).can_id
        rig.other.bus.send(CanFrame(can_id, bytes(8)))
        await pause(0.001)
        assert not rig.application.programming_allowed(rig.time)

    on_rig(script)


def test_it_closes_on_order_unless_it_is_held() -> None:
    async def script(rig: Rig) -> None:
        rig.start()
        rig.pcs = PcsStatus(PcsState.STANDBY, ContactorState.OPEN, False, True, False, False, False, 0, 0.0)
        await rig.rest()
        order = Cycle(0.05, lambda _: rig.other.send(EmsPcsCommand(PcsCommandCode.CLOSE)))
        rig.application.hold(True)
        order.start()
        await pause(3.0)
        assert rig.is_in(RackState.OPEN)
        rig.application.hold(False)
        await pause(3.0)
        assert rig.is_in(RackState.CLOSED)
        assert not rig.application.reset_allowed(rig.time)

    on_rig(script)


@pytest.mark.parametrize("behaviour", [Behaviour.GOOD, Behaviour.NO_HV_STATUS, Behaviour.WRONG_SCALE])
def test_how_it_behaves(behaviour: Behaviour) -> None:
    async def script(rig: Rig) -> None:
        status, state, notices = rig.listen(BmsHvStatus), rig.listen(BmsState), rig.listen(BmsHvNotice)
        rig.start(behaviour)
        await rig.rest()
        rig.other.send(EmsHvStatusPoll(1))
        await pause(0.05)
        silent = behaviour is Behaviour.NO_HV_STATUS
        assert (bool(status), bool(notices)) == (not silent, not silent)
        voltage_v = rig.hardware.read().string_voltage_v
        assert voltage_v is not None
        factor = 0.5 if behaviour is Behaviour.WRONG_SCALE else 1.0
        assert state[-1].message.string_voltage_v == pytest.approx(factor * voltage_v, abs=0.13)  # resolution 0.25 V

    on_rig(script)


def test_stopped_it_is_silent_and_its_contactors_drop() -> None:
    async def script(rig: Rig) -> None:
        status = rig.listen(BmsHvStatus)
        rig.start()
        await pause(0.5)
        heard = len(status)
        rig.hardware.rack.main_minus.drive(True, rig.time)
        await pause(0.1)
        rig.application.stop(rig.time)
        await pause(1.0)
        assert len(status) in (heard + 2, heard + 3)
        assert not rig.hardware.rack.main_minus.closed
        rig.application.stop(rig.time)  # once more changes nothing
        assert rig.control.rack_state is RackState.INIT

    on_rig(script)


def test_without_its_mcu_it_neither_acts_nor_remembers() -> None:
    async def script(rig: Rig) -> None:
        rig.start()
        await pause(0.5)
        rig.application.stop(rig.time)
        rig.hardware.fire = True
        await pause(1.0)
        assert (rig.control.rack_state, rig.control.latches) == (RackState.INIT, frozenset())
        rig.hardware.fire = False
        rig.start()
        await pause(0.5)
        assert rig.control.rack_state is RackState.OPEN

    on_rig(script)


def test_a_bus_that_takes_nothing_is_survived() -> None:
    async def script(rig: Rig) -> None:
        rig.start()
        await pause(0.5)
        rig.wire.controller("a third one")
        for controller in (rig.link.bus,):
            controller.detach()  # type: ignore[attr-defined]
        await pause(1.0)
        controller.attach()  # type: ignore[attr-defined]
        status = rig.listen(BmsHvStatus)
        await pause(1.0)
        assert len(status) >= 15

    on_rig(script)
