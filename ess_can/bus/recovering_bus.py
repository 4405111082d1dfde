"""A bus that survives bus-off: a `Bus` around a `Bus` that has the controller restarted, later each time, a few times.

While the controller is off, frames are refused as by a full queue: what is cyclic comes again, a message is offered
again until it is given up, and nothing has to know why.  Whoever relies on what was heard before has to begin anew:
watchers are told by the warning BusInterrupted.  When the restarts are used up, BusUnusable ends the use of the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, auto

from ess_can.bus.around import BusAround
from ess_can.bus.port import Bus, Sent
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, BusInterrupted, BusOff, BusUnusable, TransmitQueueFull

BACK_OFF_S = (0.1, 0.5, 2.0)
"""How long the controller stays off before each restart: what made it go off may last."""

_COMES_BACK_S = 1.0
"""A controller that refuses a frame so long after its restart counts as off again."""


class _State(Enum):
    ON = auto()
    OFF = auto()  # until the back-off has passed
    RESTARTING = auto()  # until it takes a frame


class RecoveringBus(BusAround):
    """See the module.  Create it on the running loop; `close` ends the recovering, not the bus.

    `restarts` counts how often the controller was restarted; there are as many as `back_off_s` has pauses.  A bus that
    cannot be restarted from here ends with the BusOff that it reported.
    """

    def __init__(self, bus: Bus, back_off_s: Sequence[float] = BACK_OFF_S) -> None:
        super().__init__(bus)
        self.restarts = 0
        self._back_off_s = tuple(back_off_s)
        self._loop = asyncio.get_running_loop()
        self._state = _State.ON
        self._back_by = 0.0
        self._end: BusOff | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchers: list[Callable[[BusError], None]] = []
        self._unwatch = bus.watch(self._failed)

    # --- the Bus port -----------------------------------------------------------------------------

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Queue a frame, as `Bus.send` says.  Raises TransmitQueueFull while the controller is off."""
        if self._state is _State.OFF:
            self._refuse()
        try:
            self._bus.send(frame, on_sent, bulk=bulk)
        except BusOff as error:
            if self._state is _State.ON or self._loop.time() >= self._back_by:
                self._went_off(error)
            self._refuse()
        self._state = _State.ON

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Report what goes wrong, as `Bus.watch` says; bus-off as the warning BusInterrupted, or as BusUnusable."""
        self._watchers.append(on_error)

        def cancel() -> None:
            if on_error in self._watchers:
                self._watchers.remove(on_error)

        return cancel

    def close(self) -> None:
        """Restart nothing any more, and leave the bus alone."""
        self._stop_timer()
        self._unwatch()

    # --- what goes wrong --------------------------------------------------------------------------

    def _refuse(self) -> None:
        if self._end is not None:
            raise type(self._end)(self._end.what, why=self._end.why, remedy=self._end.remedy)
        raise TransmitQueueFull("the controller is bus-off", why="it is being restarted")

    def _failed(self, error: BusError) -> None:
        if isinstance(error, BusOff):
            if self._state is not _State.OFF:
                self._went_off(error)
            return
        if error.ends_use:  # what it says from now on is its own
            self._stop_timer()
            self._state = _State.ON
        self._tell(error)

    def _went_off(self, error: BusOff) -> None:
        self._state = _State.OFF
        if self.restarts == len(self._back_off_s):
            why = f"it was restarted {self.restarts} times; {error}"
            self._ends(BusUnusable("the controller goes bus-off again and again", why=why))
            return
        pause_s = self._back_off_s[self.restarts]
        self._timer = self._loop.call_later(pause_s, self._restart, error)
        number = f"restart {self.restarts + 1} of {len(self._back_off_s)} in {pause_s:g} s"
        self._tell(BusInterrupted("the controller went bus-off", why=f"{error.why}; {number}"))

    def _restart(self, error: BusOff) -> None:
        self._timer = None
        self.restarts += 1
        if not self._bus.restart():
            self._ends(error)
            return
        self._state = _State.RESTARTING
        self._back_by = self._loop.time() + _COMES_BACK_S

    def _ends(self, error: BusOff) -> None:
        self._stop_timer()
        self._end = error
        self._tell(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, error: BusError) -> None:
        for on_error in tuple(self._watchers):
            on_error(error)
