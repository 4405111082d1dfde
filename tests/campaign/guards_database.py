"""Guards of the journal's database: what is not opened, not begun, and not written."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from unittest.mock import patch

import ess_can.journal.journal as journal_module
import ess_can.journal.schema as schema
from ess_can.errors import EssCanError
from ess_can.journal.entries import Entry
from ess_can.journal.journal import Journal
from ess_can.journal.store import DATABASE, add
from tests.campaign.guard import around, by, first, refuses, require
from tests.campaign.guards_journal import journal_guard, open_journal, records, write_behind, written
from tests.unit.journal.rig import FILE, SHA256, begin, failing, fault, opened


def _full(directory: Path) -> None:
    journal = open_journal(directory)
    usage = shutil.disk_usage(directory)._replace(free=1024)
    try:
        with patch.object(shutil, "disk_usage", lambda _: usage):
            refuses("an upgrade on a full disk", lambda: begin(journal), "JOURNAL_UNWRITABLE")
    finally:
        journal.close()


def _newer(directory: Path) -> None:
    written(directory)
    write_behind(directory, "PRAGMA user_version = 99")
    refuses("a journal of a newer version", lambda: open_journal(directory).close(), "JOURNAL_VERSION_UNKNOWN")


def _foreign(directory: Path) -> None:
    connection = sqlite3.connect(directory / DATABASE)
    connection.execute("CREATE TABLE someone (name TEXT)")
    connection.commit()
    connection.close()
    with suppress(EssCanError):
        open_journal(directory).close()
    connection = sqlite3.connect(directory / DATABASE)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    connection.close()
    require(names == ["someone"], "somebody else's database is changed")


def _without_trigger(directory: Path) -> None:
    written(directory)
    connection = sqlite3.connect(directory / DATABASE)
    connection.execute("DROP TRIGGER entries_stay")
    connection.commit()
    connection.close()
    refuses("a journal whose tables were changed", lambda: open_journal(directory).close(), "JOURNAL_CORRUPT")


def _after_failure(directory: Path) -> None:
    failing_now: list[sqlite3.OperationalError] = []

    def fails(statement: str) -> Exception | None:
        return failing_now.pop() if failing_now and statement.startswith("INSERT") else None

    journal = opened(directory, failing(fails))
    begin(journal)
    failing_now.append(fault("disk I/O error", None))
    try:
        refuses("a write that failed", lambda: journal.note("lost"), "JOURNAL_UNWRITABLE")
        refuses("a write after one that failed", lambda: journal.note("after it"), "JOURNAL_UNWRITABLE")
    finally:
        journal.close()


def _half_superseded(directory: Path) -> None:
    count = 0

    def fails(statement: str) -> Exception | None:
        nonlocal count
        count += statement.startswith("INSERT")
        return fault("disk I/O error", None) if count == 3 else None

    journal = opened(directory, failing(fails))
    begin(journal)
    with suppress(EssCanError):
        journal.begin("another", FILE, SHA256, "", supersedes="1")
    journal.close()
    journal = open_journal(directory)
    left = journal.unfinished()
    journal.close()
    require(left is not None, "nobody answers for what an upgrade left")


def _two_begun(directory: Path) -> None:
    journal = open_journal(directory)
    begin(journal)
    try:
        refuses("a second upgrade beside one that has not ended", lambda: begin(journal), "JOURNAL_ERROR")
    finally:
        journal.close()


def _any_version(original: Callable[..., object]) -> object:
    def version(*args: object) -> object:
        try:
            return original(*args)
        except EssCanError as error:
            if error.name == "JOURNAL_VERSION_UNKNOWN":
                return len(schema.STEPS)
            raise

    return version


def _any_database(original: Callable[..., object]) -> object:
    def version(*args: object) -> object:
        try:
            return original(*args)
        except EssCanError as error:
            if error.name == "JOURNAL_CORRUPT":
                return 0
            raise

    return version


def _one_by_one(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    for entry in entries:
        add(connection, entry)


def _ends_silently(journal: Journal, *_: object) -> None:
    journal._chain.history._unfinished = ""


GUARDS: Final = (
    journal_guard(
        "room on the disk",
        "journal.journal:Journal.require_room",
        "an upgrade whose record ends in the middle because the disk is full",
        by(Journal, "require_room", lambda *_: None),
        records("an upgrade begins on a full disk", _full),
    ),
    journal_guard(
        "unknown version",
        "journal.schema:version",
        "misreading, and writing on, what a newer program wrote",
        around(schema, "version", _any_version),
        records("a journal of a newer version is opened", _newer),
    ),
    journal_guard(
        "somebody else's database",
        "journal.schema:version",
        "making a journal of a file that is none",
        around(schema, "version", _any_database),
        records("a database of something else is opened", _foreign),
        "somebody else's database is changed",
    ),
    journal_guard(
        "tables whole",
        "journal.schema:check",
        "a journal whose entries can be changed because its protection was removed",
        by(schema, "check", lambda *_: None),
        records("a journal without one of its triggers is opened", _without_trigger),
    ),
    journal_guard(
        "nothing after a failed write",
        "journal.journal:Journal._stop",
        "entries that hide that one before them is missing",
        by(Journal, "_stop", lambda *_: None),
        records("the disk fails once", _after_failure),
    ),
    journal_guard(
        "superseded at once",
        "journal.store:add_all",
        "an instant in which nobody answers for what an upgrade left",
        by(journal_module, "add_all", _one_by_one),
        records("the disk fails between two entries of one change", _half_superseded),
        "nobody answers for what an upgrade left",
    ),
    journal_guard(
        "one upgrade at a time",
        "journal.journal:Journal.begin",
        "forgetting what an upgrade left that did not end",
        first(Journal, "begin", _ends_silently),
        records("an upgrade begins beside another", _two_begun),
    ),
)
