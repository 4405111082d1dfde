"""Off and on again with a plant that obeys, and with one that does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.station import StationLink
from ess_can.errors import (
    BusError,
    ContactorsNotOpening,
    ContactorWelded,
    CurrentMismatch,
    DischargeTimeout,
    EssCanError,
    NodeMissing,
    PcsNotStopping,
    PrechargeFailed,
    ReconnectFailed,
)
from ess_can.gateway.config import GatewayConfig, TimeLimits
from ess_can.gateway.isolation import Isolation
from ess_can.gateway.orders import Orders
from ess_can.gateway.plant_view import PlantView
from ess_can.signals.messages import BmsAlarms, ContactorState, PcsCommandCode, PcsState, RackState
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, PCS_OFF, PCS_RUNNING, RACK_CLOSED, RACK_OFF, ScriptedPlant

C = PcsCommandCode
TIMES = TimeLimits(ramp_down_s=2.0, contactor_opening_s=1.0, discharge_s=3.0, reconnect_s=2.0)


class Bench:
    """A running plant, heard for a while."""

    def __init__(self) -> None:
        self.bus, peer = bus_pair()
        self.plant = ScriptedPlant(peer)
        link = StationLink(self.bus, CODEC)
        self.view = PlantView()
        self.view.attach(link)
        self.errors: list[BusError] = []
        self.orders = Orders(link, 0x1234, self.errors.append)
        self.isolation = Isolation(self.view, self.orders, GatewayConfig((BMU1, BMU2), times=TIMES))
        self.plant.start()

    async def take_off(self) -> None:
        await self.isolation.ramp_down()
        await self.isolation.open_contactors()
        await self.isolation.wait_for_discharge()


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def start() -> None:
        bench = Bench()
        await pause(0.2)
        await scenario(bench)

    run_virtual(start())


def expect(
    kind: type[EssCanError], prepare: Callable[[ScriptedPlant], object], act: Callable[[Bench], Awaitable[None]]
) -> Bench:
    """Do it and meet this error, in bounded time."""
    benches: list[Bench] = []

    async def scenario(bench: Bench) -> None:
        benches.append(bench)
        prepare(bench.plant)
        with pytest.raises(kind) as caught:
            await act(bench)
        assert type(caught.value) is kind
        assert caught.value.why
        assert now() < 10.0

    play(scenario)
    return benches[0]


def allowed() -> None:
    """Nothing is against it."""


def test_off_and_on_again_in_the_right_order() -> None:
    async def scenario(bench: Bench) -> None:
        assert bench.isolation.is_connected()
        await bench.take_off()
        await pause(0.2)
        assert not bench.isolation.is_connected()
        assert bench.plant.pcs.lock_acknowledged
        assert bench.isolation.signs_of_closed() == ""
        await bench.isolation.reconnect(allowed)
        assert bench.isolation.is_connected()
        await bench.isolation.hand_back(connected=True)
        assert bench.plant.orders == [C.ZERO_POWER, C.OPEN, C.LOCK, C.UNLOCK, C.CLOSE, C.RELEASE]
        assert not bench.plant.pcs.remote_control

    play(scenario)


def test_hand_back_with_contactors_open_unlocks_and_does_not_close() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.take_off()
        await bench.isolation.hand_back(connected=False)
        assert bench.plant.orders[-2:] == [C.UNLOCK, C.RELEASE]
        assert bench.plant.pcs.contactors is ContactorState.OPEN

    play(scenario)


def ramp_down(bench: Bench) -> Awaitable[None]:
    return bench.isolation.ramp_down()


def test_a_pcs_that_does_not_ramp() -> None:
    bench = expect(PcsNotStopping, lambda plant: plant.ignores.add(C.ZERO_POWER), ramp_down)
    assert bench.plant.orders == [C.ZERO_POWER]


@pytest.mark.parametrize(
    "answer",
    [
        replace(PCS_RUNNING, remote_control=True, state=PcsState.RAMPING, dc_current_a=0.5),
        replace(PCS_RUNNING, remote_control=True, state=PcsState.STANDBY, dc_current_a=None),
        replace(PCS_RUNNING, remote_control=True, state=PcsState.STANDBY, dc_current_a=1.0),
        replace(PCS_RUNNING, remote_control=True, state=PcsState.STANDBY, dc_current_a=0.0, heartbeat_lost=True),
        replace(PCS_RUNNING, remote_control=False, state=PcsState.STANDBY, dc_current_a=0.0),
    ],
    ids=["ramping", "invalid", "at the limit", "heartbeat lost", "not ours"],
)
def test_a_pcs_that_does_not_prove_its_rest(answer: object) -> None:
    def prepare(plant: ScriptedPlant) -> None:
        plant.ignores.add(C.ZERO_POWER)
        plant.pcs = answer  # type: ignore[assignment]
        plant.set_racks(replace(RACK_CLOSED, current_a=0.0))

    expect(PcsNotStopping, prepare, ramp_down)


def test_a_status_from_before_the_order_is_no_answer_to_it() -> None:
    async def scenario(bench: Bench) -> None:
        bench.plant.pcs = replace(PCS_OFF, contactors=ContactorState.CLOSED, lock_acknowledged=False)
        bench.plant.set_racks(replace(RACK_CLOSED, current_a=0.0))
        await pause(0.21)
        bench.plant.silent |= {"pcs", 1, 2}
        with pytest.raises(PcsNotStopping, match="no fresh PCS_Status"):
            await bench.isolation.ramp_down()

    play(scenario)


def test_a_pcs_that_falls_silent_after_a_good_answer_is_not_at_rest() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.isolation.ramp_down()
        bench.plant.silent.add("pcs")
        await pause(0.4)
        with pytest.raises(PcsNotStopping):
            await bench.isolation.open_contactors()
        assert bench.plant.orders == [C.ZERO_POWER]

    play(scenario)


@pytest.mark.parametrize("current_a", [5.0, -1.0, None])
def test_racks_that_do_not_confirm_the_zero(current_a: float | None) -> None:
    async def scenario(bench: Bench) -> None:
        bench.plant.ignores.add(C.ZERO_POWER)
        bench.plant.pcs = replace(PCS_RUNNING, remote_control=True, state=PcsState.STANDBY, dc_current_a=0.0)
        bench.plant.set_racks(replace(RACK_CLOSED, current_a=0.0))
        bench.plant.racks[2] = replace(RACK_CLOSED, current_a=current_a)
        with pytest.raises(CurrentMismatch, match=f"rack 2 {current_a} A"):
            await bench.isolation.ramp_down()

    play(scenario)


def test_a_silent_rack_confirms_nothing() -> None:
    bench = expect(CurrentMismatch, lambda plant: plant.silent.add(2), ramp_down)
    assert C.OPEN not in bench.plant.orders


@pytest.mark.parametrize("culprit", ["pcs", "rack"])
def test_contactors_are_never_ordered_open_under_load(culprit: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.isolation.ramp_down()
        if culprit == "pcs":
            bench.plant.pcs = replace(bench.plant.pcs, dc_current_a=30.0)
        else:
            bench.plant.racks[1] = replace(RACK_CLOSED, current_a=30.0)
        await pause(0.06)
        with pytest.raises(PcsNotStopping if culprit == "pcs" else CurrentMismatch):
            await bench.isolation.open_contactors()
        with pytest.raises(EssCanError):
            await bench.isolation.hold_open()
        await pause(0.2)
        assert set(bench.plant.orders) == {C.ZERO_POWER}

    async def stubborn(bench: Bench) -> None:
        await scenario(bench)

    play(stubborn)


async def _open(bench: Bench) -> None:
    await bench.isolation.ramp_down()
    await bench.isolation.open_contactors()


def test_contactors_that_do_not_open() -> None:
    bench = expect(ContactorsNotOpening, lambda plant: plant.ignores.add(C.OPEN), _open)
    assert C.LOCK not in bench.plant.orders


def test_a_rack_that_falls_silent_is_not_open() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.isolation.ramp_down()
        bench.plant.silent.add(1)
        with pytest.raises(ContactorsNotOpening, match="rack 1: silent"):
            await bench.isolation.open_contactors()

    play(scenario)


@pytest.mark.parametrize("pole", ["plus", "minus"])
def test_a_welded_contactor(pole: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.plant.ignores.add(C.OPEN)
        await bench.isolation.ramp_down()
        bench.plant.racks[2] = replace(RACK_CLOSED, current_a=0.0, weld_plus=pole == "plus", weld_minus=pole == "minus")
        with pytest.raises(ContactorWelded, match=f"rack 2 reports its {pole}"):
            await bench.isolation.open_contactors()

    play(scenario)


@pytest.mark.parametrize("voltage_v", [60.0, 400.0, None])
def test_a_link_that_does_not_discharge(voltage_v: float | None) -> None:
    async def scenario(bench: Bench) -> None:
        await _open(bench)
        bench.plant.racks[1] = replace(RACK_OFF, link_voltage_v=voltage_v)
        await pause(0.06)
        with pytest.raises(DischargeTimeout, match=f"rack 1 {voltage_v} V"):
            await bench.isolation.wait_for_discharge()

    play(scenario)


def test_a_silent_rack_has_not_discharged() -> None:
    async def scenario(bench: Bench) -> None:
        await _open(bench)
        bench.plant.silent.add(2)
        await pause(0.3)
        with pytest.raises(DischargeTimeout, match="rack 2 silent"):
            await bench.isolation.wait_for_discharge()

    play(scenario)


async def _reconnect(bench: Bench) -> None:
    await bench.take_off()
    await pause(0.2)
    await bench.isolation.reconnect(allowed)


def test_a_lock_that_stays_is_never_followed_by_close() -> None:
    bench = expect(ReconnectFailed, lambda plant: plant.ignores.add(C.UNLOCK), _reconnect)
    assert C.CLOSE not in bench.plant.orders


def test_contactors_that_do_not_close() -> None:
    expect(ReconnectFailed, lambda plant: plant.ignores.add(C.CLOSE), _reconnect)


def test_a_failed_precharge_is_named() -> None:
    def prepare(plant: ScriptedPlant) -> None:
        plant.ignores.add(C.CLOSE)
        plant.alarms[2] = BmsAlarms(precharge_failed=True)

    expect(PrechargeFailed, prepare, _reconnect)


def test_a_rack_in_fault_is_named() -> None:
    async def scenario(bench: Bench) -> None:
        bench.plant.ignores.add(C.CLOSE)
        bench.plant.states[1] = replace(bench.plant.states[1], state=RackState.FAULT)
        with pytest.raises(ReconnectFailed, match="rack 1 is in fault"):
            await _reconnect(bench)

    play(scenario)


@pytest.mark.parametrize("order", [C.UNLOCK, C.CLOSE])
def test_an_order_to_close_ends_with_what_allowed_it(order: PcsCommandCode) -> None:
    """And before anybody asks what follows."""

    async def scenario(bench: Bench) -> None:
        bench.plant.ignores.add(order)
        await bench.take_off()

        def refusal() -> EssCanError | None:
            return NodeMissing("rack 1 is silent") if bench.plant.orders[-1] is order else None

        began_at = now()
        with pytest.raises(ReconnectFailed, match="rack 1 is silent"):
            await bench.isolation.reconnect(refusal)
        assert now() - began_at < 0.5
        await pause(0.2)
        assert bench.plant.orders[-2:] == [order, C.ZERO_POWER]

    play(scenario)


def test_a_pcs_that_keeps_remote_control() -> None:
    async def scenario(bench: Bench) -> None:
        bench.plant.ignores.add(C.RELEASE)
        await bench.take_off()
        with pytest.raises(ReconnectFailed, match="own control"):
            await bench.isolation.hand_back(connected=False)

    play(scenario)


class TestHoldOpen:
    def test_a_locked_plant_stays_locked_without_another_order(self) -> None:
        async def scenario(bench: Bench) -> None:
            await bench.take_off()
            await pause(0.2)
            await bench.isolation.hold_open()
            assert bench.plant.orders == [C.ZERO_POWER, C.OPEN, C.LOCK]

        play(scenario)

    def test_a_half_closed_plant_is_opened_and_locked(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.plant.ignores.add(C.CLOSE)
            await bench.take_off()
            with pytest.raises(ReconnectFailed):
                await bench.isolation.reconnect(allowed)
            bench.plant.racks[1] = replace(RACK_CLOSED, current_a=0.0)
            await pause(0.1)
            assert "rack 1: main+ is CLOSED, main- is CLOSED" in bench.isolation.signs_of_closed()
            await bench.isolation.hold_open()
            assert bench.plant.orders[-3:] == [C.ZERO_POWER, C.OPEN, C.LOCK]
            assert bench.plant.racks[1].main_plus is ContactorState.OPEN

        play(scenario)

    def test_contactors_that_do_not_open_are_locked_nevertheless(self) -> None:
        bench = expect(
            ContactorsNotOpening, lambda plant: plant.ignores.add(C.OPEN), lambda bench: bench.isolation.hold_open()
        )
        assert bench.plant.orders[-1] is C.LOCK

    def test_a_lock_that_is_not_acknowledged_is_not_believed(self) -> None:
        expect(ContactorsNotOpening, lambda plant: plant.ignores.add(C.LOCK), lambda bench: bench.isolation.hold_open())

    def test_a_pcs_that_was_stopped_acknowledges_no_lock_and_need_not(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.plant.ignores |= {C.LOCK, C.ZERO_POWER}
            stopped = replace(PCS_OFF, state=PcsState.EMERGENCY_STOP, lock_acknowledged=False, emergency_stop=True)
            bench.plant.pcs = stopped
            bench.plant.set_racks(RACK_OFF)
            await pause(0.1)
            await bench.isolation.hold_open()

        play(scenario)
