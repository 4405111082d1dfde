"""Reading from a driver: on its file descriptor where it has one, else in a thread that only hands over to the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from ess_can.bus.driver import Driver, Heard
from ess_can.errors import BusError

_FRAMES_A_WAKE_UP = 64  # on the loop, which has other things to do
_FRAMES_HANDED_OVER = 256  # by the thread, at a time
_THREAD_POLL_S = 0.05
_IDLE_WAKE_UPS = 100  # in a row that gave nothing; then reading pauses each time
_IDLE_PAUSE_S = 0.010


class Reader:
    """Gives what the driver heard to `take`, many frames at a time, from `start` to `stop`."""

    def __init__(self, driver: Driver, take: Callable[[list[Heard]], None]) -> None:
        self._driver = driver
        self._take = take
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fileno: int | None = None
        self._idle_wake_ups = 0
        self._pause: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._handed_over: deque[list[Heard]] = deque()
        self._hand_over_due = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read from now on; `take` is called on `loop`."""
        self._loop = loop
        fileno = self._driver.fileno()
        if fileno >= 0:
            try:
                loop.add_reader(fileno, self._read_some)
                self._fileno = fileno
                return
            except NotImplementedError:  # Windows' proactor loop
                pass
        name = f"can-{self._driver.name}"
        self._thread = threading.Thread(target=self._read_in_thread, args=(loop,), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more.  A thread ends shortly after: see `join`."""
        self._stopping.set()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._fileno is not None and self._loop is not None:
            self._loop.remove_reader(self._fileno)
            self._fileno = None

    def join(self) -> None:
        """After `stop`: wait for the thread, if there is one."""
        if self._thread is not None:
            self._thread.join()

    def _read_some(self) -> None:
        """Read what is there, up to a bound that keeps the loop responsive."""
        tries = 1 if self._idle_wake_ups < _IDLE_WAKE_UPS else _FRAMES_A_WAKE_UP
        for _ in range(tries):
            heard = self._driver.read(_FRAMES_A_WAKE_UP, 0)
            if heard:
                self._idle_wake_ups = 0
                self._take(heard)
                return
        self._idle_wake_ups += 1
        if self._idle_wake_ups >= _IDLE_WAKE_UPS and self._fileno is not None and self._loop is not None:
            # Ready, but nothing comes: a driver that ended.  It must not take all of the processor's time.
            self._loop.remove_reader(self._fileno)
            self._pause = self._loop.call_later(_IDLE_PAUSE_S, self._loop.add_reader, self._fileno, self._read_some)

    def _read_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over what arrives.  Touches nothing of the bus but the driver's `read` and what is handed over."""
        idle = 0
        while not self._stopping.is_set():
            since = loop.time()
            heard = self._driver.read(_FRAMES_HANDED_OVER, _THREAD_POLL_S)
            if not heard:
                idle = idle + 1 if loop.time() - since < _THREAD_POLL_S / 2 else 0
                if idle >= _IDLE_WAKE_UPS:
                    self._stopping.wait(_IDLE_PAUSE_S)
                continue
            idle = 0
            self._handed_over.append(heard)
            if not self._hand_over_due:
                self._hand_over_due = True
                try:
                    loop.call_soon_threadsafe(self._take_over)
                except RuntimeError:  # the loop is closed
                    return
            if isinstance(heard[-1], BusError):
                self._stopping.wait(_THREAD_POLL_S)

    def _take_over(self) -> None:
        self._hand_over_due = False  # first: what is appended from now on is announced again
        for _ in range(len(self._handed_over)):
            self._take(self._handed_over.popleft())
