"""What it is to show that an error is reached: do what a user or a plant would do, and have exactly this raised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ess_can.errors import EssCanError


@dataclass(frozen=True, slots=True)
class Reached:
    """`reach`, which is given an empty directory, raises `error`, and no kind of it."""

    error: type[EssCanError]
    reach: Callable[[Path], object]

    @property
    def name(self) -> str:
        """The error's stable name."""
        return self.error("").name
