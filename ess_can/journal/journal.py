"""The journal of the gateway: intent before, and result after, everything that changes the plant."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from ess_can.errors import EssCanError, JournalError, JournalUnwritable, NoSuchUpgrade, NothingToResume
from ess_can.journal.entries import Deed, Entry, Kind, UpgradeRecord, storable
from ess_can.journal.failures import not_as_written, told_as_ours
from ess_can.journal.history import BeganFacts, EndedFacts
from ess_can.journal.kept_files import Content, DiskFiles, KeptFiles, MemoryFiles, size_of, sync_directory
from ess_can.journal.lock import ProcessLock
from ess_can.journal.reader import JournalReader
from ess_can.journal.store import DATABASE, IN_MEMORY, Chain, Connect, add_all, open_for_writing, rows

Clock = Callable[[], datetime]
"""The wall clock, with a time zone.  Nothing depends on it: the order is that of `Entry.seq`."""

LOCK: Final = "lock"
FILES: Final = "files"
_NO_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
SUPERSEDED: Final = "superseded"
"""How an upgrade ends whose place one of another file takes."""
MARGIN: Final = 16 * 1024 * 1024
"""Bytes that must stay free beyond what is asked for: an upgrade's entries and the database's log."""


class Journal:
    """One writer's view of a journal.  Every call is short and synchronous; an entry is on the disk when it returns.

    After a write that failed, nothing more is written: what follows would hide the gap.  All of `on_entry` are called
    with each entry once it is on the disk, in the caller's thread, and all of `on_failure` after the write that failed.
    Besides the errors named, everything raises ValueError if called in an order that makes no sense, such as an intent
    without an upgrade.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        files: KeptFiles,
        clock: Clock,
        directory: Path | None,
        lock: ProcessLock | None,
    ) -> None:
        """For `open` and `in_memory`.  Raises AuditBroken, sqlite3.Error."""
        self.on_entry: list[Callable[[Entry], None]] = []
        self.on_failure: list[Callable[[], None]] = []
        self.directory = directory
        self._connection = connection
        self._files = files
        self._clock = clock
        self._lock = lock
        self._failed: JournalError | None = None
        self._chain = Chain()
        self._upgrade = ""
        for row in rows(connection):
            try:
                self._chain.take(row)
            except ValueError as error:
                raise not_as_written(self._place, str(error)) from error
        self._tidy()

    @classmethod
    def open(cls, directory: Path, clock: Clock, *, connect: Connect = sqlite3.connect) -> Self:
        """The journal in `directory`, which is made if it does not exist.  What a crash left is recovered.

        Raises JournalUnwritable, JournalCorrupt, AuditBroken, JournalVersionUnknown, Locked.
        """
        with told_as_ours(str(directory)):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, parents=True)
                sync_directory(directory.parent)
            lock = ProcessLock(directory / LOCK)
            try:
                database = directory / DATABASE
                os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
                connection = open_for_writing(str(database), connect)
                try:
                    files = DiskFiles(directory / FILES)
                    sync_directory(directory)
                    return cls(connection, files, clock, directory, lock)
                except BaseException:
                    with suppress(sqlite3.Error):
                        connection.close()
                    raise
            except BaseException:
                lock.release()
                raise

    @classmethod
    def in_memory(cls, clock: Clock = lambda: _NO_TIME) -> Self:
        """A journal that goes with the process, for simulations."""
        return cls(open_for_writing(IN_MEMORY, sqlite3.connect), MemoryFiles(), clock, None, None)

    @property
    def head(self) -> str:
        """The digest of the last entry, in hexadecimal.  Kept elsewhere, it shows whether any before was changed."""
        return self._chain.head.hex()

    def require_room(self, size: int) -> None:
        """Raises JournalUnwritable unless `size` bytes and a margin fit on the disk."""
        if self.directory is None:
            return
        with told_as_ours(self._place):
            free = shutil.disk_usage(self.directory).free
        if free < size + MARGIN:
            raise JournalUnwritable(
                f"the disk of the journal {self.directory} is full",
                why=f"{free // 1024} KiB are free, an upgrade needs {(size + MARGIN) // 1024}",
            )

    # --- upgrades -------------------------------------------------------------------------------

    def begin(
        self, release: str, file: Content | Path | bytes, sha256: bytes, options: str, *, supersedes: str = ""
    ) -> UpgradeRecord:
        """A new upgrade, with a copy of its upgrade file, whose bytes were checked and have the hash `sha256`.

        If it `supersedes` the unfinished one, that ends in the same transaction: at no instant nobody answers for what
        that one did to the plant.  Until the new one did the like, `last` and `UpgradeRecord.found` speak of the old.

        Raises JournalUnwritable, FileUnreadable if the file is not what was checked, JournalError if another upgrade is
        unfinished.
        """
        self._require_working()
        history = self._chain.history
        if history.unfinished is not None and history.unfinished.id != supersedes:
            raise JournalError(
                f"upgrade {history.unfinished.id} has not ended",
                why=f"it began at {history.unfinished.began_at:%Y-%m-%d %H:%M} UTC, with {history.unfinished.release}",
                remedy="Finish it with `ess-can resume`, or `ess-can resume --roll-back`.",
            )
        self.require_room(size_of(file))
        upgrade = history.next_id
        self._files.keep(upgrade, file, sha256)
        facts = BeganFacts(storable(release), sha256, storable(options), supersedes)
        began = self._draft(upgrade, Kind.BEGAN, text=release, facts=facts.text())
        if supersedes:
            self._commit(self._superseded(supersedes), began)
            self._tidy()
        else:
            self._commit(began)
        self._upgrade = upgrade
        return self._chain.history.upgrades[upgrade]

    def supersede(self, upgrade: str) -> None:
        """The unfinished upgrade ends: one of another file takes its place, and has nothing to do.

        Raises NoSuchUpgrade, NothingToResume, JournalUnwritable.
        """
        self._require_unfinished(upgrade)
        self._commit(self._superseded(upgrade))
        self._tidy()

    def unfinished(self) -> UpgradeRecord | None:
        """The upgrade that began and did not end."""
        return self._chain.history.unfinished

    def resume(self, upgrade: str) -> UpgradeRecord:
        """Go on with the unfinished upgrade.  Raises NoSuchUpgrade, NothingToResume, JournalUnwritable."""
        self._require_unfinished(upgrade)
        self.require_room(0)
        self._upgrade = upgrade
        self._write(Kind.RESUMED)
        return self._chain.history.upgrades[upgrade]

    def kept_file(self, upgrade: str) -> Content:
        """The copy of an unfinished upgrade's file, with the hash that it had (an `ImageContent`).

        Raises NoSuchUpgrade, JournalCorrupt, JournalUnwritable.
        """
        record = self._chain.history.upgrades.get(upgrade)
        if record is None:
            raise NoSuchUpgrade(f"the journal has no upgrade {upgrade}")
        return self._files.open(upgrade, record.file_sha256)

    def end(self, result: str, error: str, report: str) -> None:
        """The upgrade came to its end; its kept file goes.  `error` is its name or empty, `report` JSON text."""
        self._write(
            Kind.ENDED, text=result, facts=EndedFacts(storable(result), storable(error), storable(report)).text()
        )
        self._tidy()

    # --- entries --------------------------------------------------------------------------------

    def intent(self, deed: Deed, node: str = "", text: str = "") -> int:
        """What will be done now.  Returns the `seq` that its result answers.  Raises JournalUnwritable."""
        return self._write(Kind.INTENT, deed=deed, node=node, text=text).seq

    def result(self, seq: int, ok: bool, text: str = "") -> None:
        """What became of the intent `seq`.  Raises JournalUnwritable."""
        intent = self._chain.history.intent(seq)
        self._write(Kind.RESULT, deed=intent.deed, node=intent.node, text=text, ok=ok, answers=seq)

    def found(self, text: str) -> None:
        """How high voltage was connected before.  Raises JournalUnwritable."""
        self._write(Kind.FOUND, text=text)

    def phase(self, text: str) -> None:
        """The upgrade entered a phase.  Raises JournalUnwritable."""
        self._write(Kind.PHASE, text=text)

    def evidence(self, text: str) -> None:
        """What a decision rests on.  Raises JournalUnwritable."""
        self._write(Kind.EVIDENCE, text=text)

    def note(self, text: str) -> None:
        """Anything else worth knowing.  Raises JournalUnwritable."""
        self._write(Kind.NOTE, text=text)

    def open_intents(self) -> list[Entry]:
        """What the unfinished upgrade intended and has no result of, oldest first."""
        return list(self._chain.history.open_intents.values())

    def last(self, deed: Deed) -> Entry | None:
        """The unfinished upgrade's newest entry about `deed`: its INTENT, or the RESULT once there is one.

        See `begin` for one that supersedes another.
        """
        return self._chain.history.last(deed)

    def reader(self) -> JournalReader:
        """What was written so far, for those who only look."""
        if self.directory is None:
            return JournalReader(self._connection, self._place, ExitStack())
        return JournalReader.open(self.directory)

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Let others have it.  Nothing can be written any more; what was read stays."""
        self._stop("it was closed")
        if self.directory is not None:
            with suppress(sqlite3.Error):  # all that counts is on the disk already
                self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def survivor(self) -> Journal:
        """For simulations: what the next process opens if this one is killed now.  This one is of no use any more."""
        self.close()
        if self.directory is None:
            self._roll_back()
            return Journal(self._connection, self._files, self._clock, None, None)
        return Journal.open(self.directory, self._clock)

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return IN_MEMORY if self.directory is None else str(self.directory)

    def _require_unfinished(self, upgrade: str) -> None:
        history = self._chain.history
        if upgrade not in history.upgrades:
            raise NoSuchUpgrade(f"the journal has no upgrade {upgrade}")
        if history.unfinished is None or history.unfinished.id != upgrade:
            raise NothingToResume(f"upgrade {upgrade} has ended", why=history.upgrades[upgrade].result)

    def _superseded(self, upgrade: str) -> Entry:
        return self._draft(upgrade, Kind.ENDED, text=SUPERSEDED, facts=EndedFacts(SUPERSEDED, "", "").text())

    def _write(
        self,
        kind: Kind,
        *,
        deed: Deed | None = None,
        node: str = "",
        text: str = "",
        ok: bool | None = None,
        answers: int | None = None,
        facts: str = "",
    ) -> Entry:
        draft = self._draft(self._upgrade, kind, deed=deed, node=node, text=text, ok=ok, answers=answers, facts=facts)
        return self._commit(draft)

    def _draft(
        self,
        upgrade: str,
        kind: Kind,
        *,
        deed: Deed | None = None,
        node: str = "",
        text: str = "",
        ok: bool | None = None,
        answers: int | None = None,
        facts: str = "",
    ) -> Entry:
        """An entry that has no place in the chain yet."""
        return Entry(
            seq=0,
            upgrade=upgrade,
            at=self._clock(),
            kind=kind,
            deed=deed,
            node=storable(node),
            text=storable(text),
            ok=ok,
            answers=answers,
            facts=facts,
        )

    def _commit(self, *drafts: Entry) -> Entry:
        """Write one entry, or several in one transaction, and give the last."""
        self._require_working()
        head, entries = self._chain.head, list[Entry]()
        history = self._chain.history if len(drafts) == 1 else self._chain.history.copy()
        for draft in drafts:
            numbered = replace(draft, seq=self._chain.length + 1 + len(entries))
            entry = replace(numbered, digest=numbered.chained(head))
            history.check(entry)
            if len(drafts) > 1:
                history.take(entry)
            head = entry.digest
            entries.append(entry)
        try:
            with told_as_ours(self._place):
                add_all(self._connection, entries)
        except EssCanError as error:
            self._stop(f"a write failed: {error.why}")
            for told_of_it in self.on_failure:
                told_of_it()
            raise
        for entry in entries:
            self._chain.add(entry)
        for entry in entries:
            for told in self.on_entry:
                told(entry)
        return entries[-1]

    def _roll_back(self) -> None:
        """What a process that is gone had begun to write."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _require_working(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _stop(self, why: str) -> None:
        if self._failed is None:
            self._failed = JournalUnwritable(f"the journal {self._place} is not written any more", why=why)

    def _tidy(self) -> None:
        """Remove the kept files of upgrades that ended, and what a crash left half copied."""
        unfinished = self._chain.history.unfinished
        self._files.keep_only(set() if unfinished is None else {unfinished.id})
