"""Flash work of one bank: sectors are erased ahead of the data, and each step is read back when it ends.

Whenever the flash is free it programs what is there if its sector is erased, else erases the next dirty sector.  The
program step that completes the image waits until no dirty sector is left: a complete image lies in a clean slot,
whenever power is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from ess_can.sim.flash import Flash, FlashError


@dataclass(frozen=True, slots=True)
class EraseStep:
    """Erase one sector."""

    sector: int


@dataclass(frozen=True, slots=True)
class ProgramStep:
    """Program whole units at a byte offset of the bank; after it, `verified_offset` bytes of the image are good.

    `needs` is the first sector that may still be dirty when it begins.
    """

    offset: int
    data: bytes
    verified_offset: int
    needs: int


Step = EraseStep | ProgramStep


class FlashQueue:
    """Works on `bank`, in time that the caller supplies.

    `on_done` is called for each step that was read back well.  The first error drops the rest and stays in `failure`
    until `clear_failure`.  Before each step `may_begin` is asked, with the time at which it is looked at; once it says
    no, all that waits is dropped and `on_stopped` called.
    """

    def __init__(
        self,
        flash: Flash,
        bank: int,
        on_done: Callable[[Step], None],
        *,
        may_begin: Callable[[float], bool] = lambda _now: True,
        on_stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self.failure: FlashError | None = None
        self._may_begin = may_begin
        self._on_stopped = on_stopped
        self._flash = flash
        self._bank = bank
        self._on_done = on_done
        self._running: Step | None = None
        self._done_at = 0.0
        self._programs: deque[ProgramStep] = deque()
        self._dirty: deque[int] = deque()
        self._held = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._running is None

    @property
    def held_bytes(self) -> int:
        """Data that is in RAM because it is not programmed yet, a step under way included."""
        return self._held

    def free_at(self, now: float) -> float:
        """When the step under way will be done: `now` if nothing is."""
        return now if self._running is None else self._done_at

    def done_at(self, now: float) -> float:
        """When all that was given so far will be done: `now` if nothing is under way."""
        free_at = self.free_at(now)
        return max((done_at for _, done_at in self._forecast(free_at)), default=free_at)

    def held_at_most(self, limit: int, now: float) -> float:
        """When no more than `limit` bytes will be held, if nothing is added; `now` if that is so already.

        If it never comes to that, when all is done.
        """
        held = self._held
        if held <= limit:
            return now
        at = self.free_at(now)
        if isinstance(self._running, ProgramStep):
            held -= len(self._running.data)
        for step, done_at in self._forecast(at):
            if held <= limit:
                break
            at = done_at
            if isinstance(step, ProgramStep):
                held -= len(step.data)
        return at

    def erase(self, sectors: Iterable[int], now: float) -> None:
        """Have these dirty sectors, in rising order, erased while nothing can be programmed."""
        self._dirty.extend(sectors)
        self._start_next(now, now)

    def program(self, steps: Iterable[ProgramStep], now: float) -> None:
        """Have these steps done in their order, each once its sectors are erased."""
        for step in steps:
            self._programs.append(step)
            self._held += len(step.data)
        self._start_next(now, now)

    def advance(self, now: float) -> None:
        """Let happen what has happened by `now`."""
        while self._running is not None and self._done_at <= now:
            step, self._running = self._running, None
            error = self._flash.complete(self._bank, self._done_at) or self._read_back(step)
            if error is not None:
                self._fail(error)
                return
            if isinstance(step, ProgramStep):
                self._held -= len(step.data)
            self._on_done(step)
            self._start_next(self._done_at, now)

    def drop_waiting(self) -> None:
        """Forget the steps that have not begun; the one under way cannot be stopped."""
        self._programs.clear()
        self._dirty.clear()
        self._held = len(self._running.data) if isinstance(self._running, ProgramStep) else 0

    def clear_failure(self) -> None:
        """Begin anew after an error."""
        self.failure = None

    def _start_next(self, begin_at: float, now: float) -> None:
        """Begin the next step as of `begin_at`, if it may begin by what is known at `now`."""
        if self._running is not None:
            return
        step = next(self._steps(), None)
        if step is None:
            return
        if not self._may_begin(now):
            self.drop_waiting()
            self._on_stopped()
            return
        if isinstance(step, EraseStep):
            self._dirty.popleft()
            started = self._flash.start_erase(self._bank, step.sector, begin_at)
        else:
            self._programs.popleft()
            started = self._flash.start_program(self._bank, step.offset, step.data, begin_at)
        if isinstance(started, FlashError):
            self._fail(started)
            return
        self._running, self._done_at = step, started

    def _steps(self) -> Iterator[Step]:
        """What waits, in the order in which it will be done if nothing is added."""
        dirty = 0
        for step in self._programs:
            for sector in islice(self._dirty, dirty, None):
                if sector >= step.needs:
                    break
                dirty += 1
                yield EraseStep(sector)
            yield step
        for sector in islice(self._dirty, dirty, None):
            yield EraseStep(sector)

    def _forecast(self, at: float) -> Iterator[tuple[Step, float]]:
        """The waiting steps, and when each will be done if the first begins `at`."""
        for step in self._steps():
            at += self._duration(step)
            yield step, at

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
        self.drop_waiting()

    def _duration(self, step: Step) -> float:
        if isinstance(step, EraseStep):
            return self._flash.timing.sector_erase_s
        return self._flash.program_duration(len(step.data))
