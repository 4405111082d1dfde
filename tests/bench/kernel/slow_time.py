"""A loop on which a second lasts several of the guest's, as an emulated processor is several times too slow.

Plant and gateway live on the same loop, so they agree on how long a second is.  Only the kernel's own time-outs are in
real seconds.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

FACTOR = 3.0


class _SlowSelector(selectors.EpollSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout * FACTOR)


class _SlowLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_SlowSelector())

    def time(self) -> float:
        return super().time() / FACTOR


def run_slowly(work: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`."""
    with asyncio.Runner(loop_factory=_SlowLoop) as runner:
        return runner.run(work)
