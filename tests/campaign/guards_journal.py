"""Guards of the journal: what is on record before, and after, everything that is done."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import ess_can.journal.kept_files as kept_files
import ess_can.journal.lock as lock
import ess_can.journal.schema as schema
from ess_can.campaign.monitors import Invariant
from ess_can.errors import EssCanError
from ess_can.gateway.record import Doing, UpgradeLog
from ess_can.journal.entries import Entry
from ess_can.journal.journal import Journal
from ess_can.journal.store import DATABASE, Chain
from tests.campaign.guard import Guard, Off, Run, around, both, by, refuses, require, script, upgrade
from tests.unit.journal.rig import FILE, SHA256, WallClock, begin, whole_upgrade


def records(text: str, act: Callable[[Path], None]) -> Run:
    """Something is done with a journal in a directory."""

    def in_directory() -> None:
        with tempfile.TemporaryDirectory() as directory:
            act(Path(directory))

    return script(text, in_directory)


def open_journal(directory: Path) -> Journal:
    """As the gateway does."""
    return Journal.open(directory, WallClock())


def write_behind(directory: Path, *statements: str) -> None:
    """Change a database as somebody can who has the right to write it."""
    connection = sqlite3.connect(directory / DATABASE)
    triggers = list(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.commit()
    connection.close()


def written(directory: Path) -> None:
    """A journal with a whole upgrade."""
    journal = open_journal(directory)
    whole_upgrade(journal)
    journal.close()


def _changed(directory: Path) -> None:
    written(directory)
    write_behind(directory, "UPDATE entries SET text = 'nothing' WHERE seq = 3")
    refuses("a journal with an entry that was changed", lambda: open_journal(directory).close(), "AUDIT_BROKEN")


def _removed(directory: Path) -> None:
    written(directory)
    write_behind(directory, "DELETE FROM entries WHERE seq = 3")
    refuses("a journal with a gap", lambda: open_journal(directory).close(), "AUDIT_BROKEN")


def _by_sql(directory: Path) -> None:
    written(directory)
    connection = sqlite3.connect(directory / DATABASE)
    try:
        connection.execute("UPDATE entries SET text = 'nothing' WHERE seq = 3")
        changed = True
    except sqlite3.Error:
        changed = False
    connection.close()
    require(not changed, "an entry can be changed")


def _two(directory: Path) -> None:
    first = open_journal(directory)
    try:
        refuses("a second writer", lambda: open_journal(directory).close(), "LOCKED")
    finally:
        first.close()


def _kept(directory: Path) -> None:
    journal = open_journal(directory)
    begin(journal)
    path = next((directory / "files").iterdir())
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    try:
        refuses("a kept file that was changed", lambda: journal.kept_file("1"), "JOURNAL_CORRUPT")
    finally:
        journal.close()


def _copied(directory: Path) -> None:
    journal = open_journal(directory)
    try:
        other = hashlib.sha256(FILE + b"x").digest()
        require(other != SHA256, "the same")
        refuses("a file that changed after its check", lambda: journal.begin("x", FILE, other, ""), "FILE_UNREADABLE")
    finally:
        journal.close()


_NO_TRIGGERS: Final = both(
    by(schema.migrate, "__defaults__", ((schema.STEPS[0][:1],),)),
    by(schema.check, "__defaults__", ((schema.STEPS[0][:1],),)),
)


async def _enters(doing: Doing) -> Doing:
    return doing


async def _leaves(*_: object) -> None:
    """No result."""


def _late(original: Callable[..., object]) -> object:
    async def enter(doing: Doing) -> Doing:
        from asyncio import get_running_loop

        get_running_loop().call_later(0.2, doing._log.write_later, doing._intend)
        return doing

    return enter


def _goes_on(original: Callable[..., object]) -> object:
    async def write(log: UpgradeLog, job: object, *, at_once: bool = False) -> None:
        try:
            await original(log, job, at_once=at_once)  # type: ignore[misc]
        except EssCanError:
            return

    return write


def _believes_chain(original: Callable[..., object]) -> object:
    def take(chain: Chain, row: tuple[object, ...]) -> Entry:
        from ess_can.journal.store import parse

        entry = parse(row)
        chain.history.take(entry)
        chain.length, chain.head = chain.length + 1, entry.digest
        return entry

    return take


def journal_guard(name: str, where: str, prevents: str, off: Off, run: Run, seen: str = "is not refused") -> Guard:
    """A guard of the journal alone."""
    return Guard(f"journal, {name}", where, prevents, off, run, seen)


GUARDS: Final = (
    Guard(
        "journal, intent",
        "gateway.record:Doing.__aenter__",
        "a deed of which nobody can know after a crash",
        by(Doing, "__aenter__", _enters),
        upgrade(),
        Invariant.RECORDED,
    ),
    Guard(
        "journal, intent before the deed",
        "gateway.record:Doing.__aenter__",
        "a deed that a crash leaves without a record",
        around(Doing, "__aenter__", _late),
        upgrade(),
        Invariant.RECORDED,
    ),
    Guard(
        "journal, result",
        "gateway.record:Doing.__aexit__",
        "not knowing what came of a deed",
        by(Doing, "__aexit__", _leaves),
        upgrade(),
        Invariant.RECORDED,
    ),
    Guard(
        "journal, no record, no upgrade",
        "gateway.record:UpgradeLog.write",
        "going on without a record",
        around(UpgradeLog, "write", _goes_on),
        upgrade("gateway:disk%20:error"),
        Invariant.RECORDED,
    ),
    journal_guard(
        "chain",
        "journal.store:Chain.take",
        "a history that was rewritten",
        around(Chain, "take", _believes_chain),
        records("a journal of which an entry was changed", _changed),
    ),
    journal_guard(
        "no gap",
        "journal.store:Chain.take",
        "a history from which something was taken",
        around(Chain, "take", _believes_chain),
        records("a journal of which an entry is gone", _removed),
    ),
    journal_guard(
        "entries stay",
        "journal.schema:STEPS",
        "changing an entry by mistake",
        _NO_TRIGGERS,
        records("an entry is changed by SQL", _by_sql),
        "an entry can be changed",
    ),
    journal_guard(
        "one writer",
        "journal.lock:ProcessLock",
        "two gateways that write one journal",
        by(lock, "lock_file", lambda _: True),
        records("a journal is opened twice", _two),
    ),
    journal_guard(
        "kept file",
        "journal.kept_files:DiskFiles.open",
        "going on with another file than it began with",
        by(kept_files, "_hash", lambda _: SHA256),
        records("a kept file is changed", _kept),
    ),
    journal_guard(
        "copy of what was checked",
        "journal.kept_files:_require_same",
        "keeping another file than was checked",
        by(kept_files, "_require_same", lambda *_: None),
        records("a file changes after its check", _copied),
    ),
)
