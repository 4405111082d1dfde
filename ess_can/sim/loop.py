"""An asyncio loop whose time is virtual: when nothing is ready, it jumps to the next timer.

Time starts at 0.0 and, when a timer fires, equals that timer's `when` exactly.  Timers of one instant fire in the order
in which they were set, so a program without other sources of chance runs the same way every time.  Nothing outside the
program can wake it: sockets, signals, threads and subprocesses are refused; what is given to an executor is done at
once, in the loop's own turn.  An exception that nobody handles, in a callback or in a task that nobody awaits, ends the
run instead of being logged.

Part of the program may be a simulated process (`ess_can.sim.process`), which may be killed: the loop then asks it
before it runs a handle that was made in its context.

The loop overrides `BaseEventLoop._run_once`, the one place where CPython's loops wait, so that neither a selector nor
the clock's resolution comes between a timer and its time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from heapq import heappop, heappush
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple, Unpack

from ess_can.errors import SimulationDeadlock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ProcessKilled(BaseException):
    """Code of a simulated process came back from where the process was killed: it must not go on."""


class Owner(Protocol):
    """A process that handles and tasks belong to."""

    alive: bool

    def admit(self, handle: asyncio.Handle) -> bool:
        """Whether this handle may run now; a process that says no keeps it or drops it."""

    def took(self, task: asyncio.Task[Any]) -> None:
        """A task was created in the process's context."""

    def bury(self) -> None:
        """The run is over: take apart what is left of a process that was killed."""


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""Whose code is running."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time, in seconds.  Use it through `run_virtual`.

    Running it raises SimulationDeadlock when everybody waits and no timer is left.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._unhandled: BaseException | None = None
        self._thread = threading.get_ident()
        self._owners: list[Owner] = []
        self._buried = False

    def time(self) -> float:
        """Virtual time in seconds."""
        return self._now

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call `callback` at `when`, or in the loop's next round if that is past."""
        if self.is_closed():
            raise RuntimeError("the virtual loop is closed")
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heappush(self._timers, (when, self._timers_set, handle))
        return handle

    def skip_to(self, when: float) -> bool:
        """Jump to `when`, for a callback that would otherwise set a timer for then and return.

        Gives False, and does nothing, if anything else is to happen until then: the callback has to set its timer.
        """
        timers = self._timers
        while timers and timers[0][2]._cancelled:  # noqa: SLF001 - as below
            heappop(timers)
        if self._ready or self._stopping or (timers and timers[0][0] <= when):
            return False
        self._now = max(self._now, when)
        return True

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            while timers and timers[0][2]._cancelled:  # noqa: SLF001 - as below
                heappop(timers)
            if not timers:
                raise self._deadlock()
            self._now = max(self._now, timers[0][0])
        now = self._now
        while timers and timers[0][0] <= now:
            ready.append(heappop(timers)[2])
        owned = bool(self._owners)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:  # noqa: SLF001 - CPython's loops ask so, too
                continue
            if not owned or (owner := handle._context.get(OWNER)) is None or owner.admit(handle):  # type: ignore[attr-defined]  # noqa: SLF001
                handle._run()  # noqa: SLF001 - running handles is what an event loop is for
        if self._unhandled is not None:
            unhandled, self._unhandled = self._unhandled, None
            raise unhandled

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep an exception that nobody handled: the loop raises it after this round."""
        exception = context.get("exception")
        if self._buried:  # what the remains of dead processes still say means nothing
            return
        if exception is None:
            super().default_exception_handler(context)
        elif self._unhandled is None:
            self._unhandled = exception

    def _deadlock(self) -> SimulationDeadlock:
        waiting = []
        for task in asyncio.all_tasks(self):
            frames = task.get_stack(limit=1)
            place = f" in {frames[-1].f_code.co_qualname}, line {frames[-1].f_lineno}" if frames else ""
            waiting.append(f"{task.get_name()}{place}")
        return SimulationDeadlock(
            f"nothing can happen any more at virtual time {self._now:.6f} s",
            why="no timer is set, and these tasks wait: " + ("; ".join(sorted(waiting)) or "none"),
        )

    # --- simulated processes ----------------------------------------------------------------------

    def owned(self, owner: Owner) -> None:
        """From its next round on the loop asks this process before it runs what belongs to it."""
        self._owners.append(owner)

    def handles_of(self, owner: Owner) -> list[asyncio.Handle]:
        """What is scheduled and belongs to this process."""
        scheduled: list[asyncio.Handle] = [*self._ready, *(timer for _, _, timer in self._timers)]
        return [handle for handle in scheduled if handle._context.get(OWNER) is owner]  # type: ignore[attr-defined]  # noqa: SLF001

    def resume(self, handles: Iterable[asyncio.Handle]) -> None:
        """Run handles that a process held back, in the loop's next round."""
        self._ready.extend(handles)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Create a task, and tell the process that it belongs to."""
        task = super().create_task(coro, name=name, context=context)
        if self._owners and (owner := OWNER.get()) is not None:
            owner.took(task)
        return task

    async def bury(self) -> None:
        """The run is over: take apart what is left of processes that were killed."""
        self._buried = bool(self._owners)
        for owner in self._owners:
            owner.bury()

    def close(self) -> None:
        """Drop what is scheduled and close the loop."""
        self._timers.clear()
        super().close()

    # --- the world outside the program is refused -----------------------------------------------

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """`call_soon`, for the interpreter's own use in the loop's thread.  Other threads are refused."""
        if threading.get_ident() != self._thread:
            _refuse("another thread")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call `func` here and now and give a future that is done: threads have no place in virtual time.

        A process that was killed has nothing done any more, and for one that is killed in this call the future is
        never done.
        """
        future: asyncio.Future[T] = self.create_future()
        owner = OWNER.get()
        if owner is not None and not owner.alive:
            return future
        try:
            result = func(*args)
        except ProcessKilled:
            return future
        except Exception as error:
            future.set_exception(error)
        else:
            if owner is None or owner.alive:
                future.set_result(result)
        return future

    async def getaddrinfo(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: the network has no place in virtual time."""
        _refuse("a name server")

    async def getnameinfo(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: the network has no place in virtual time."""
        _refuse("a name server")

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> NoReturn:
        """Refused: file descriptors have no place in virtual time."""
        _refuse("a file descriptor")

    def add_writer(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> NoReturn:
        """Refused: file descriptors have no place in virtual time."""
        _refuse("a file descriptor")

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> NoReturn:
        """Refused: signals have no place in virtual time."""
        _refuse("a signal")

    async def create_connection(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: sockets have no place in virtual time."""
        _refuse("a socket")

    async def create_server(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: sockets have no place in virtual time."""
        _refuse("a socket")

    async def create_datagram_endpoint(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: sockets have no place in virtual time."""
        _refuse("a socket")

    async def subprocess_exec(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: processes have no place in virtual time."""
        _refuse("a subprocess")

    async def subprocess_shell(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: processes have no place in virtual time."""
        _refuse("a subprocess")


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(f"{what} cannot take part in virtual time: a simulation must depend on nothing but its program")


def run_virtual(coro: Coroutine[Any, Any, T]) -> T:
    """Run `coro` on a new virtual loop and give its result; whatever tasks are left are cancelled.

    Raises what `coro` raises, and SimulationDeadlock if it waits for something that cannot happen.
    """
    loop = VirtualTimeLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            return runner.run(coro)
        finally:
            if not loop.is_closed():
                runner.run(loop.bury())
