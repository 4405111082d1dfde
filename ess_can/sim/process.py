"""A program that shares the virtual loop with others and can die in the middle of it, as by SIGKILL.

What belongs to a process is known by a context variable: everything that its code starts (tasks, timers, callbacks)
inherits it.  The simulated hardware's own callbacks carry the hardware's context, even where a process set them off,
and a controller calls a process only in that process's context.

A killed process is never run again: no `finally`, no `except`.  Its remains are kept until the run is over and then
taken apart, when nothing that they could touch is alive (`VirtualTimeLoop.bury`).
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _unregister_task
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import TypeVar, TypeVarTuple, Unpack
from weakref import WeakSet

from ess_can.errors import UsageError
from ess_can.sim.loop import OWNER, ProcessKilled, VirtualTimeLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BURIAL_ROUNDS = 1000
"""How many awaits the remains of one task may still reach while they are taken apart."""


class SimulatedProcess:
    """A process of this name on the running virtual loop.  It ends when its first task does, or when it is killed.

    `steps` counts how often one of its tasks was run.  `on_death` is called, in nobody's context, when it is killed:
    sockets and locks that the operating system closes.  Raises UsageError on an ordinary loop.
    """

    def __init__(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualTimeLoop):
            raise UsageError("a simulated process needs the virtual loop", why=f"this is {type(loop).__name__}")
        self.name = name
        self.alive = True
        self.steps = 0
        self.on_death: list[Callable[[], None]] = []
        self.task: asyncio.Task[object] | None = None
        self._loop = loop
        self._tasks: WeakSet[asyncio.Task[object]] = WeakSet()
        self._remains: list[asyncio.Task[object]] = []
        self._at_step: tuple[int, Callable[[], None]] | None = None
        self._starved_until: float | None = None
        self._held: list[asyncio.Handle] = []
        self._calls_held: list[Callable[[], None]] = []
        loop.owned(self)

    def start(self, coro: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run `coro` as this process's first task.  The task of a process that is killed never ends."""
        task = self._context().run(self._loop.create_task, coro, name=self.name)
        self.task = task
        return task

    def _context(self) -> Context:
        context = copy_context()
        context.run(OWNER.set, self)
        return context

    # --- what happens to it -------------------------------------------------------------------------

    def kill(self) -> None:
        """End it here and now: nothing of it runs any more.  Killing it again changes nothing.

        Where its own code is what leads here, that code runs on to its next await: see `require_alive`.
        """
        if not self.alive:
            return
        self.alive = False
        for task in tuple(self._tasks):
            self._keep(task)
        for handle in (*self._loop.handles_of(self), *self._held):
            self._drop(handle)
        self._held.clear()
        self._calls_held.clear()
        outside(self._died)

    def _died(self) -> None:
        for call in self.on_death:
            call()
        self.on_death.clear()

    def kill_at(self, step: int, then: Callable[[], None] | None = None) -> None:
        """When it is about to do its task step with this index, from 0: call `then`, or kill it.

        `then` is called in nobody's context; unless it kills the process the step is done.
        """
        self._at_step = step, then or self.kill

    def stall(self, seconds: float) -> None:
        """Starve it: what it has to do from now on waits for `seconds`; others go on.  The longest stall counts."""
        until = self._loop.time() + seconds
        if self.alive and seconds > 0 and (self._starved_until is None or until > self._starved_until):
            self._starved_until = until
            outside(self._loop.call_at, until, self._fed)

    @property
    def starved(self) -> bool:
        """Whether it cannot do anything just now."""
        return self._starved_until is not None

    def _fed(self) -> None:
        if self._starved_until is None or self._loop.time() < self._starved_until:
            return
        self._starved_until = None
        calls, self._calls_held = self._calls_held, []
        for call in calls:
            call()
        self._loop.resume(self._held)
        self._held.clear()

    def require_alive(self) -> None:
        """For what a process's code calls directly: raises ProcessKilled in a process that was killed meanwhile."""
        if not self.alive:
            raise ProcessKilled(self.name)

    # --- calls from outside -------------------------------------------------------------------------

    def calling(self, call: Callable[[Unpack[Ts]], object]) -> Callable[[Unpack[Ts]], None]:
        """`call` as others may use it: in this process's context, when it is not starved, and never once it is dead."""
        context = self._context()

        def deliver(*args: *Ts) -> None:
            if self.alive:
                if self._starved_until is None:
                    context.run(call, *args)
                else:
                    self._calls_held.append(lambda: deliver(*args))

        return deliver

    # --- what the loop asks -------------------------------------------------------------------------

    def took(self, task: asyncio.Task[object]) -> None:
        """A task of this process was created."""
        self._tasks.add(task)
        if not self.alive:
            self._keep(task)

    def _keep(self, task: asyncio.Task[object]) -> None:
        """Keep a dead task from being taken apart before the run is over, and from being waited for then."""
        self._remains.append(task)
        _unregister_task(task)

    def admit(self, handle: asyncio.Handle) -> bool:
        """Whether the loop may run a handle of this process now."""
        if not self.alive:
            self._drop(handle)
            return False
        if self._starved_until is not None:
            self._held.append(handle)
            return False
        if isinstance(getattr(handle._callback, "__self__", None), asyncio.Task):  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio's own debugging does
            if self._at_step is not None and self._at_step[0] <= self.steps:
                then, self._at_step = self._at_step[1], None
                outside(then)
                if not self.alive or self._starved_until is not None:
                    return self.admit(handle)
            self.steps += 1
        return True

    @staticmethod
    def _drop(handle: asyncio.Handle) -> None:
        """It will not run.  An error that it would have taken note of is no complaint of the loop's."""
        for argument in handle._args or ():  # noqa: SLF001 - as asyncio's own debugging does
            if isinstance(argument, asyncio.Future):
                _take_note(argument)
        handle.cancel()

    def bury(self) -> None:
        """Take the remains apart.  They are closed where they wait, whatever they try to do about it."""
        context = self._context()  # what they set off is theirs, and dead
        while self._remains:
            task = self._remains.pop()
            if task.done():
                _take_note(task)
                continue
            coroutine = task.get_coro()
            if not isinstance(coroutine, Coroutine):
                continue
            for _ in range(_BURIAL_ROUNDS):
                try:
                    context.run(coroutine.close)
                except RuntimeError:  # it waits again: in a `finally`
                    continue
                except BaseException:  # noqa: S110 - nothing it says matters any more
                    pass
                break
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio.gather does


def current_process() -> SimulatedProcess | None:
    """The process whose code is running; None for the simulated world's own, and outside of simulations."""
    owner = OWNER.get()
    return owner if isinstance(owner, SimulatedProcess) else None


def outside(call: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """Do something as nobody's code, whoever set it off: what it starts belongs to no process."""
    context = copy_context()
    context.run(OWNER.set, None)
    return context.run(call, *args)


def _take_note(future: asyncio.Future[object]) -> None:
    if future.done() and not future.cancelled():
        future.exception()
