"""When bulk frames have left an interface that does not tell: reckoned by the time that they take on the wire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ess_can.bus.port import Sent
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s

AHEAD_S = 0.002
"""How far ahead of the wire a bulk frame counts as sent: a loop's timers are late by a millisecond and more."""


class WirePace:
    """The wire as it should be: every frame of ours goes out when those before it, and what others sent, are over.

    A bulk frame is `under_way` until `AHEAD_S` before its end; then its `on_sent` is called, and `room` after that.
    A timer that is late by less than that costs no time on the wire.
    """

    def __init__(self, timing: BitTiming, loop: asyncio.AbstractEventLoop, room: Callable[[], None]) -> None:
        self._timing = timing
        self._loop = loop
        self._room = room
        self._free_at = 0.0
        self._bulk: deque[tuple[float, Sent | None]] = deque()  # until when each is under way
        self._timer: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> int:
        """How many bulk frames are."""
        return len(self._bulk)

    def put(self, frame: CanFrame, on_sent: Sent | None, *, bulk: bool) -> None:
        """The driver took a frame of ours.  Only a bulk frame's `on_sent` is called, and not from here."""
        self._free_at = max(self._free_at, self._loop.time()) + self._duration_s(frame)
        if bulk:
            self._bulk.append((self._free_at - AHEAD_S, on_sent))
            self._arm()

    def heard(self, frame: CanFrame) -> None:
        """Others used the wire; whatever of ours is still in the driver had to wait."""
        if self._free_at > self._loop.time():
            self._free_at += self._duration_s(frame)

    def clear(self) -> None:
        """Forget what is under way: nothing of it is told any more."""
        self._bulk.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _duration_s(self, frame: CanFrame) -> float:
        try:
            return frame_duration_s(frame, self._timing)
        except ValueError:  # no such frame: the driver will say so
            return 0.0

    def _arm(self) -> None:
        if self._bulk and self._timer is None:
            self._timer = self._loop.call_at(self._bulk[0][0], self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._bulk and self._bulk[0][0] <= now:
            until, on_sent = self._bulk.popleft()
            if on_sent is not None:
                on_sent(max(now, until + AHEAD_S))  # when the frame ends: separation times run from there
        self._arm()
        self._room()
