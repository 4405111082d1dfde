"""The one place where the package waits.

Everything that waits does so on the running asyncio loop and by that loop's time, in seconds.  In the field that is the
ordinary loop's monotonic clock; in simulation it is virtual time.  Nothing else may sleep.
"""

from __future__ import annotations

import asyncio
import time  # noqa: TID251 - the two clocks of the machine that tell how long it slept
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from math import floor
from types import TracebackType
from typing import Self, TypeVar

from ess_can.errors import EssCanError

T = TypeVar("T")


def now() -> float:
    """The running loop's time in seconds."""
    return asyncio.get_running_loop().time()


async def pause(seconds: float) -> None:
    """Wait by the running loop's time."""
    await asyncio.sleep(seconds)  # noqa: TID251 - the one place where waiting belongs


def suspended_s() -> float:
    """Seconds that the machine has slept since it started: the loop's time stands still meanwhile.

    0 where the system has no clock that goes on (Linux has CLOCK_BOOTTIME).
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Cycle:
    """Calls a function every `period_s` seconds without drift, until stopped.  Starts only by `start`.

    With `phase_s` all calls but the first fall on whole periods of the loop's time plus that phase, so that what is
    sent in cycles of the same or multiple periods does not meet, whenever each was started.
    """

    def __init__(self, period_s: float, call: Callable[[float], None], *, phase_s: float | None = None) -> None:
        self.period_s = period_s
        self._call = call
        self._phase_s = phase_s
        self._began_at = 0.0
        self._calls = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self, *, delay_s: float = 0.0) -> None:
        """Call for the first time after `delay_s`, then every period.  Starting again restarts the cycle."""
        self.stop()
        loop = asyncio.get_running_loop()
        self._began_at = loop.time() + delay_s
        self._calls = 0
        self._handle = loop.call_at(self._began_at, self._fire)

    def stop(self) -> None:
        """No further call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        loop = asyncio.get_running_loop()
        current = loop.time()
        self._handle = loop.call_at(self._next(current), self._fire)
        self._call(current)

    def _next(self, current: float) -> float:
        """When to call next.  A starved loop skips what it missed and never bursts."""
        if self._phase_s is not None:
            periods = floor((current - self._phase_s) / self.period_s + _SOONEST) + 1
            return self._phase_s + periods * self.period_s
        self._calls += 1
        if self._began_at + self._calls * self.period_s <= current:
            self._began_at, self._calls = current, 1
        return self._began_at + self._calls * self.period_s


_SOONEST = 0.1
"""Of a period: a call less than this before its place in the phase takes that place's turn."""


@dataclass(slots=True, eq=False)
class _Inside:
    """A task in a guard's block.  `cancelled` once this guard has cancelled it."""

    task: asyncio.Task[object]
    cancelling_before: int
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        self.task.cancel()


class Guard:
    """A condition that work depends on.  Tripping it cancels the work under it at once.

    ``async with guard:`` runs a block under it; when `trip` is called the block is cancelled and the error given to
    `trip` is raised in its place.  A guard trips once and stays tripped.
    """

    def __init__(self) -> None:
        self.error: EssCanError | None = None
        self._inside: list[_Inside] = []

    @property
    def holds(self) -> bool:
        """Whether the condition still holds."""
        return self.error is None

    def trip(self, error: EssCanError) -> None:
        """The condition is lost: cancel everything that runs under it."""
        if self.error is not None:
            return
        self.error = error
        current = _current_task()
        for inside in self._inside:
            if inside.task is current:  # it cannot be cancelled while it runs: do it as soon as it waits
                asyncio.get_running_loop().call_soon(self._cancel_later, inside)
            else:
                inside.cancel()

    def _cancel_later(self, inside: _Inside) -> None:
        if inside in self._inside:
            inside.cancel()

    def require(self) -> None:
        """Raise the error if the condition was lost."""
        if self.error is not None:
            raise self.error

    async def __aenter__(self) -> Self:
        self.require()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a guard works inside a task only")
        self._inside.append(_Inside(task, task.cancelling()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        task = asyncio.current_task()
        inside = next(inside for inside in reversed(self._inside) if inside.task is task)
        self._inside.remove(inside)
        # As asyncio.timeout does: our cancellation is taken back, and only one that was ours becomes our error.
        ours = inside.cancelled and inside.task.uncancel() <= inside.cancelling_before
        if self.error is not None and (error is None or (ours and isinstance(error, asyncio.CancelledError))):
            raise self.error from error
        return None


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # called from outside any loop
        return None


_POLL_S = 0.010


async def until(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until `condition` holds, looked at every 10 ms; False if it did not within `within_s` seconds.

    Raises what `condition` raises.
    """
    if condition():
        return True
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    if within_s <= 0:
        return False
    result: asyncio.Future[bool] = loop.create_future()
    looking: Cycle

    def look(current: float) -> None:  # from a timer: a task that sleeps takes three times the work
        if result.done():  # cancelled in this turn of the loop
            return
        try:
            holds = condition()
        except Exception as error:
            looking.stop()
            result.set_exception(error)
            return
        if holds or current >= deadline:
            looking.stop()
            result.set_result(holds)

    looking = Cycle(_POLL_S, look)
    looking.start(delay_s=_POLL_S)
    try:
        return await result
    finally:
        looking.stop()


async def together(
    works: Iterable[Coroutine[None, None, None]], on_further: Callable[[BaseException], None] | None = None
) -> None:
    """Do several things at the same time, each in a task of its own, until all have ended.

    The first failure cancels the others, and is raised when they have ended; `on_further` is told of every failure
    that came after it.  A cancellation cancels them all, and comes through when they have ended.
    """
    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    cancelled: asyncio.CancelledError | None = None

    def ended(task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None or (task.cancelled() and (failures or cancelled is not None)):
            return
        failures.append(error)
        for each in tasks:
            each.cancel()

    tasks = [loop.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(ended)
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
            for task in tasks:
                task.cancel()
    first: BaseException | None = cancelled or (failures[0] if failures else None)
    for failure in failures:
        if failure is not first and on_further is not None:
            on_further(failure)
    if first is not None:
        raise first


async def uninterrupted(work: Coroutine[None, None, T]) -> T:
    """Finish `work` although the task that waits for it is cancelled.  For work that is bounded in time."""
    task = asyncio.get_running_loop().create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
