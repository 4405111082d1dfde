"""Loops that are late, as ordinary ones are."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

from ess_can.sim.loop import VirtualTimeLoop

Ts = TypeVarTuple("Ts")
GRAIN_S = 0.001


class CoarseLoop(VirtualTimeLoop):
    """Fires timers late, at whole milliseconds only, as a selector does."""

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return super().call_at(math.ceil(when / GRAIN_S) * GRAIN_S, callback, *args, context=context)


class StoppedLoop(VirtualTimeLoop):
    """Stands still when it is told to, as on a machine that is busy with something else."""

    def stand_still(self, seconds: float) -> None:
        """No timer fires for so long."""
        self._now += seconds
