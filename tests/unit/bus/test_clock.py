"""Cycle, Guard and the two ways to wait."""

from __future__ import annotations

import asyncio
import time  # noqa: TID251 - the machine's clocks are what is tested
from collections.abc import Awaitable, Callable

import pytest

from ess_can.bus.clock import Cycle, Guard, now, pause, suspended_s, together, uninterrupted, until
from ess_can.errors import EssCanError, HvClosed, HvPermitRevoked
from ess_can.sim.loop import run_virtual

LOST = HvPermitRevoked("lost")
GRAVE = HvClosed("closed")


def at(seconds: float, call: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


def test_a_cycle_keeps_its_period_until_stopped() -> None:
    async def scenario() -> list[float]:
        calls: list[float] = []
        cycle = Cycle(0.1, calls.append)
        await pause(0.2)
        assert calls == []
        cycle.start(delay_s=0.05)
        await pause(0.3)
        cycle.stop()
        cycle.stop()
        await pause(1.0)
        return calls

    assert run_virtual(scenario()) == pytest.approx([0.25, 0.35, 0.45])


def test_restarting_a_cycle_restarts_its_phase_and_never_doubles_it() -> None:
    async def scenario() -> list[float]:
        calls: list[float] = []
        cycle = Cycle(0.1, calls.append)
        cycle.start()
        await pause(0.15)
        cycle.start()
        await pause(0.11)
        cycle.stop()
        return calls

    assert run_virtual(scenario()) == pytest.approx([0.0, 0.1, 0.15, 0.25])


def test_a_cycle_may_stop_itself() -> None:
    async def scenario() -> int:
        calls = 0

        def once(_at: float) -> None:
            nonlocal calls
            calls += 1
            cycle.stop()

        cycle = Cycle(0.1, once)
        cycle.start()
        await pause(1.0)
        return calls

    assert run_virtual(scenario()) == 1


def test_a_starved_loop_skips_calls_and_does_not_burst() -> None:
    async def scenario() -> list[float]:
        calls: list[float] = []
        cycle = Cycle(0.1, calls.append)
        cycle.start()
        await pause(0.05)
        loop = asyncio.get_running_loop()
        loop._now += 0.5  # type: ignore[attr-defined]  # the program was busy for half a second
        await pause(0.25)
        cycle.stop()
        return calls

    assert run_virtual(scenario()) == pytest.approx([0.0, 0.55, 0.65, 0.75])


def test_until_that_is_cancelled_as_it_comes_true_is_cancelled() -> None:
    async def scenario() -> None:
        waiting = asyncio.create_task(until(lambda: now() > 0.0, 1.0))
        at(0.010, waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run_virtual(scenario())


def test_until_holds_at_once_later_or_never() -> None:
    async def scenario() -> None:
        assert await until(lambda: True, 0.0)
        assert now() == 0.0
        assert await until(lambda: now() >= 0.5, 1.0)
        assert now() == pytest.approx(0.5, abs=0.011)
        began = now()
        assert not await until(lambda: False, 1.0)
        assert now() - began == pytest.approx(1.0, abs=0.011)

    run_virtual(scenario())


class TestGuard:
    def test_work_that_ends_first_is_not_disturbed(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            async with guard:
                await pause(1.0)
            assert guard.holds
            guard.require()
            guard.trip(LOST)
            await pause(1.0)
            assert not guard.holds

        run_virtual(scenario())

    def test_tripping_cancels_at_once_and_raises_the_error(self) -> None:
        async def scenario() -> float:
            guard = Guard()
            at(0.3, lambda: guard.trip(LOST))
            with pytest.raises(HvPermitRevoked) as caught:
                async with guard:
                    await pause(10.0)
            assert caught.value is LOST
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await pause(0.0)
            return now()

        assert run_virtual(scenario()) == pytest.approx(0.3)

    def test_a_tripped_guard_lets_nobody_in(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            guard.trip(LOST)
            entered = False
            with pytest.raises(HvPermitRevoked):
                async with guard:
                    entered = True
            assert not entered
            with pytest.raises(HvPermitRevoked):
                guard.require()

        run_virtual(scenario())

    def test_the_first_error_stays(self) -> None:
        guard = Guard()
        guard.trip(LOST)
        guard.trip(GRAVE)
        assert guard.error is LOST

    def test_several_tasks_are_all_cancelled(self) -> None:
        async def scenario() -> list[object]:
            guard = Guard()

            async def work() -> None:
                async with guard:
                    await pause(10.0)

            at(0.1, lambda: guard.trip(LOST))
            return list(await asyncio.gather(work(), work(), work(), return_exceptions=True))

        assert run_virtual(scenario()) == [LOST, LOST, LOST]

    def test_a_gather_under_it_is_cancelled_with_all_its_children(self) -> None:
        async def scenario() -> list[str]:
            guard, ended = Guard(), []

            async def child(name: str) -> None:
                try:
                    await pause(10.0)
                finally:
                    ended.append(f"{name} {now():.1f}")

            at(0.2, lambda: guard.trip(LOST))
            with pytest.raises(HvPermitRevoked):
                async with guard:
                    await asyncio.gather(child("a"), asyncio.gather(child("b"), child("c")))
            return ended

        assert sorted(run_virtual(scenario())) == ["a 0.2", "b 0.2", "c 0.2"]

    def test_cancellation_from_outside_stays_a_cancellation(self) -> None:
        async def scenario() -> None:
            guard = Guard()

            async def work() -> None:
                async with guard:
                    await pause(10.0)

            task = asyncio.create_task(work())
            await pause(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert guard.holds

        run_virtual(scenario())

    @pytest.mark.parametrize("trip_first", [True, False])
    def test_when_both_happen_at_once_the_cancellation_from_outside_wins(self, trip_first: bool) -> None:
        async def scenario() -> None:
            guard = Guard()

            async def work() -> None:
                async with guard:
                    await pause(10.0)

            task = asyncio.create_task(work())
            await pause(0.1)
            acts: list[Callable[[], object]] = [lambda: guard.trip(LOST), task.cancel]
            for act in acts if trip_first else reversed(acts):
                act()
            with pytest.raises(asyncio.CancelledError):
                await task

        run_virtual(scenario())

    def test_an_error_of_the_work_passes_even_if_tripped_meanwhile(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            at(0.1, lambda: guard.trip(LOST))

            async def work() -> None:
                async with guard:
                    try:
                        await pause(10.0)
                    except asyncio.CancelledError:
                        raise LookupError from None

            with pytest.raises(LookupError):
                await work()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0  # our cancellation was taken back nevertheless

        run_virtual(scenario())

    def test_work_that_swallows_the_cancellation_still_meets_the_error(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            at(0.1, lambda: guard.trip(LOST))

            async def work() -> None:
                async with guard:
                    try:
                        await pause(10.0)
                    except asyncio.CancelledError:
                        await pause(0.1)

            with pytest.raises(HvPermitRevoked):
                await work()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

        run_virtual(scenario())

    def test_tripped_from_inside_it_takes_effect_at_the_next_wait(self) -> None:
        async def scenario() -> list[str]:
            guard, reached = Guard(), []

            async def work() -> None:
                async with guard:
                    guard.trip(LOST)
                    reached.append("before the wait")
                    await pause(10.0)
                    reached.append("after the wait")

            with pytest.raises(HvPermitRevoked):
                await work()
            assert now() == 0.0
            return reached

        assert run_virtual(scenario()) == ["before the wait"]

    def test_tripped_from_inside_without_another_wait_it_takes_effect_at_the_end(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            with pytest.raises(HvPermitRevoked):
                async with guard:
                    guard.trip(LOST)
            await pause(1.0)  # nothing is left that would cancel us now

        run_virtual(scenario())

    @pytest.mark.parametrize(("inner_first", "expected"), [(True, GRAVE), (False, GRAVE)])
    def test_nested_guards_tripped_together_raise_the_outer_error(
        self, inner_first: bool, expected: EssCanError
    ) -> None:
        async def scenario() -> None:
            outer, inner = Guard(), Guard()

            def trip() -> None:
                acts: list[Callable[[], object]] = [lambda: inner.trip(LOST), lambda: outer.trip(GRAVE)]
                for act in acts if inner_first else reversed(acts):
                    act()

            at(0.1, trip)
            with pytest.raises(EssCanError) as caught:
                async with outer, inner:
                    await pause(10.0)
            assert caught.value is expected

        run_virtual(scenario())

    def test_after_the_inner_one_the_work_may_go_on_under_the_outer_one(self) -> None:
        async def scenario() -> float:
            outer, inner = Guard(), Guard()
            at(0.1, lambda: inner.trip(LOST))
            at(0.5, lambda: outer.trip(GRAVE))

            async def work() -> None:
                async with outer:
                    with pytest.raises(HvPermitRevoked):
                        async with inner:
                            await pause(10.0)
                    assert now() == pytest.approx(0.1)
                    await pause(10.0)

            with pytest.raises(HvClosed):
                await work()
            return now()

        assert run_virtual(scenario()) == pytest.approx(0.5)

    def test_the_same_guard_twice_in_one_task(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            at(0.1, lambda: guard.trip(LOST))
            with pytest.raises(HvPermitRevoked):
                async with guard, guard:
                    await pause(10.0)

        run_virtual(scenario())

    def test_a_time_out_around_it_is_a_time_out(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), guard:
                    await pause(10.0)

        run_virtual(scenario())

    def test_outside_of_a_task_it_cannot_be_entered(self) -> None:
        guard = Guard()
        entering: Awaitable[Guard] = guard.__aenter__()
        loop = asyncio.new_event_loop()
        try:
            seen: list[BaseException] = []

            def enter() -> None:
                try:
                    entering.__await__().__next__()
                except BaseException as error:
                    seen.append(error)

            loop.call_soon(enter)
            loop.call_soon(loop.stop)
            loop.run_forever()
        finally:
            loop.close()
        assert isinstance(seen[0], RuntimeError)


class TestTogether:
    def test_all_run_at_the_same_time(self) -> None:
        async def scenario() -> float:
            await together(pause(seconds) for seconds in (0.3, 0.1, 0.2))
            return now()

        assert run_virtual(scenario()) == pytest.approx(0.3)

    def test_nothing_to_do(self) -> None:
        run_virtual(together([]))

    def test_the_first_failure_ends_the_others_and_is_raised_when_they_have_ended(self) -> None:
        ended: list[float] = []

        async def slow_to_end() -> None:
            try:
                await pause(10.0)
            finally:
                await pause(0.5)
                ended.append(now())

        async def fails(after_s: float, error: EssCanError) -> None:
            await pause(after_s)
            raise error

        async def scenario() -> None:
            with pytest.raises(HvPermitRevoked):
                await together([slow_to_end(), fails(0.1, LOST), fails(0.2, GRAVE)])
            assert now() == pytest.approx(0.6)

        run_virtual(scenario())
        assert ended == pytest.approx([0.6])

    def test_failures_that_come_after_the_first_are_told(self) -> None:
        further: list[BaseException] = []

        async def fails() -> None:
            await pause(0.1)
            raise LOST

        async def fails_while_it_ends() -> None:
            try:
                await pause(10.0)
            finally:
                raise GRAVE

        async def scenario() -> None:
            with pytest.raises(HvPermitRevoked):
                await together([fails_while_it_ends(), fails()], further.append)

        run_virtual(scenario())
        assert further == [GRAVE]

    @pytest.mark.parametrize("times", [1, 3])
    def test_a_cancellation_comes_through_when_all_have_ended(self, times: int) -> None:
        ended: list[float] = []

        async def slow_to_end() -> None:
            try:
                await pause(10.0)
            finally:
                await uninterrupted(pause(0.5))
                ended.append(now())

        async def scenario() -> None:
            task = asyncio.create_task(together([slow_to_end(), slow_to_end()]))
            for number in range(times):
                at(0.1 * (number + 1), task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task

        run_virtual(scenario())
        assert ended == pytest.approx([0.6, 0.6])

    def test_a_guard_around_it_gives_its_own_error(self) -> None:
        async def scenario() -> None:
            guard = Guard()
            at(0.1, lambda: guard.trip(GRAVE))
            with pytest.raises(HvClosed):
                async with guard:
                    await together([pause(1.0), pause(2.0)])
            assert now() == pytest.approx(0.1)

        run_virtual(scenario())

    def test_one_that_somebody_else_cancels_never_passes_as_done(self) -> None:
        async def gives_up() -> None:
            raise asyncio.CancelledError

        async def scenario() -> None:
            with pytest.raises(asyncio.CancelledError):
                await together([gives_up(), pause(5.0)])
            assert now() < 1.0

        run_virtual(scenario())


def test_the_machine_tells_how_long_it_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert suspended_s() >= -0.001
    clocks = {time.CLOCK_BOOTTIME: 1510.0, time.CLOCK_MONOTONIC: 1500.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert suspended_s() == 10.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert suspended_s() == 0.0
