"""The log of an upgrade: what is told to whoever listens, and what is on the disk before it is done.

Everything that changes the plant happens inside `UpgradeLog.doing`: its intent is in the journal, on the disk, before
the block begins, and what came of it is written when it ends.  The disk is never waited for where something is
cancelled: results, phases, evidence and notes are handed to the one worker that writes, in their order, so that what
was handed over before an intent is on the disk when that intent is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

from ess_can.bus.clock import now
from ess_can.errors import EssCanError, JournalError, JournalUnwritable
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Decided, Estimated, Event, Noted, OnProgress, PhaseEntered, never_failing
from ess_can.gateway.report import PhaseLog, Report
from ess_can.identity import NodeAddress
from ess_can.journal.entries import Deed
from ess_can.journal.journal import Journal

Job = Callable[[Journal], None]
"""Something that is written."""

_DISK_S = 20.0
"""Longer than this no intent is waited for: a disk that hangs is one that cannot be written."""
_COPY_S = 300.0
"""As long may keeping a copy of the upgrade file take."""
_NO_LONGER_S = 0.05
"""As long the intent of an order waits that is not to wait: a disk in order takes a few milliseconds."""


class Doing:
    """A deed under way, as ``async with``: its intent is on the disk when the block begins.

    It is taken for done when the block ends without an error, unless it `failed`.  With `at_once` a disk that is slow
    does not hold the block up: the intent is written as soon as it can be, before all that comes later.
    """

    def __init__(self, log: UpgradeLog, deed: Deed, node: str, text: str, *, at_once: bool) -> None:
        self._log = log
        self._deed = deed
        self._node = node
        self._text = text
        self._at_once = at_once
        self._seq: int | None = None
        self.ok: bool | None = None
        self._outcome = ""

    def done(self) -> None:
        """It was done, whatever becomes of the block."""
        self.ok = True

    def failed(self, why: str) -> None:
        """It was not done, though the block goes on."""
        self.ok, self._outcome = False, why

    async def __aenter__(self) -> Self:
        try:
            await self._log.write(self._intend, at_once=self._at_once)
        except BaseException:  # it may still be written: then it was not begun
            self.failed("not begun")
            self._log.write_later(self._result)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, GeneratorExit):  # nobody waits for us any more
            return
        if self.ok is None:
            self.ok, self._outcome = error is None, "" if error is None else _outcome(error)
        self._log.write_later(self._result)

    def _intend(self, journal: Journal) -> None:
        self._seq = journal.intent(self._deed, self._node, self._text)

    def _result(self, journal: Journal) -> None:
        if self._seq is not None:
            journal.result(self._seq, bool(self.ok), self._outcome)


class UpgradeLog:
    """Tells, times and records one upgrade.

    Nothing is recorded until `begin`, which then records the notes that were told before it.  `error` is the journal's
    first failure: nothing is written after it.  It ends the upgrade with the next intent; once `settling` began it does
    not any more, because leaving the plant safe counts for more than the record of it.
    """

    def __init__(self, journal: Journal, report: Report, on_progress: OnProgress) -> None:
        self.error: JournalError | None = None
        self._journal = journal
        self._phases = PhaseLog(report, now())
        self._listener = never_failing(on_progress)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._begun = False
        self._settling = False
        self._early_notes: list[str] = []

    # --- telling ------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Where the upgrade stands."""
        return self._phases.phase

    def enter(self, phase: Phase, detail: str = "") -> None:
        """The upgrade enters a phase.  Raises ValueError for a transition that the table does not have."""
        self._phases.enter(phase, now())
        self.tell(PhaseEntered(now(), phase, detail))

    def note(self, text: str) -> None:
        """Something that a person would want to know."""
        self.tell(Noted(now(), text))

    def tell(self, event: Event) -> None:
        """Tell whoever listens, and record what is worth it."""
        match event:
            case PhaseEntered(phase=phase, detail=detail):
                text = f"{phase.value} ({detail})" if detail else phase.value
                self.write_later(lambda journal: journal.phase(text))
            case Noted(text=text) | Decided(text=text):
                self._record_note(text)
            case Estimated(estimate=estimate):
                expected = f"expected: transfer {estimate.transfer_s:.1f} s, high voltage off {estimate.hv_off_s:.1f} s"
                self.write_later(lambda journal: journal.evidence(expected))
        self._listener(event)

    def _record_note(self, text: str) -> None:
        if self._begun:
            self.write_later(lambda journal: journal.note(text))
        else:
            self._early_notes.append(text)

    def evidence(self, text: str) -> None:
        """What a decision rests on."""
        self.write_later(lambda journal: journal.evidence(text))

    # --- deeds --------------------------------------------------------------------------------------

    def doing(self, deed: Deed, node: NodeAddress | str = "", text: str = "", *, at_once: bool = False) -> Doing:
        """Do something that changes the plant.  Entering it raises the journal's error, with nothing done, if it fails.

        `at_once` is for an order that only makes the plant safer: it does not wait for a disk that is slow.
        Raises ValueError unless an upgrade was begun: no record, no upgrade.
        """
        if not self._begun:
            raise ValueError("nothing was begun in the journal")
        return Doing(self, deed, str(node), text, at_once=at_once)

    # --- beginning and end --------------------------------------------------------------------------

    async def begin(self, opening: Callable[[Journal], bool]) -> None:
        """Have `opening` begin or resume an upgrade in the journal; if it says so everything is recorded from here on.

        Raises JournalError, or FileUnreadable for an upgrade file that changed.
        """

        def job() -> None:
            self._begun = opening(self._journal)

        try:
            await self._on_worker(job, _COPY_S)
        except JournalError as error:
            self.error = error
            raise
        if self._begun:
            early, self._early_notes = self._early_notes, []
            for text in early:
                self._record_note(text)

    def settling(self) -> None:
        """What is done from here on puts the plant into a safe state, with or without the journal."""
        self._settling = True

    async def end(self, closing: Job) -> None:
        """Have `closing` write the last word on the upgrade, if it began; then the disk is not used any more."""
        self._settling = True
        try:
            await self.write(closing)
        finally:
            self._begun = False
            self._worker.shutdown(wait=False)

    # --- the disk -----------------------------------------------------------------------------------

    async def write(self, job: Job, *, at_once: bool = False) -> None:
        """Write, and wait until it is on the disk.  Raises the journal's error unless the plant is being settled.

        `at_once` waits for `_NO_LONGER_S` at most, and leaves what is not written by then to the disk's own time.
        """
        if self.error is None and at_once:
            writing = asyncio.get_running_loop().run_in_executor(self._worker, self._attempt, job)
            await asyncio.wait({writing}, timeout=_NO_LONGER_S)
        elif self.error is None:
            try:
                await self._on_worker(partial(self._attempt, job), _DISK_S)
            except JournalUnwritable as slow:
                self.error = self.error or slow
        if self.error is not None and not self._settling:
            raise self.error

    def write_later(self, job: Job) -> None:
        """Write when it is this job's turn; nobody waits for it."""
        if self._begun and self.error is None:
            asyncio.get_running_loop().run_in_executor(self._worker, self._attempt, job)

    def _attempt(self, job: Job) -> None:
        """On the worker.  The first failure is kept, and nothing is tried after it."""
        if self.error is not None or not self._begun:
            return
        try:
            job(self._journal)
        except JournalError as error:
            self.error = error
        except Exception as bug:
            self.error = JournalUnwritable("the journal cannot be written", why=f"{type(bug).__name__}: {bug}")

    async def _on_worker(self, work: Callable[[], None], within_s: float) -> None:
        writing = asyncio.get_running_loop().run_in_executor(self._worker, work)
        if writing.done():  # in virtual time
            writing.result()
            return
        try:
            async with asyncio.timeout(within_s):
                await writing
        except TimeoutError as error:
            raise JournalUnwritable("the journal's disk does not answer", why=f"for {within_s:g} s") from error


def _outcome(error: BaseException) -> str:
    if isinstance(error, EssCanError):
        return f"{error.name}: {error}"
    return "interrupted" if isinstance(error, asyncio.CancelledError) else f"{type(error).__name__}: {error}"
