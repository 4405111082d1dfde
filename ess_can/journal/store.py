"""The entries in their database: read with all doubts, and added in transactions, mostly one for each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from ess_can.errors import JournalUnwritable
from ess_can.journal import schema
from ess_can.journal.entries import CHAIN_START, Deed, Entry, Kind, time_text
from ess_can.journal.history import History

Connect = Callable[..., sqlite3.Connection]
"""As `sqlite3.connect`."""

Row = tuple[object, ...]

DATABASE: Final = "journal.sqlite3"
IN_MEMORY: Final = ":memory:"
_COLUMNS: Final = "seq, upgrade, at, kind, deed, node, text, ok, answers, facts, digest"
_INSERT: Final = f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * 11)})"  # noqa: S608 - constants
_SELECT: Final = f"SELECT {_COLUMNS} FROM entries ORDER BY seq"  # noqa: S608 - constants
_BUSY_S: Final = 2.0


def connected(name: str, connect: Connect, *, uri: bool = False) -> sqlite3.Connection:
    """A connection that makes each statement a transaction of its own, for use by one thread at a time."""
    connection = connect(name, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=uri)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    """A damaged text does not verify; it must not be what keeps us from saying so."""
    return raw.decode("utf-8", "backslashreplace")


def open_for_writing(name: str, connect: Connect) -> sqlite3.Connection:
    """The database, checked and of today's version.

    What is written reaches the disk before the statement returns (write-ahead log, synchronous FULL).  Raises
    JournalCorrupt, JournalVersionUnknown, JournalUnwritable, sqlite3.Error.
    """
    connection = connected(name, connect)
    try:
        schema.version(connection, name)  # before anything in it is changed
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal" and name != IN_MEMORY:
            raise JournalUnwritable(
                f"the journal {name} cannot be used",
                why=f"its file system has no write-ahead log, but mode {mode}",
                remedy="Name a directory on a local disk with --journal.",
            )
        connection.execute("PRAGMA synchronous = FULL")
        schema.migrate(connection, name)
        schema.check(connection, name)
    except BaseException:
        with suppress(sqlite3.Error):
            connection.close()
        raise
    return connection


def add_all(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Write entries, all of them or none.  Raises sqlite3.Error."""
    if len(entries) == 1:
        add(connection, entries[0])
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for entry in entries:
            add(connection, entry)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def add(connection: sqlite3.Connection, entry: Entry) -> None:
    """Write an entry.  Raises sqlite3.Error."""
    connection.execute(
        _INSERT,
        (
            *(entry.seq, entry.upgrade, time_text(entry.at), entry.kind.value, entry.deed and entry.deed.value),
            *(entry.node, entry.text, entry.ok, entry.answers, entry.facts, entry.digest),
        ),
    )


def rows(connection: sqlite3.Connection) -> Iterator[Row]:
    """Every entry as stored, in order.  Raises sqlite3.Error."""
    yield from connection.execute(_SELECT)


def parse(row: Row) -> Entry:
    """A stored entry.  Raises ValueError for what `add` never wrote."""
    seq, upgrade, at, kind, deed, node, text, ok, answers, facts, digest = row
    if not (
        isinstance(seq, int)
        and isinstance(upgrade, str)
        and isinstance(at, str)
        and (deed is None or isinstance(deed, str))
        and isinstance(node, str)
        and isinstance(text, str)
        and (ok is None or (isinstance(ok, int) and ok in (0, 1)))
        and (answers is None or isinstance(answers, int))
        and isinstance(facts, str)
        and isinstance(digest, bytes)
    ):
        raise ValueError("a value of a wrong type")
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None or time_text(moment) != at:
        raise ValueError(f"a time of another form, {at}")
    return Entry(
        seq=seq,
        upgrade=upgrade,
        at=moment,
        kind=Kind(kind),
        deed=None if deed is None else Deed(deed),
        node=node,
        text=text,
        ok=None if ok is None else bool(ok),
        answers=answers,
        facts=facts,
        digest=digest,
    )


class Chain:
    """Entries one after the other, each tied to the one before it; `history` is what they tell."""

    def __init__(self) -> None:
        self.history = History()
        self.length = 0
        self.head = CHAIN_START

    def take(self, row: Row) -> Entry:
        """The next stored entry.  Raises ValueError, with the seq where it should be, if it is not the right one."""
        due = self.length + 1
        try:
            entry = parse(row)
            if entry.seq != due:
                raise ValueError(f"entry {entry.seq} stands in its place")
            if entry.digest != entry.chained(self.head):
                raise ValueError("its digest does not match it and the entry before it")
            self.history.take(entry)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"entry {due}: {error}") from error
        self.length, self.head = due, entry.digest
        return entry

    def add(self, entry: Entry) -> None:
        """An entry that was written.  Raises ValueError if it cannot follow."""
        self.history.take(entry)
        self.length, self.head = entry.seq, entry.digest
