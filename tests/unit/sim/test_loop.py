from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ess_can.errors import SimulationDeadlock
from ess_can.sim.loop import VirtualTimeLoop, run_virtual


async def wait(seconds: float) -> None:
    await asyncio.wait_for(asyncio.get_running_loop().create_future(), seconds)


async def nap(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    loop.call_later(seconds, woken.set_result, None)
    await woken


def test_time_starts_at_zero_and_jumps_to_each_timer_exactly() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen = [loop.time()]
        done = loop.create_future()
        for when in (0.1 + 0.2, 1e-9, 1e6 / 3, 86400.0):
            loop.call_at(when, lambda: seen.append(loop.time()))
        loop.call_at(1e6, done.set_result, None)
        await done
        return seen

    assert run_virtual(main()) == [0.0, 1e-9, 0.1 + 0.2, 86400.0, 1e6 / 3]


def test_timers_that_differ_by_less_than_any_clock_resolution_stay_apart() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for when in (1.0 + 2e-15, 1.0 + 1e-15, 1.0):
            loop.call_at(when, lambda: seen.append(loop.time()))
        await nap(2)
        return seen

    assert run_virtual(main()) == [1.0, 1.0 + 1e-15, 1.0 + 2e-15]


def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_set() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        for number in range(50):
            loop.call_at(1.0, seen.append, number)
        await nap(2)
        return seen

    assert run_virtual(main()) == list(range(50))


def test_a_timer_in_the_past_fires_now_and_time_never_runs_back() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        await nap(5)
        fired = loop.create_future()
        loop.call_at(1.0, lambda: fired.set_result(loop.time()))
        return await fired, loop.time()

    assert run_virtual(main()) == (5.0, 5.0)


def test_a_cancelled_timer_neither_fires_nor_moves_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_at(1.0, pytest.fail, "cancelled").cancel()
        ready = asyncio.Event()
        loop.call_at(2.0, ready.set)
        await ready.wait()
        return loop.time()

    assert run_virtual(main()) == 2.0


def test_a_cancelled_timer_is_nothing_to_wait_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(10.0, int).cancel()
        await loop.create_future()

    with pytest.raises(SimulationDeadlock, match=r"virtual time 0\.000000 s"):
        run_virtual(main())


def test_a_callback_cancelled_in_the_same_instant_does_not_run() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        second: list[asyncio.TimerHandle] = []
        loop.call_at(1.0, lambda: second[0].cancel())
        second.append(loop.call_at(1.0, pytest.fail, "cancelled"))
        await nap(2)

    run_virtual(main())


def test_due_timers_are_not_starved_by_work_of_the_same_instant() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        rounds = 0
        stop = False

        def spin() -> None:
            nonlocal rounds
            rounds += 1
            if not stop:
                loop.call_soon(spin)

        def end() -> None:
            nonlocal stop
            stop = True

        spin()
        loop.call_later(0, end)
        await nap(1)
        return rounds

    assert run_virtual(main()) < 5


def test_asyncio_timeouts_work_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await wait(3600)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 3600.0


def test_waiting_for_what_cannot_happen_is_an_error_that_names_who_waits() -> None:
    async def stuck_consumer() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await nap(1.5)
        await asyncio.create_task(stuck_consumer(), name="consumer")

    with pytest.raises(SimulationDeadlock, match=r"1\.500000 s.*consumer in .*stuck_consumer, line \d+"):
        run_virtual(main())


def test_leftover_tasks_are_cancelled_and_finish() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("background")

    async def main() -> str:
        keep.append(asyncio.create_task(background()))
        await nap(0)
        return "result"

    keep: list[asyncio.Task[None]] = []
    assert run_virtual(main()) == "result"
    assert ended == ["background"]


def test_what_the_program_raises_comes_out() -> None:
    async def main() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run_virtual(main())


def test_an_exception_in_a_callback_ends_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, int, "no number")
        await nap(2)
        pytest.fail("ran on")

    with pytest.raises(ValueError, match="no number"):
        run_virtual(main())


def test_an_exception_in_a_task_that_nobody_awaits_ends_the_run() -> None:
    async def fails() -> None:
        raise LookupError("unseen")

    async def main() -> None:
        task: asyncio.Task[None] | None = asyncio.create_task(fails())
        await nap(1)
        del task
        await nap(1)
        pytest.fail("ran on")

    with pytest.raises(LookupError, match="unseen"):
        run_virtual(main())


def test_complaints_without_an_exception_are_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "just so you know"})
        await nap(1)

    run_virtual(main())
    assert "just so you know" in caplog.text


def test_asynchronous_generators_are_closed() -> None:
    closed: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def main() -> None:
        async for _ in numbers():
            break
        await nap(1)

    run_virtual(main())
    assert closed == [True]


Refused = Callable[[asyncio.AbstractEventLoop], Awaitable[object]]


async def reader(loop: asyncio.AbstractEventLoop) -> None:
    loop.add_reader(0, int)


async def writer(loop: asyncio.AbstractEventLoop) -> None:
    loop.add_writer(0, int)


async def signal_handler(loop: asyncio.AbstractEventLoop) -> None:
    loop.add_signal_handler(2, int)


REFUSED: list[Refused] = [
    reader,
    writer,
    signal_handler,
    lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 1),
    lambda loop: loop.create_server(asyncio.Protocol, "localhost", 0),
    lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)),
    lambda loop: loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
    lambda loop: loop.subprocess_shell(asyncio.SubprocessProtocol, "true"),
    lambda loop: loop.getaddrinfo("localhost", 1),
    lambda loop: loop.getnameinfo(("127.0.0.1", 1)),
]


@pytest.mark.parametrize("use", REFUSED)
def test_the_outside_world_is_refused(use: Refused) -> None:
    async def main() -> None:
        await use(asyncio.get_running_loop())

    with pytest.raises(RuntimeError, match="virtual time"):
        run_virtual(main())


def test_another_thread_cannot_wake_the_loop() -> None:
    failures: list[RuntimeError] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def outside() -> None:
            try:
                loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                failures.append(error)

        thread = threading.Thread(target=outside)
        thread.start()
        thread.join()

    run_virtual(main())
    assert "another thread" in str(failures[0])


def test_a_closed_loop_takes_no_timers() -> None:
    loop = VirtualTimeLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_at(1.0, int)
