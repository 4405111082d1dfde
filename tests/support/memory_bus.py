"""Two ends of a wire without a wire: what one sends the other receives a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ess_can.bus.port import Receive, Sent
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError

LATENCY_S = 0.0005


class MemoryBus:
    """One end.

    `failure` is what sending raises; `sent` are all frames, `adopted` all adopted identifiers; `cut` loses what would
    be received.
    """

    def __init__(self) -> None:
        self.fd = False
        self.failure: BusError | None = None
        self.cut = False
        self.sent: list[CanFrame] = []
        self.adopted: list[int] = []
        self.peer: MemoryBus | None = None
        self._subscriptions: list[tuple[frozenset[int] | None, Receive]] = []
        self._watchers: list[Callable[[BusError], None]] = []

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append(frame)
        loop = asyncio.get_running_loop()
        if self.peer is not None:
            loop.call_later(LATENCY_S, self.peer.deliver, frame)
        if on_sent is not None:
            loop.call_later(LATENCY_S, lambda: on_sent(loop.time()))

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        entry = (None if can_ids is None else frozenset(can_ids), receive)
        self._subscriptions.append(entry)
        return lambda: self._subscriptions.remove(entry)

    def withdraw(self, can_id: int) -> list[CanFrame]:
        return []

    def adopt(self, can_id: int) -> None:
        self.adopted.append(can_id)

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        self._watchers.append(on_error)
        return lambda: self._watchers.remove(on_error)

    def restart(self) -> bool:
        return False

    @property
    def listeners(self) -> int:
        """How many subscriptions and watchers there are."""
        return len(self._subscriptions) + len(self._watchers)

    def deliver(self, frame: CanFrame, *, of_this_host: bool = False) -> None:
        """A frame arrives now, from the bus or from another socket of this host."""
        if self.cut:
            return
        at = asyncio.get_running_loop().time()
        for can_ids, receive in list(self._subscriptions):
            hidden = of_this_host and frame.can_id in self.adopted
            if can_ids is None or (frame.can_id in can_ids and not hidden):
                receive(frame, at)

    def warn(self, error: BusError) -> None:
        """Watchers are told, and the bus goes on."""
        for watcher in list(self._watchers):
            watcher(error)

    def die(self, error: BusError) -> None:
        """The bus ends: sending raises, nothing is received, and watchers are told."""
        self.failure, self.cut = error, True
        for watcher in list(self._watchers):
            watcher(error)


def bus_pair() -> tuple[MemoryBus, MemoryBus]:
    """Both ends."""
    one, other = MemoryBus(), MemoryBus()
    one.peer, other.peer = other, one
    return one, other
