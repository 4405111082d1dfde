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
    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout * self._factor)


class _SlowLoop(asyncio.SelectorEventLoop):
    def __init__(self, factor: float) -> None:
        super().__init__(_SlowSelector(factor))
        self._factor = factor

    def time(self) -> float:
        return super().time() / self._factor


def run_slowly(work: Coroutine[Any, Any, T], factor: float = FACTOR) -> T:
    """Like `asyncio.run`, with seconds that last `factor` of the guest's."""
    with asyncio.Runner(loop_factory=lambda: _SlowLoop(factor)) as runner:
        return runner.run(work)
