"""What the python-can adapter needs of an interface: a small protocol, and the words for what an interface says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import BusError


class OwnFrame(NamedTuple):
    """A frame of ours that the interface gives back: it was sent."""

    frame: CanFrame


class HostFrame(NamedTuple):
    """A frame that another socket of this host sent over the same interface."""

    frame: CanFrame


class ErrorState(Enum):
    """Error confinement of ISO 11898-1, with the warning level that controllers report on the way."""

    ACTIVE = auto()
    WARNING = auto()
    PASSIVE = auto()
    BUS_OFF = auto()


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What an interface reports about itself; what it does not say is None or false.

    `tec` and `rec` are the transmit and receive error counters; `overrun` frames were lost because we read too slowly.
    """

    state: ErrorState | None = None
    restarted: bool = False
    not_acknowledged: bool = False
    transmit_timeout: bool = False
    tec: int | None = None
    rec: int | None = None
    overrun: int = 0

    @property
    def counters(self) -> str:
        """The error counters as text, empty if they are not known."""
        return "" if self.tec is None and self.rec is None else f"TEC {self.tec}, REC {self.rec}"


Heard = CanFrame | OwnFrame | HostFrame | ErrorReport | BusError
"""A frame of others, one of ours, one of this host, a report, or why nothing could be read."""


class Echo(Enum):
    """Whether an interface gives our own frames back once they were sent."""

    NONE = auto()
    LEARNED = auto()  # only if its driver plays along: believed once the first one was seen
    LOSSY = auto()  # it does, but may lose some
    CERTAIN = auto()


class IdFilter(NamedTuple):
    """Frames with `(identifier ^ can_id) & mask == 0`, or all others if `inverted`.  Identifiers as in `CanFrame`."""

    can_id: int
    mask: int
    inverted: bool = False

    def admits(self, can_id: int) -> bool:
        """Whether an identifier passes."""
        return ((can_id ^ self.can_id) & self.mask == 0) is not self.inverted


class Driver(Protocol):
    """One open interface.

    `name` is python-can's name of its kind; `timing` is that of the wire, None if there is none; `fd` says whether it
    takes CAN FD frames; `echo` and `marks_echo` how own frames come back (unmarked ones look as if received);
    `reorders` whether a frame that is not bulk may overtake bulk ones inside; `user_filters` are those given at
    opening, of which one must admit a frame; `filters_ids` says whether `set_filters` does anything; `polls_state`
    whether `state` does.
    """

    name: str
    timing: BitTiming | None
    fd: bool
    echo: Echo
    marks_echo: bool
    reorders: bool
    user_filters: Sequence[IdFilter]
    filters_ids: bool
    polls_state: bool

    def fileno(self) -> int:
        """A file descriptor to wait on, or -1."""

    def write(self, frame: CanFrame, *, bulk: bool) -> bool:
        """Offer a frame; false if there is no room now.  Raises the BusError that it means if it fails."""

    def read(self, limit: int, wait_s: float) -> list[Heard]:
        """What was heard, up to `limit` pieces; waits up to `wait_s` seconds for the first."""

    def set_filters(self, filters: Sequence[IdFilter] | None) -> None:
        """Receive only what one of these admits, own frames included; everything if None.  Raises BusError."""

    def state(self) -> ErrorReport | None:
        """The controller's state now, if the interface can tell."""

    def restart(self) -> bool:
        """Have the controller leave bus-off.  False if it neither can be told to from here nor may do so by itself."""

    def close(self) -> None:
        """Release the interface."""
