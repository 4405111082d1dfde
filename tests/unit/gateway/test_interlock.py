"""The interlock on a bus: polling, granting, and revoking at once what is at work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import (
    AdapterLost,
    BusInterrupted,
    ErrorPassive,
    EssCanError,
    HvClosed,
    HvOffNotProved,
    HvPermitRevoked,
    TransmitQueueFull,
)
from ess_can.gateway.config import HvLimits
from ess_can.gateway.hv_gate import Source
from ess_can.gateway.interlock import Interlock
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import (
    BmsHvStatus,
    ContactorState,
    EmsHvStatusPoll,
    HvNoticeCondition,
    PcsState,
    PcsStatus,
)
from ess_can.sim.loop import run_virtual
from tests.support.late_loops import StoppedLoop
from tests.support.memory_bus import bus_pair
from tests.support.scripted_plant import CODEC, PCS_OFF, RACK_OFF, ScriptedPlant

POLL_ID = CODEC.route(EmsHvStatusPoll).can_id


class Bench:
    """A plant that is off, and an interlock that looks at it."""

    def __init__(self) -> None:
        self.bus, peer = bus_pair()
        self.plant = ScriptedPlant(peer, pcs=PCS_OFF, racks={1: RACK_OFF, 2: RACK_OFF})
        self.slept_s = 0.0
        self.returned: list[tuple[float, HvClosed]] = []
        self.interlock = Interlock(
            StationLink(self.bus, CODEC),
            (1, 2),
            HvLimits(),
            random.Random(1),
            slept_s=lambda: self.slept_s,
            on_return=lambda error: self.returned.append((now(), error)),
        )
        self.plant.start()

    async def granted_under(self, spoil: Callable[[], object]) -> tuple[EssCanError, float]:
        """Get a permit, work under it, spoil the evidence 0.5 s later; the error, and the time from there to it."""
        self.interlock.start_polling()
        permit = await self.interlock.prove_off(5.0)
        spoilt_at = now() + 0.501
        asyncio.get_running_loop().call_at(spoilt_at, spoil)
        ended: list[float] = []

        async def work() -> None:
            try:
                await pause(60.0)
            finally:
                ended.append(now())

        async def under_permit() -> None:
            async with permit:
                await asyncio.gather(work(), work())

        with pytest.raises(EssCanError) as caught:
            await under_permit()
        assert not permit.holds
        assert ended == [now(), now()]
        return caught.value, now() - spoilt_at


def run(spoil: Callable[[Bench], object]) -> tuple[EssCanError, float]:
    async def scenario() -> tuple[EssCanError, float]:
        bench = Bench()
        return await bench.granted_under(lambda: spoil(bench))

    return run_virtual(scenario())


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def start() -> None:
        await scenario(Bench())

    run_virtual(start())


def test_nothing_is_sent_before_polling_starts_and_a_poll_each_100_ms_after() -> None:
    async def scenario(bench: Bench) -> None:
        await pause(1.0)
        assert bench.bus.sent == []
        bench.interlock.start_polling()
        await pause(0.95)
        bench.interlock.close()
        await pause(1.0)
        # At once, then every 100 ms where no order of ours is due: at 1.02, 1.12 ... 1.92 s.
        assert [frame.can_id for frame in bench.bus.sent] == [POLL_ID] * 11
        assert len(set(bench.plant.polls)) == 11  # every token is another one

    play(scenario)


def test_a_permit_is_granted_on_the_tenth_good_cycle() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        assert permit.holds
        assert permit.granted_at == now() == pytest.approx(0.45, abs=0.02)

    play(scenario)


def test_without_polls_there_is_no_permit() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(HvOffNotProved, match="not proved off") as caught:
            await bench.interlock.prove_off(2.0)
        assert "rack 2 BMS_HvNotice: nothing was heard" in caught.value.why
        assert now() == pytest.approx(2.0, abs=0.02)

    play(scenario)


def test_a_closed_contactor_is_no_mere_lack_of_proof() -> None:
    async def scenario(bench: Bench) -> None:
        bench.plant.racks[2] = replace(RACK_OFF, main_plus=ContactorState.CLOSED)
        bench.interlock.start_polling()
        with pytest.raises(HvClosed):
            await bench.interlock.prove_off(1.0)

    play(scenario)


@pytest.mark.parametrize("silent", ["pcs", 1, 2])
def test_silence_revokes_within_the_evidence_age_and_a_watch_period(silent: object) -> None:
    error, after_s = run(lambda bench: bench.plant.silent.add(silent))
    assert isinstance(error, HvPermitRevoked)
    assert after_s <= 0.250 + 0.010


@pytest.mark.parametrize("rack", [1, 2])
def test_unanswered_polls_revoke(rack: int) -> None:
    error, after_s = run(lambda bench: bench.plant.silent.add(("notice", rack)))
    assert isinstance(error, HvPermitRevoked)
    assert f"rack {rack} BMS_HvNotice" in error.why
    assert after_s <= 0.250 + 0.010


def test_a_cut_wire_revokes() -> None:
    def cut(bench: Bench) -> None:
        bench.bus.cut = True

    error, after_s = run(cut)
    assert isinstance(error, HvPermitRevoked)
    assert after_s <= 0.250 + 0.010


def test_a_closing_contactor_revokes_with_the_frame_that_says_so() -> None:
    def close(bench: Bench) -> None:
        bench.plant.set_racks(replace(RACK_OFF, main_plus=ContactorState.CLOSED))

    error, after_s = run(close)
    assert isinstance(error, HvClosed)
    assert after_s <= 0.051


def test_a_weld_notice_revokes() -> None:
    def weld(bench: Bench) -> None:
        bench.plant.condition = HvNoticeCondition.WELDED

    error, after_s = run(weld)
    assert isinstance(error, HvClosed)
    assert after_s <= 0.101


def test_a_frame_with_a_bad_check_revokes_at_once() -> None:
    route = CODEC.route(BmsHvStatus, 2)
    error, after_s = run(lambda bench: bench.bus.deliver(CanFrame(route.can_id, bytes(route.length))))
    assert isinstance(error, HvPermitRevoked)
    assert "bad frame" in error.why
    assert after_s == 0.0


def test_a_dead_bus_revokes_with_its_own_error_and_polling_stops() -> None:
    async def scenario(bench: Bench) -> None:
        lost = AdapterLost("gone")
        error, after_s = await bench.granted_under(lambda: bench.bus.die(lost))
        assert error is lost
        assert after_s <= 0.101
        sent = len(bench.bus.sent)
        bench.bus.failure = None
        await pause(1.0)
        assert len(bench.bus.sent) == sent

    play(scenario)


def test_one_poll_that_finds_no_room_does_not_matter_but_silence_does() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        bench.bus.failure = TransmitQueueFull("full")
        await pause(0.1)
        bench.bus.failure = None
        await pause(0.5)
        assert permit.holds
        bench.bus.failure = TransmitQueueFull("full")
        await pause(0.4)
        assert isinstance(permit.error, HvPermitRevoked)

    play(scenario)


def test_a_gap_revokes_even_if_the_next_frame_closes_it_before_anybody_looked() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        bench.interlock._watch.stop()  # as if the loop had been starved
        bench.plant.silent.add(1)
        await pause(0.3)
        bench.plant.silent.clear()
        await pause(0.06)
        assert isinstance(permit.error, HvPermitRevoked)

    play(scenario)


def test_a_revoked_permit_never_heals_and_a_new_one_needs_the_whole_proof() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        first = await bench.interlock.prove_off(5.0)
        bench.plant.silent.add(1)
        await pause(0.5)
        bench.plant.silent.clear()
        began_at = now()
        second = await bench.interlock.prove_off(5.0)
        assert second.holds
        assert not first.holds
        assert now() - began_at >= 0.44
        with pytest.raises(HvPermitRevoked):
            async with first:
                pass

    play(scenario)


def test_a_permit_that_was_given_back_permits_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        bench.interlock.release(permit)
        bench.interlock.release(permit)
        with pytest.raises(HvPermitRevoked, match="given back"):
            permit.require()
        await pause(0.1)  # the watch finds nothing to do and ends

    play(scenario)


def test_closing_the_interlock_ends_every_permit() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permits = [await bench.interlock.prove_off(5.0) for _ in range(2)]
        bench.interlock.close()
        assert [permit.holds for permit in permits] == [False, False]

    play(scenario)


# --- what was not looked at proves nothing ---------------------------------------------------------


def test_bus_off_ends_every_permit_and_the_proof_begins_anew() -> None:
    async def scenario(bench: Bench) -> None:
        error, after_s = await bench.granted_under(lambda: bench.bus.warn(BusInterrupted("off", why="TEC 256")))
        assert isinstance(error, HvPermitRevoked)
        assert "TEC 256" in error.why
        assert after_s == 0.0
        began_at = now()
        assert (await bench.interlock.prove_off(5.0)).holds
        assert now() - began_at >= 0.45

    play(scenario)


def test_a_sleep_of_the_machine_ends_every_permit() -> None:
    async def scenario(bench: Bench) -> None:
        error, after_s = await bench.granted_under(lambda: setattr(bench, "slept_s", 10.0))
        assert isinstance(error, HvPermitRevoked)
        assert "slept for 10.0 s" in error.why
        assert after_s <= 0.010
        began_at = now()
        assert (await bench.interlock.prove_off(5.0)).holds  # one sleep ends them once
        assert now() - began_at >= 0.45

    play(scenario)


def test_clocks_that_differ_a_little_are_no_sleep() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        for _ in range(10):
            bench.slept_s += 0.04
            await pause(0.02)
        assert permit.holds

    play(scenario)


def test_after_a_sleep_a_frame_asks_before_any_timer_looked() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        assert bench.interlock.may_go_on()  # nothing is permitted: nothing depends on the proof
        permit = await bench.interlock.prove_off(5.0)
        assert bench.interlock.may_go_on()
        bench.slept_s = 0.1
        assert not bench.interlock.may_go_on()
        assert not permit.holds

    play(scenario)


@pytest.mark.parametrize("starved_s", [0.3, 1.0, 10.0])
def test_a_starved_loop_asks_before_a_frame_and_what_waited_in_queues_does_not_count(starved_s: float) -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StoppedLoop)
        loop.stand_still(starved_s)
        assert not bench.interlock.may_go_on()
        assert isinstance(permit.error, HvPermitRevoked)
        assert "nobody could look" in permit.error.why
        for _ in range(20):  # what was queued meanwhile comes all at once
            bench.plant.speak()
        await pause(0.001)
        statuses = [one for one in bench.interlock.gate.standings(now()) if one.source is not Source.RACK_NOTICE]
        assert all("nobody could look" in one.missing for one in statuses)
        began_at = now()
        await bench.interlock.prove_off(5.0)
        assert now() - began_at >= 0.45

    async def start() -> None:
        await scenario(Bench())

    with asyncio.Runner(loop_factory=StoppedLoop) as runner:
        runner.run(start())


def test_a_starved_proof_begins_anew_as_well() -> None:
    async def start() -> None:
        bench = Bench()
        bench.interlock.start_polling()
        proof = asyncio.ensure_future(bench.interlock.prove_off(5.0))
        await pause(0.4)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StoppedLoop)
        loop.stand_still(1.0)
        woken_at = now()
        assert (await proof).holds
        assert now() - woken_at >= 0.45

    with asyncio.Runner(loop_factory=StoppedLoop) as runner:
        runner.run(start())


def test_a_poll_that_finds_the_bus_dead_ends_all_even_if_nobody_was_told() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        bench.bus.failure = AdapterLost("gone")
        await pause(0.11)
        assert permit.error is bench.bus.failure

    play(scenario)


def test_a_warning_of_the_bus_ends_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        permit = await bench.interlock.prove_off(5.0)
        bench.bus.warn(ErrorPassive("passive"))
        await pause(0.5)
        assert permit.holds

    play(scenario)


def test_a_status_without_a_cycle_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        route = replace(CODEC.route(BmsHvStatus), cycle_s=None)
        monkeypatch.setattr(StationCodec, "route", lambda *_: route)
        with pytest.raises(ValueError, match="cycle time"):
            Interlock(StationLink(bench.bus, CODEC), (1,), HvLimits(), random.Random(1))
        monkeypatch.undo()

    play(scenario)


# --- high voltage that comes back ---------------------------------------------------------------------------

CLOSED, MOVING, INVALID = ContactorState.CLOSED, ContactorState.MOVING, ContactorState.INVALID

ON: list[tuple[BmsHvStatus | PcsStatus, str]] = [
    (replace(RACK_OFF, main_plus=CLOSED), "rack 2: main+ is CLOSED"),
    (replace(RACK_OFF, main_minus=CLOSED, precharge=MOVING), "rack 2: main- is CLOSED"),
    (replace(RACK_OFF, precharge=CLOSED, main_plus=MOVING), "rack 2: precharge is CLOSED"),
    (replace(RACK_OFF, link_voltage_v=60.0), "rack 2: link at 60.0 V"),
    (replace(RACK_OFF, link_voltage_v=790.0, hv_off=False, main_plus=INVALID), "rack 2: link at 790.0 V"),
    (replace(RACK_OFF, current_a=1.0), "rack 2: 1.0 A flow"),
    (replace(RACK_OFF, current_a=-1.0, link_voltage_v=None), "rack 2: -1.0 A flow"),
    (replace(PCS_OFF, contactors=CLOSED), "PCS: its contactors are CLOSED"),
    (replace(PCS_OFF, dc_current_a=-1.0), "PCS: -1.0 A flow"),
]
NO_WORD: list[BmsHvStatus | PcsStatus] = [
    *(replace(RACK_OFF, main_plus=state, hv_off=False) for state in (MOVING, INVALID)),
    replace(RACK_OFF, link_voltage_v=None, current_a=None, hv_off=False),
    replace(RACK_OFF, link_voltage_v=59.75, current_a=0.9),
    *(replace(PCS_OFF, state=state, lock_acknowledged=False, contactors=MOVING) for state in PcsState),
    replace(PCS_OFF, dc_current_a=None, contactors=INVALID),
]


def say(bench: Bench, status: BmsHvStatus | PcsStatus) -> None:
    if isinstance(status, PcsStatus):
        bench.plant.pcs = status
    else:
        bench.plant.racks[2] = status


async def proved(bench: Bench) -> None:
    """Once, and the permit was given back."""
    bench.interlock.start_polling()
    bench.interlock.release(await bench.interlock.prove_off(5.0))


@pytest.mark.parametrize(("status", "why"), ON, ids=[why for _, why in ON])
def test_once_proved_off_whatever_says_on_is_told_with_the_first_status_permit_or_not(
    status: BmsHvStatus | PcsStatus, why: str
) -> None:
    async def scenario(bench: Bench) -> None:
        await proved(bench)
        await pause(1.0)
        assert not bench.returned
        at = now()
        say(bench, status)
        await pause(0.2)
        told_at, error = bench.returned[0]
        assert told_at - at <= 0.051
        assert error.why == why

    play(scenario)


@pytest.mark.parametrize("status", NO_WORD, ids=repr)
def test_what_is_invalid_or_under_way_says_nothing_of_on(status: BmsHvStatus | PcsStatus) -> None:
    async def scenario(bench: Bench) -> None:
        await proved(bench)
        say(bench, status)
        await pause(1.0)
        assert not bench.returned

    play(scenario)


def test_neither_silence_nor_a_failed_check_says_on() -> None:
    async def scenario(bench: Bench) -> None:
        await proved(bench)
        bench.plant.silent |= {1, "pcs"}
        await pause(2.0)
        unprotected = CODEC.encode(replace(RACK_OFF, main_plus=CLOSED, link_voltage_v=790.0), 2)
        bench.bus.deliver(CanFrame(CODEC.route(BmsHvStatus, 2).can_id, unprotected))
        await pause(0.1)
        assert not bench.returned

    play(scenario)


@pytest.mark.parametrize(("status", "why"), ON, ids=[why for _, why in ON])
def test_before_it_was_proved_off_or_once_it_was_ordered_back_nothing_is_told(
    status: BmsHvStatus | PcsStatus, why: str
) -> None:
    """A link that still discharges; a plant that is reconnected."""

    async def scenario(bench: Bench) -> None:
        bench.interlock.start_polling()
        say(bench, status)
        await pause(0.3)
        say(bench, PCS_OFF if isinstance(status, PcsStatus) else RACK_OFF)
        await proved(bench)
        bench.interlock.expect_return()
        say(bench, status)
        await pause(0.3)
        assert not bench.returned, why

    play(scenario)
