"""A journal to work with, and what may go wrong with its disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ess_can.errors import EssCanError
from ess_can.journal.entries import Deed, Entry
from ess_can.journal.history import History
from ess_can.journal.journal import Journal
from ess_can.journal.reader import JournalReader
from ess_can.journal.store import DATABASE, Connect

FILE = bytes(range(256)) * 40
SHA256 = hashlib.sha256(FILE).digest()
BEGINNING = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
REPORT = json.dumps({"result": "done", "nodes": [{"name": "bmu1", "runs": "1.1.0"}, {"name": "bmu2", "runs": None}]})


class WallClock:
    """Goes on by a second whenever it is asked; it may be set."""

    def __init__(self) -> None:
        self.time = BEGINNING

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def opened(directory: Path, connect: Connect = sqlite3.connect) -> Journal:
    return Journal.open(directory, WallClock(), connect=connect)


def begin(journal: Journal, release: str = "bmu 1.1.0") -> None:
    journal.begin(release, FILE, SHA256, '{"racks": 2}')


def deed(journal: Journal, what: Deed, node: str = "", *, ok: bool = True) -> None:
    journal.result(journal.intent(what, node, "how"), ok, "what came of it")


def whole_upgrade(journal: Journal) -> None:
    """One that ends well, of twelve entries."""
    begin(journal)
    journal.found("connected")
    journal.phase("open contactors")
    deed(journal, Deed.OPEN_CONTACTORS)
    journal.evidence("rack 1 says that it is open")
    deed(journal, Deed.TRANSFER, "bmu1", ok=False)
    deed(journal, Deed.TRANSFER, "bmu1")
    journal.note("the second attempt")
    journal.end("done", "", REPORT)


def recorded(journal: Journal) -> list[Entry]:
    """Everything that is written to it from now on."""
    entries: list[Entry] = []
    journal.on_entry.append(entries.append)
    return entries


def stored(directory: Path) -> list[Entry]:
    """What anybody reads from it, after all of it was verified."""
    with JournalReader.open(directory) as reader:
        reader.verify()
        return [entry for record in reader.upgrades() for entry in reader.entries(record.id)]


def same_meaning(journal: Journal, entries: list[Entry]) -> bool:
    """Whether a journal says of the unfinished upgrade what these entries say."""
    model = History()
    for entry in entries:
        model.take(entry)
    return (
        journal.unfinished() == model.unfinished
        and journal.open_intents() == list(model.open_intents.values())
        and all(journal.last(one) == model.last(one) for one in Deed)
        and journal.head == (entries[-1].digest if entries else bytes(32)).hex()
    )


def copied(directory: Path, to: Path) -> Path:
    """The directory as a loss of power leaves it: without the index that lives in memory."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(directory, to, ignore=shutil.ignore_patterns("*-shm"))
    return to


def edit(directory: Path, statement: str, *values: object) -> None:
    """Change the database behind the journal's back, as somebody with the right to write it can."""
    with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as database:
        triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(statement, values)
        for _, sql in triggers:
            database.execute(sql)


def fault(message: str, code: int | None) -> sqlite3.OperationalError:
    """What SQLite raises."""
    error = sqlite3.OperationalError(message)
    if code is not None:
        error.sqlite_errorcode = code  # set by the module itself otherwise
    return error


class FaultyConnection(sqlite3.Connection):
    """A database whose disk fails when `fails` says so for a statement."""

    fails: Callable[[str], Exception | None] = staticmethod(lambda _statement: None)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if (error := self.fails(sql)) is not None:
            raise error
        return super().execute(sql, *parameters)


def failing(fails: Callable[[str], Exception | None]) -> Connect:
    """For `opened`."""

    class Failing(FaultyConnection):
        pass

    Failing.fails = staticmethod(fails)

    def connect(name: str, *, timeout: float, isolation_level: None, check_same_thread: bool, uri: bool) -> Failing:
        connection = sqlite3.connect(
            name,
            timeout=timeout,
            isolation_level=isolation_level,
            check_same_thread=check_same_thread,
            uri=uri,
            factory=Failing,
        )
        assert isinstance(connection, Failing)
        return connection

    return connect


def outcome(directory: Path) -> list[Entry] | EssCanError:
    """What opening a journal, and then reading it, comes to."""
    try:
        journal = opened(directory)
        journal.close()
        return stored(directory)
    except EssCanError as error:
        return error
