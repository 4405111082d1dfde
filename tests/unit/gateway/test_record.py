"""The log of an upgrade, on an ordinary loop with a disk of its own pace, and in virtual time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from hashlib import sha256

import pytest

from ess_can.bus.clock import now
from ess_can.errors import HvClosed, JournalError, JournalUnwritable
from ess_can.gateway import record as module
from ess_can.gateway.estimate import Estimate, ExpectedPhase
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Decided, Estimated, Event, Noted, PhaseEntered
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.report import Report
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.journal.journal import Journal
from ess_can.sim.loop import run_virtual


class Disk:
    """A journal in memory whose every entry waits until it is let through; `entries` are those that were."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.journal = Journal.in_memory()
        self.open = threading.Event()
        self.open.set()
        self.journal.on_entry.append(self._on_entry)

    def _on_entry(self, entry: Entry) -> None:
        assert self.open.wait(10)
        self.entries.append(entry)

    def of(self, *kinds: Kind) -> list[tuple[Kind, Deed | None, str, bool | None, str]]:
        return [(e.kind, e.deed, e.node, e.ok, e.text) for e in self.entries if e.kind in kinds]


def begun(journal: Journal) -> bool:
    journal.begin("a release", b"", sha256(b"").digest(), "")
    return True


def log_on(disk: Disk, tell: Callable[[Event], None] = lambda _event: None) -> UpgradeLog:
    return UpgradeLog(disk.journal, Report(), tell)


def closes(journal: Journal) -> None:
    journal.end("done", "", "")


LOOPS = pytest.mark.parametrize("run", [asyncio.run, run_virtual], ids=["ordinary", "virtual"])
DEEDS = (Kind.INTENT, Kind.RESULT)


@LOOPS
def test_intent_before_and_result_after(run: Callable[..., None]) -> None:
    disk = Disk()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)
        async with log.doing(Deed.TRANSFER, "bmu1", "from 0"):
            assert disk.of(*DEEDS) == [(Kind.INTENT, Deed.TRANSFER, "bmu1", None, "from 0")]
        with pytest.raises(HvClosed):
            async with log.doing(Deed.VERIFY, "bmu1"):
                raise HvClosed("it is on")
        async with log.doing(Deed.REVERT, "bmu1") as deed:
            deed.failed("silent")
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what the block says before it fails is what counts
            async with log.doing(Deed.CONFIRM, "bmu1") as deed:
                deed.done()
                raise ZeroDivisionError
        await log.end(closes)

    run(work())
    assert disk.of(Kind.RESULT) == [
        (Kind.RESULT, Deed.TRANSFER, "bmu1", True, ""),
        (Kind.RESULT, Deed.VERIFY, "bmu1", False, "HV_CLOSED: it is on"),
        (Kind.RESULT, Deed.REVERT, "bmu1", False, "silent"),
        (Kind.RESULT, Deed.CONFIRM, "bmu1", True, ""),
    ]
    assert disk.entries[-1].kind is Kind.ENDED


@LOOPS
def test_notes_from_before_are_recorded_once_there_is_a_record(run: Callable[..., None]) -> None:
    disk, told = Disk(), list[Event]()

    async def work() -> None:
        log = log_on(disk, told.append)
        log.note("one")
        log.evidence("of nothing yet")
        log.note("two")
        await log.begin(begun)
        log.note("three")
        await log.end(closes)

    run(work())
    assert [entry.text for entry in disk.entries] == ["a release", "one", "two", "three", "done"]
    assert [event.text for event in told if isinstance(event, Noted)] == ["one", "two", "three"]


@LOOPS
def test_notes_of_what_was_never_begun_are_told_only(run: Callable[..., None]) -> None:
    disk, told = Disk(), list[Event]()

    async def work() -> None:
        log = log_on(disk, told.append)
        log.note("one")
        await log.begin(lambda _journal: False)
        log.note("two")
        await log.end(closes)

    run(work())
    assert disk.entries == []
    assert len(told) == 2


def test_nothing_is_done_before_its_intent_is_on_the_disk() -> None:
    disk, did = Disk(), list[str]()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)
        disk.open.clear()

        async def deed() -> None:
            async with log.doing(Deed.ACTIVATE, "bmu1"):
                did.append("done")

        task = asyncio.create_task(deed())
        await asyncio.wait({task}, timeout=0.05)
        assert did == []
        disk.open.set()
        await task
        assert did == ["done"]
        await log.end(closes)

    asyncio.run(work())


def test_a_cancellation_does_not_wait_for_the_disk() -> None:
    disk = Disk()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)

        async def deed() -> None:
            async with log.doing(Deed.TRANSFER, "bmu1"):
                disk.open.clear()
                await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(deed())
        await asyncio.wait({task}, timeout=0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        assert task.cancelled()  # and the disk still hangs
        disk.open.set()
        await log.end(closes)

    asyncio.run(work())
    assert disk.of(Kind.RESULT) == [(Kind.RESULT, Deed.TRANSFER, "bmu1", False, "interrupted")]


def test_what_is_cancelled_while_its_intent_is_written_was_not_begun() -> None:
    disk = Disk()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)
        disk.open.clear()

        async def deed() -> None:
            async with log.doing(Deed.ACTIVATE, "bmu1"):
                raise AssertionError("it was begun")

        task = asyncio.create_task(deed())
        await asyncio.wait({task}, timeout=0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        assert task.cancelled()
        disk.open.set()
        await log.end(closes)

    asyncio.run(work())
    assert disk.of(Kind.RESULT) == [(Kind.RESULT, Deed.ACTIVATE, "bmu1", False, "not begun")]


def test_a_disk_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DISK_S", 0.05)
    disk = Disk()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)
        disk.open.clear()
        with pytest.raises(JournalUnwritable, match="does not answer"):
            await log.doing(Deed.LOCK).__aenter__()
        log.settling()
        async with log.doing(Deed.HOLD_OPEN):  # safety first
            pass
        assert isinstance(log.error, JournalError)
        disk.open.set()
        await log.end(closes)

    asyncio.run(work())


def test_an_order_that_is_not_to_wait_does_not_wait_for_a_slow_disk_and_is_recorded_all_the_same() -> None:
    disk = Disk()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)
        log.settling()
        disk.open.clear()
        before = now()
        async with log.doing(Deed.HOLD_OPEN, at_once=True):
            assert now() - before < 5.0
        assert log.error is None
        disk.open.set()
        await log.end(closes)

    asyncio.run(work())
    assert [(entry.kind, entry.deed, entry.ok) for entry in disk.entries][-3:-1] == [
        (Kind.INTENT, Deed.HOLD_OPEN, None),
        (Kind.RESULT, Deed.HOLD_OPEN, True),
    ]


@LOOPS
def test_after_a_failure_nothing_is_done_but_settling(run: Callable[..., None]) -> None:
    did = list[str]()

    async def work() -> None:
        disk = Disk()

        def fail(_entry: Entry) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        log = log_on(disk)
        await log.begin(begun)
        disk.journal.on_entry.append(fail)
        log.note("the one that fails")
        with pytest.raises(JournalUnwritable):
            async with log.doing(Deed.ACTIVATE, "bmu1"):
                did.append("activated")
        log.settling()
        async with log.doing(Deed.HAND_BACK):
            did.append("handed back")
        await log.end(closes)
        assert isinstance(log.error, JournalUnwritable)

    run(work())
    assert did == ["handed back"]


def test_without_a_record_nothing_is_done() -> None:
    async def work() -> None:
        with pytest.raises(ValueError, match="nothing was begun"):
            log_on(Disk()).doing(Deed.LOCK)

    run_virtual(work())


@LOOPS
def test_a_beginning_that_fails(run: Callable[..., None]) -> None:
    def fails(_journal: Journal) -> bool:
        raise JournalUnwritable("no")

    async def work() -> None:
        log = log_on(Disk())
        with pytest.raises(JournalUnwritable):
            await log.begin(fails)
        assert isinstance(log.error, JournalUnwritable)
        await log.end(closes)

    run(work())


def test_what_is_told_is_recorded_too() -> None:
    disk, heard = Disk(), list[Event]()

    async def work() -> None:
        log = log_on(disk, heard.append)
        log.note("early")
        await log.begin(begun)
        log.enter(Phase.RAMP_DOWN, "because")
        log.note("so")
        log.evidence("measured")
        log.tell(Estimated(0.0, Estimate((ExpectedPhase(Phase.PROVE_HV_OFF, 7.5),), 4.25)))
        log.tell(Decided(0.0, "goes on"))
        assert log.phase is Phase.RAMP_DOWN
        await log.end(closes)

    run_virtual(work())
    assert [type(event) for event in heard] == [Noted, PhaseEntered, Noted, Estimated, Decided]
    texts = [entry.text for entry in disk.entries if entry.kind in (Kind.PHASE, Kind.NOTE, Kind.EVIDENCE)]
    expected = "expected: transfer 4.2 s, high voltage off 7.5 s"
    assert texts == ["early", "ramp-down (because)", "so", "measured", expected, "goes on"]


def test_what_is_cancelled_while_its_intent_waits_for_the_disk_is_not_written_at_all() -> None:
    disk = Disk()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)
        disk.open.clear()
        log.note("the disk is slow")

        async def deed() -> None:
            async with log.doing(Deed.ACTIVATE, "bmu1"):
                raise AssertionError("it was begun")

        task = asyncio.create_task(deed())
        await asyncio.wait({task}, timeout=0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        assert task.cancelled()
        disk.open.set()
        await log.end(closes)
        assert log.error is None

    asyncio.run(work())
    assert [entry.kind for entry in disk.entries] == [Kind.BEGAN, Kind.NOTE, Kind.ENDED]


def test_a_deed_that_is_dropped_without_its_end_has_no_result() -> None:
    """As when the process goes: nobody waits for it any more, and only the plant knows what became of it."""
    disk = Disk()

    async def work() -> None:
        log = log_on(disk)
        await log.begin(begun)
        deed = log.doing(Deed.TRANSFER, "bmu1")
        await deed.__aenter__()
        gone = GeneratorExit()
        await deed.__aexit__(GeneratorExit, gone, None)
        await log.end(closes)

    run_virtual(work())
    assert [entry.deed for entry in disk.entries if entry.kind is Kind.INTENT] == [Deed.TRANSFER]
    assert disk.of(Kind.RESULT) == []


@LOOPS
def test_the_first_failure_is_the_one_that_is_kept(run: Callable[..., None]) -> None:
    asked: list[str] = []

    async def work() -> None:
        log = log_on(Disk())
        await log.begin(begun)

        def fails(_journal: Journal) -> None:
            asked.append("written")
            raise JournalUnwritable("the disk is full")

        log.write_later(fails)
        for _ in range(2):
            with pytest.raises(JournalUnwritable, match="the disk is full"):
                await log.write(fails)
        log.write_later(fails)
        await log.end(closes)
        assert str(log.error) == "the disk is full"

    run(work())
    assert asked == ["written"]
