"""What people are told of a bus that fails and comes back while a command goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ess_can.errors import BusError

_SETTLED_S = 0.25
"""After an error frames from before it may still come: only later ones show that the bus is back."""


class BusNews:
    """Tells each outage once, and its end, by `say`.  Warnings (`ends_use` false) are told once in between.

    Times are seconds of the running loop.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()
        self._failed_at: float | None = None

    def on_error(self, error: BusError, now: float) -> None:
        """The bus reports an error."""
        if error.ends_use:
            self._failed_at = now
        if error.name not in self._told:
            self._told.add(error.name)
            self._say(f"warning {error.name}: {error}")

    def on_frame(self, now: float) -> None:
        """A frame went over the bus."""
        if self._failed_at is not None and now - self._failed_at > _SETTLED_S:
            self._failed_at = None
            self._told.clear()
            self._say("The bus is back.")
