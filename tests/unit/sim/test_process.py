"""A simulated process: what belongs to it, how it dies, how it starves."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine

import pytest

from ess_can.bus.clock import Cycle, now, pause, together, uninterrupted, until
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import BusError, UsageError
from ess_can.sim.loop import ProcessKilled, run_virtual
from ess_can.sim.process import SimulatedProcess, current_process, outside
from ess_can.sim.wire import Wire

TIMING = BitTiming(500_000)
FRAME = CanFrame(0x123, b"\x01\x02")


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_process_runs_and_its_result_can_be_awaited() -> None:
    async def work() -> int:
        await pause(1.0)
        return 42

    async def main() -> tuple[int, float]:
        return await SimulatedProcess("worker").start(work()), now()

    assert run_virtual(main()) == (42, 1.0)


def test_a_process_needs_virtual_time() -> None:
    async def main() -> None:
        SimulatedProcess("worker")

    with pytest.raises(UsageError, match="virtual loop"):
        asyncio.run(main())


def test_everything_that_its_code_starts_belongs_to_it() -> None:
    seen: list[str] = []

    def note() -> None:
        process = current_process()
        seen.append(process.name if process else "nobody")

    async def child() -> None:
        note()
        asyncio.get_running_loop().call_later(0.5, note)
        asyncio.get_running_loop().call_soon(note)
        asyncio.get_running_loop().call_later(0.5, outside, note)
        await pause(1.0)
        note()

    async def main() -> None:
        note()
        await SimulatedProcess("worker").start(together([child()]))
        note()

    run_virtual(main())
    assert seen == ["nobody", "worker", "worker", "worker", "nobody", "worker", "nobody"]


def killed_at(work: Callable[[list[str]], Coroutine[object, object, object]], at: float) -> list[str]:
    """What `work` noted in a process that was killed at `at` seconds, the run going on to 100 s."""
    noted: list[str] = []

    async def main() -> list[str]:
        process = SimulatedProcess("worker")
        process.start(work(noted))
        await pause(at)
        process.kill()
        await pause(100.0 - at)
        gc.collect()
        return list(noted)

    seen = run_virtual(main())
    gc.collect()
    return seen


async def with_finally(noted: list[str]) -> None:
    try:
        noted.append("began")
        await pause(2.0)
        noted.append("went on")
    except BaseException:
        noted.append("caught")
        raise
    finally:
        noted.append("finally")


async def with_tasks(noted: list[str]) -> None:
    await together([with_finally(noted), with_finally(noted)])


async def with_timers(noted: list[str]) -> None:
    cycle = Cycle(0.3, lambda at: noted.append(f"{at:.1f}"))
    cycle.start()
    await forever()


async def with_timeout(noted: list[str]) -> None:
    try:
        async with asyncio.timeout(3.0):
            await forever()
    except TimeoutError:
        noted.append("time-out")


async def with_shield(noted: list[str]) -> None:
    noted.append("began")
    await uninterrupted(with_finally(noted))


@pytest.mark.parametrize(
    ("work", "at", "noted"),
    [
        (with_finally, 1.0, ["began"]),
        (with_finally, 2.5, ["began", "went on", "finally"]),
        (with_tasks, 1.0, ["began", "began"]),
        (with_timers, 1.0, ["0.0", "0.3", "0.6", "0.9"]),
        (with_timeout, 1.0, []),
        (with_shield, 1.0, ["began", "began"]),
    ],
)
def test_a_killed_process_does_nothing_more(
    work: Callable[[list[str]], Coroutine[object, object, object]],
    at: float,
    noted: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert killed_at(work, at) == noted
    assert not caplog.records


@pytest.mark.parametrize("turns", range(3))
def test_killed_in_the_instant_in_which_an_error_reaches_it_it_complains_of_nothing(turns: int) -> None:
    async def fails() -> None:
        await pause(1.0)
        raise LookupError("mine")

    async def waits() -> None:
        loop = asyncio.get_running_loop()
        failing = loop.create_future()
        loop.call_later(1.0, failing.set_exception, LookupError("mine"))
        await failing

    async def works() -> None:
        await asyncio.wait([asyncio.ensure_future(fails()), asyncio.ensure_future(waits())])
        await forever()

    async def main() -> None:
        process = SimulatedProcess("worker")
        process.start(works())
        await pause(1.0)
        for _ in range(turns):
            await pause(0)
        process.kill()
        gc.collect()
        await pause(1.0)
        gc.collect()

    run_virtual(main())


def test_an_error_that_nobody_waits_for_still_ends_the_run_while_the_process_lives() -> None:
    async def fails() -> None:
        raise LookupError("unseen")

    async def works() -> None:
        asyncio.ensure_future(fails())  # noqa: RUF006
        await pause(1.0)
        gc.collect()
        await pause(1.0)

    async def main() -> None:
        await SimulatedProcess("worker").start(works())

    with pytest.raises(LookupError, match="unseen"):
        run_virtual(main())


def test_the_timers_of_a_dead_process_keep_nothing_waiting() -> None:
    async def main() -> float:
        process = SimulatedProcess("worker")
        process.start(pause(50.0))
        await pause(1.0)
        process.kill()
        process.kill()
        await until(lambda: True, 1.0)
        return now()

    assert run_virtual(main()) == 1.0


def test_remains_are_buried_without_acting_even_where_they_try_to() -> None:
    acted: list[str] = []

    async def clings(wire: Wire) -> None:
        controller = wire.controller("worker")
        try:
            await forever()
        finally:
            for _ in range(3):
                try:
                    await pause(1.0)
                finally:
                    acted.append("tried")
            asyncio.get_running_loop().call_soon(acted.append, "callback")
            asyncio.ensure_future(with_finally(acted))  # noqa: RUF006
            controller.send(FRAME)

    async def main() -> None:
        wire = Wire(TIMING)
        wire.controller("other").subscribe(None, lambda _frame, _at: acted.append("frame"))
        process = SimulatedProcess("worker")
        process.start(clings(wire))
        await pause(1.0)
        process.kill()
        await pause(1.0)
        assert not acted

    run_virtual(main())
    assert set(acted) <= {"tried"}


def test_task_steps_are_counted_and_timers_are_not() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            loop.call_later(0.1, int)
        await pause(1.0)
        await pause(0)
        await pause(0)

    async def main() -> int:
        process = SimulatedProcess("worker")
        await process.start(work())
        return process.steps

    assert run_virtual(main()) == 4  # its begin, and what follows each of three waits


@pytest.mark.parametrize("step", range(5))
def test_a_process_can_be_killed_in_place_of_each_step(step: int) -> None:
    async def work(noted: list[int]) -> None:
        for number in range(4):
            noted.append(number)
            await pause(1.0)

    async def main() -> list[int]:
        noted: list[int] = []
        process = SimulatedProcess("worker")
        process.kill_at(step)
        process.start(work(noted))
        await pause(10.0)
        assert (process.steps, process.alive) == (min(step, 5), False)
        return noted

    assert run_virtual(main()) == list(range(min(step, 4)))


def test_something_else_can_be_done_at_a_step() -> None:
    async def main() -> tuple[list[float], bool]:
        done: list[float] = []
        process = SimulatedProcess("worker")
        process.kill_at(1, lambda: done.append(now()) if current_process() is None else None)
        await process.start(pause(2.0))
        return done, process.alive

    assert run_virtual(main()) == ([2.0], True)


def test_a_starved_process_does_its_work_later_and_others_do_theirs_in_time() -> None:
    seen: list[tuple[str, float]] = []

    async def work(name: str) -> None:
        for _ in range(4):
            await pause(1.0)
            seen.append((name, now()))

    async def main() -> None:
        process = SimulatedProcess("starved")
        task = process.start(work("starved"))
        other = asyncio.ensure_future(work("other"))
        await pause(1.5)
        process.stall(3.0)
        process.stall(1.0)
        await task
        await other

    run_virtual(main())
    assert [at for name, at in seen if name == "other"] == [1.0, 2.0, 3.0, 4.0]
    assert [at for name, at in seen if name == "starved"] == [1.0, 4.5, 5.5, 6.5]


def test_a_starved_process_can_be_killed() -> None:
    async def main() -> list[str]:
        noted: list[str] = []
        process = SimulatedProcess("worker")
        process.start(with_finally(noted))
        await pause(1.0)
        process.stall(5.0)
        await pause(2.0)
        process.kill()
        await pause(10.0)
        return list(noted)

    assert run_virtual(main()) == ["began"]


# --- a process on the wire ----------------------------------------------------------------------------


class OnTheWire:
    """A process that counts what it hears, and another controller."""

    def __init__(self) -> None:
        self.wire = Wire(TIMING)
        self.other = self.wire.controller("other")
        self.controller = self.wire.controller("worker")
        self.process = SimulatedProcess("worker")
        self.heard: list[float] = []
        self.heard_by_other: list[CanFrame] = []
        self.confirmed: list[float] = []
        self.warned: list[BusError] = []
        self.other.subscribe(None, lambda frame, _at: self.heard_by_other.append(frame))

    async def listen(self) -> None:
        self.controller.subscribe(None, self._on_frame)
        self.controller.watch(self.warned.append)
        await forever()

    def _on_frame(self, _frame: CanFrame, at: float) -> None:
        assert current_process() is self.process
        self.heard.append(at)
        self.controller.send(FRAME, self.confirmed.append)


def test_a_process_hears_in_its_own_context_and_what_it_sends_is_the_wires() -> None:
    async def main() -> OnTheWire:
        scene = OnTheWire()
        scene.process.start(scene.listen())
        await pause(1.0)
        scene.other.send(FRAME)
        await pause(1.0)
        return scene

    scene = run_virtual(main())
    assert (len(scene.heard), len(scene.heard_by_other), len(scene.confirmed)) == (1, 1, 1)


def test_a_killed_process_hears_nothing_and_what_it_had_queued_is_still_sent() -> None:
    async def main() -> OnTheWire:
        scene = OnTheWire()

        async def sends() -> None:
            scene.controller.send(FRAME, scene.confirmed.append)
            await scene.listen()

        scene.process.start(sends())
        await pause(0.0)
        await pause(0.0)
        scene.process.kill()
        scene.other.send(FRAME)
        await pause(1.0)
        scene.controller.unplug()
        await pause(1.0)
        return scene

    scene = run_virtual(main())
    assert scene.heard_by_other == [FRAME]
    assert (scene.heard, scene.confirmed, scene.warned, scene.controller.subscriptions) == ([], [], [], [])


def test_a_process_that_kills_itself_sends_nothing_any_more() -> None:
    async def main() -> OnTheWire:
        scene = OnTheWire()

        async def works() -> None:
            scene.process.kill()
            scene.controller.send(FRAME)

        scene.process.start(works())
        await pause(1.0)
        return scene

    assert run_virtual(main()).heard_by_other == []


def test_a_starved_process_reads_late_and_takes_what_it_reads_for_new() -> None:
    async def main() -> OnTheWire:
        scene = OnTheWire()
        scene.process.start(scene.listen())
        await pause(1.0)
        scene.process.stall(2.0)
        scene.other.send(FRAME)
        await pause(5.0)
        return scene

    assert run_virtual(main()).heard == [3.0]


# --- work off the loop --------------------------------------------------------------------------------


def test_work_for_an_executor_is_done_at_once() -> None:
    async def main() -> tuple[int, float]:
        return await asyncio.get_running_loop().run_in_executor(None, int, "7"), now()

    assert run_virtual(main()) == (7, 0.0)


def test_an_error_of_such_work_is_raised_where_it_is_awaited() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, int, "no number")

    with pytest.raises(ValueError, match="no number"):
        run_virtual(main())


@pytest.mark.parametrize("raises", [False, True])
def test_a_process_killed_in_such_work_does_not_come_back_from_it(raises: bool) -> None:
    noted: list[str] = []

    async def main() -> list[str]:
        process = SimulatedProcess("worker")

        def die() -> None:
            process.kill()
            noted.append("died")
            if raises:
                process.require_alive()

        async def work() -> None:
            try:
                await asyncio.get_running_loop().run_in_executor(None, die)
            finally:
                noted.append("came back")

        process.start(work())
        await pause(1.0)
        return list(noted)

    assert run_virtual(main()) == ["died"]


def test_a_process_killed_by_its_own_call_does_not_pass_the_next_check() -> None:
    noted: list[str] = []

    async def main() -> list[str]:
        process = SimulatedProcess("worker")

        async def work() -> None:
            try:
                process.kill()
                process.require_alive()
                noted.append("went on")
            except Exception:
                noted.append("caught")

        process.start(work())
        await pause(1.0)
        with pytest.raises(ProcessKilled):
            process.require_alive()
        return list(noted)

    assert run_virtual(main()) == []
