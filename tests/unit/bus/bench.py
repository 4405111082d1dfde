"""A bus on a python-can driver that fails as told, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import can

from ess_can.bus.adapter import PythonCanBus
from ess_can.bus.python_can import MessageDriver
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError
from ess_can.sim.loop import VirtualTimeLoop


class FakeDriver(can.BusABC):
    """A python-can bus whose queue and failures a test controls."""

    def __init__(self, fileno: int = 5) -> None:
        super().__init__("fake")
        self.sent: list[can.Message] = []
        self.failures: list[Exception | None] = []  # of the next sends; None is success
        self.always: Exception | None = None
        self.incoming: list[can.Message | Exception] = []
        self.shutdowns = 0
        self.state_now: can.BusState | Exception = can.BusState.ACTIVE
        self._fileno = fileno

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        failure = self.failures.pop(0) if self.failures else self.always
        if failure is not None:
            raise failure
        self.sent.append(msg)

    def recv(self, timeout: float | None = None) -> can.Message | None:
        if not self.incoming:
            return None
        item = self.incoming.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    def fileno(self) -> int:
        return self._fileno

    @property
    def state(self) -> can.BusState:
        if isinstance(self.state_now, Exception):
            raise self.state_now
        return self.state_now

    @state.setter
    def state(self, new_state: can.BusState) -> None:
        self.state_now = new_state

    def shutdown(self) -> None:
        self.shutdowns += 1
        super().shutdown()

    @property
    def ids(self) -> list[int]:
        return [message.arbitration_id for message in self.sent]


class DeviceLoop(VirtualTimeLoop):
    """Virtual time with one file descriptor, which the test makes readable."""

    reader: Callable[[], object] | None = None

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        self.reader = callback

    def remove_reader(self, fd: Any) -> bool:
        self.reader = None
        return True


class Bench:
    """A started bus on a fake driver, and all it reports."""

    def __init__(self, backend: str = "fake", *, depth: int = 4, driver: FakeDriver | None = None) -> None:
        self.driver = FakeDriver() if driver is None else driver
        self.bus = PythonCanBus(MessageDriver(self.driver, backend), depth=depth, patience_s=1.0)
        self.received: list[tuple[CanFrame, float]] = []
        self.errors: list[BusError] = []
        self.confirmed: list[tuple[int, float]] = []
        self.bus.subscribe(None, lambda frame, now: self.received.append((frame, now)))
        self.bus.watch(self.errors.append)
        self.bus.start()

    def send(self, can_id: int) -> None:
        self.bus.send(CanFrame(can_id, b""), lambda now: self.confirmed.append((can_id, now)))

    def arrive(self, *items: can.Message | Exception) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, DeviceLoop)
        self.driver.incoming.extend(items)
        while self.driver.incoming and loop.reader is not None:
            loop.reader()


def on_device_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        with asyncio.Runner(loop_factory=DeviceLoop) as runner:
            runner.run(test())

    run.__name__ = test.__name__
    return run


async def run_until(when: float) -> None:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    loop.call_at(when, woken.set_result, None)
    await woken
