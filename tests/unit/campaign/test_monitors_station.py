"""Invariants 18, 19, 23, 24 and 25, each broken by a gateway that does not keep to it."""

from __future__ import annotations

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import StationLink
from ess_can.campaign.monitors import Invariant, Monitors
from ess_can.campaign.monitors.times import LONGEST_WAIT_S, deadlines
from ess_can.can.frame import CanFrame, arbitration_field
from ess_can.gateway.config import TimeLimits
from ess_can.journal.journal import Journal
from ess_can.signals.messages import BmsHvStatus, EmsPcsCommand, PcsCommandCode, UpgradePhase
from ess_can.sim.controller import Controller
from tests.scenario.support import BMU1
from tests.unit.campaign.monitor_rig import READ, Client, Rig, seen

I = Invariant  # noqa: E741 - the tests read better


# --- 18 -----------------------------------------------------------------------------------------------


def test_18_a_gateway_that_commands_and_read_nothing() -> None:
    async def script(rig: Rig) -> None:
        rig.command(PcsCommandCode.ZERO_POWER)
        await pause(0.1)

    assert seen(script) == {I.READ_FIRST}


def test_18_a_gateway_that_was_started_again_and_goes_on_where_it_was() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.die()
        await pause(1.0)
        again = StationLink(rig.plant.gateway_controller(), rig.plant.codec)
        again.send(EmsPcsCommand(PcsCommandCode.LOCK))
        await pause(0.1)

    assert seen(script) == {I.READ_FIRST}


def test_18_after_it_has_read_a_node_again_it_may() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.die()
        await pause(1.0)
        bus = rig.plant.gateway_controller()
        await Client(bus, rig.plant, BMU1).ask(READ)
        StationLink(bus, rig.plant.codec).send(EmsPcsCommand(PcsCommandCode.LOCK))
        await pause(0.1)

    assert seen(script) == set()


def test_18_a_node_that_nobody_asked_what_it_is() -> None:
    async def script(rig: Rig) -> None:
        await rig.ask(READ)
        rig.command(PcsCommandCode.ZERO_POWER)
        await pause(0.1)
        comm_gateway = rig.plant.addresses[-1]
        rig.raw("021101", comm_gateway)
        await pause(0.1)

    assert seen(script) == {I.READ_FIRST}


# --- 19 -----------------------------------------------------------------------------------------------


def test_19_a_node_that_obeys_two_at_once() -> None:
    """The node cannot tell them apart: one who holds it must not be joined by another."""

    async def script(rig: Rig) -> None:
        await rig.isolate()
        other = rig.plant.wire.controller("tester")
        node = rig.plant.nodes[BMU1]
        answers = rig.plant.codec.diagnostic_ids(BMU1)[1]
        for bus in (rig.bus, other):
            rig.raw("0137", bus=bus)
            await pause(0.01)
            node.controller.send(CanFrame(answers, bytes.fromhex("0177").ljust(8, b"\xcc")))
            await pause(0.01)

    assert seen(script) == {I.ONE_WRITER}


def rival(rig: Rig) -> None:
    link = StationLink(rig.plant.wire.controller("other"), rig.plant.codec)
    Cycle(0.05, lambda _at: link.send(EmsPcsCommand(PcsCommandCode.LOCK)), phase_s=0.013).start()


def test_19_a_gateway_that_goes_on_writing_though_another_commands() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.fall_silent()
        rival(rig)
        await pause(0.7)
        rig.write_request()
        await pause(0.1)

    assert seen(script) == {I.ONE_WRITER}


def test_19_what_it_does_before_it_can_have_noticed_is_not_held_against_it() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.fall_silent()
        rival(rig)
        await pause(0.3)
        rig.write_request()
        await pause(0.1)

    assert seen(script) == set()


# --- 23 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("held_s", "broken"), [(80.0, set()), (100.0, {I.DEADLINES})])
def test_23_a_gateway_that_holds_the_plant_and_does_nothing(held_s: float, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        await pause(held_s)

    assert seen(script) == broken


@pytest.mark.parametrize("phase", [phase for phase in UpgradePhase if phase is not UpgradePhase.NONE])
@pytest.mark.parametrize("over", [False, True])
def test_23_each_phase_has_a_deadline(phase: UpgradePhase, over: bool) -> None:
    limit_s = deadlines(TimeLimits())[phase]

    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.notice(phase)
        await pause(limit_s + (2.0 if over else -2.0))

    assert seen(script) == ({I.DEADLINES} if over else set())


@pytest.mark.parametrize(("works", "broken"), [(True, {I.DEADLINES}), (False, set())])
def test_23_a_gateway_that_lives_and_neither_commands_nor_ends(works: bool, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        rig.monitors.attach_journal(Journal.in_memory(), works=lambda: works)
        await pause(LONGEST_WAIT_S - 2.0)
        assert rig.broken == set()
        await pause(4.0)

    assert seen(script) == broken


def test_23_a_gateway_that_is_gone_waits_for_nothing() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.fall_silent()
        await pause(200.0)

    assert seen(script) == set()


# --- 24 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "broken"), [(8, set()), (9, {I.BOUNDED})])
def test_24_announced_again_and_again(times: int, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        for _ in range(times):
            rig.raw("043101ff00")
            await pause(0.05)

    assert seen(script) == broken


@pytest.mark.parametrize(("times", "broken"), [(160, set()), (161, {I.BOUNDED})])
def test_24_announced_again_to_a_node_that_is_busy(times: int, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        answers = rig.plant.codec.diagnostic_ids(BMU1)[1]
        rig.node.controller.detach()
        busy = rig.plant.wire.controller("a node at work")
        for _ in range(times):
            rig.raw("043101ff00")
            await pause(0.001)
            busy.send(CanFrame(answers, bytes.fromhex("037f3121").ljust(8, b"\xcc")))
            await pause(0.001)

    assert seen(script) & {I.BOUNDED} == broken


@pytest.mark.parametrize(("times", "broken"), [(8, set()), (9, {I.BOUNDED})])
def test_24_a_sector_is_erased_again_and_again(times: int, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        flash = rig.node.flash
        for _ in range(times):
            done_at = flash.start_erase(1, flash.geometry.protected_sectors, rig.now)
            assert isinstance(done_at, float)
            await pause(done_at - rig.now)
            assert flash.complete(1, rig.now) is None

    assert seen(script) == broken


def test_24_as_often_as_the_gateway_may_try() -> None:
    async def script(rig: Rig) -> None:
        once = Monitors(rig.plant, times=TimeLimits(program_attempts=1))
        await rig.isolate()
        for _ in range(3):
            rig.raw("043101ff00")
            await pause(0.05)
        assert once.broken == {I.BOUNDED}

    assert seen(script) == set()


def test_24_frames_without_end() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        await stream(rig, frames=4200)

    assert seen(script) == {I.BOUNDED}


@pytest.mark.parametrize(("size", "broken"), [(65538, set()), (65539, {I.BOUNDED})])
def test_24_a_request_as_long_as_no_memory_needs_to_be(size: int, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.raw(f"1000{size:08x}3601")
        await pause(0.01)

    assert seen(script) == broken


# --- 25 -----------------------------------------------------------------------------------------------


async def stream(rig: Rig, frames: int) -> None:
    """Consecutive frames of a TransferData, as fast as the bus takes them."""
    rig.raw("1fff36010000")
    await pause(0.001)
    for number in range(frames):
        rig.raw(f"2{number & 0xF:x}" + "aa" * 7)
        await pause(0.00025)


def test_25_a_stream_before_which_safety_frames_have_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    original = arbitration_field

    async def script(rig: Rig) -> None:
        await rig.isolate()
        request_id, _ = rig.plant.codec.diagnostic_ids(BMU1)
        monkeypatch.setattr(
            "ess_can.sim.controller.arbitration_field",
            lambda frame: 0 if frame.can_id == request_id else original(frame),
        )
        rig.raw("1fff36010000")
        await pause(0.001)
        end = rig.now + 0.3

        def refill(_at: float) -> None:
            if rig.now < end:
                rig.bus.send(CanFrame(request_id, bytes.fromhex("21" + "aa" * 7)), refill)

        for _ in range(3):
            refill(0.0)
        await pause(0.4)

    # Without a status, evidence and orders end as well.
    assert I.SAFETY_FRAMES in seen(script)


def test_25_a_stream_as_it_should_be_delays_nothing() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        await stream(rig, 1000)

    assert seen(script) == set()


def test_25_orders_that_stop_while_a_stream_goes_on() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.fall_silent()
        await stream(rig, 800)
        rig.command(PcsCommandCode.LOCK)
        await pause(0.1)

    assert seen(script) == {I.SAFETY_FRAMES}


def test_25_a_node_that_says_nothing_is_not_our_streams_doing() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        route = rig.plant.codec.route(BmsHvStatus)
        send = Controller.send
        muted = rig.node.controller
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Controller,
                "send",
                lambda self, frame, *args, **kwargs: (
                    None if self is muted and frame.can_id == route.can_id else send(self, frame, *args, **kwargs)
                ),
            )
            await stream(rig, 400)

    assert I.SAFETY_FRAMES not in seen(script)
