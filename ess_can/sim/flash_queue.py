"""Flash work of one bank, step after step: each starts when the one before is done, and is read back when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ess_can.sim.flash import Flash, FlashError


@dataclass(frozen=True, slots=True)
class EraseStep:
    """Erase one sector."""

    sector: int


@dataclass(frozen=True, slots=True)
class ProgramStep:
    """Program whole units at a byte offset of the bank; after it, `verified_offset` bytes of the image are good."""

    offset: int
    data: bytes
    verified_offset: int


Step = EraseStep | ProgramStep


class FlashQueue:
    """Runs steps on `bank`, in time that the caller supplies.

    `on_done` is called for each step that was read back well.  The first error drops the rest and stays in `failure`
    until `clear_failure`.
    """

    def __init__(self, flash: Flash, bank: int, on_done: Callable[[Step], None]) -> None:
        self.failure: FlashError | None = None
        self._flash = flash
        self._bank = bank
        self._on_done = on_done
        self._running: Step | None = None
        self._done_at = 0.0
        self._waiting: deque[Step] = deque()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._running is None

    def free_at(self, now: float) -> float:
        """When all that was given so far will be done: `now` if nothing is under way."""
        if self._running is None:
            return now
        at = self._done_at
        for step in self._waiting:
            at += self._duration(step)
        return at

    def add(self, steps: Iterable[Step], now: float) -> None:
        """Have these steps done after those that are under way."""
        self._waiting.extend(steps)
        if self._running is None:
            self._start_next(now)

    def advance(self, now: float) -> None:
        """Let happen what has happened by `now`."""
        while self._running is not None and self._done_at <= now:
            step, self._running = self._running, None
            error = self._flash.complete(self._bank, self._done_at) or self._read_back(step)
            if error is not None:
                self._fail(error)
                return
            self._on_done(step)
            self._start_next(self._done_at)

    def drop_waiting(self) -> None:
        """Forget the steps that have not begun; the one under way cannot be stopped."""
        self._waiting.clear()

    def clear_failure(self) -> None:
        """Begin anew after an error."""
        self.failure = None

    def _start_next(self, now: float) -> None:
        if not self._waiting:
            return
        step = self._waiting.popleft()
        started = (
            self._flash.start_erase(self._bank, step.sector, now)
            if isinstance(step, EraseStep)
            else self._flash.start_program(self._bank, step.offset, step.data, now)
        )
        if isinstance(started, FlashError):
            self._fail(started)
            return
        self._running, self._done_at = step, started

    def _read_back(self, step: Step) -> FlashError | None:
        if isinstance(step, EraseStep):
            size = self._flash.geometry.sector_size
            return None if self._flash.is_blank(self._bank, step.sector * size, size) else FlashError.ERASE_FAILED
        content = self._flash.read(self._bank, step.offset, len(step.data))
        if isinstance(content, FlashError):
            return content
        return None if content == step.data else FlashError.PROGRAM_FAILED

    def _fail(self, error: FlashError) -> None:
        self.failure = error
        self._waiting.clear()

    def _duration(self, step: Step) -> float:
        if isinstance(step, EraseStep):
            return self._flash.timing.sector_erase_s
        return self._flash.program_duration(len(step.data))
