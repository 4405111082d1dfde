"""The journal for those who only look: no lock, nothing changed, whoever writes meanwhile."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ess_can.errors import NoSuchUpgrade
from ess_can.journal import schema
from ess_can.journal.entries import CHAIN_START, Entry, UpgradeRecord
from ess_can.journal.failures import not_as_written, told_as_ours
from ess_can.journal.history import History
from ess_can.journal.store import DATABASE, IN_MEMORY, Chain, connected, parse, rows


class JournalReader:
    """What a journal says.  Listing is lenient about who wrote it; `verify` is not.

    Every method raises JournalCorrupt or JournalUnwritable if the database cannot be read, and AuditBroken for an entry
    that makes no sense.
    """

    def __init__(self, connection: sqlite3.Connection, place: str, undo: ExitStack) -> None:
        """For `open` and `Journal.reader`.  `undo` is what to do when it is closed."""
        self._connection = connection
        self._place = place
        self._undo = undo

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The journal in `directory`; an empty one if there is none.

        Where nothing can be written, a copy is read: SQLite cannot read a log without a file for its index beside it.
        Raises JournalUnwritable, JournalCorrupt, JournalVersionUnknown.
        """
        place = str(directory)
        with ExitStack() as undo, told_as_ours(place):
            database = directory / DATABASE
            try:
                empty = database.stat().st_size == 0
            except FileNotFoundError:
                empty = True
            if empty:
                connection = connected(IN_MEMORY, sqlite3.connect)
                undo.callback(connection.close)
                schema.migrate(connection, place)
                return cls(connection, place, undo.pop_all())
            if not os.access(directory, os.W_OK):
                database = _copy(database, Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="ess-can-"))))
            connection = connected(f"{database.absolute().as_uri()}?mode=ro", sqlite3.connect, uri=True)
            undo.callback(connection.close)
            schema.version(connection, place)
            schema.check(connection, place)
            return cls(connection, place, undo.pop_all())

    def upgrades(self) -> list[UpgradeRecord]:
        """All upgrades, oldest first."""
        history = History()
        for entry in self._entries():
            try:
                history.take(entry)
            except ValueError as error:
                raise not_as_written(self._place, f"entry {entry.seq}: {error}") from error
        return list(history.upgrades.values())

    def upgrade(self, name: str) -> UpgradeRecord:
        """One upgrade by its `id`, or the ``last``.  Raises NoSuchUpgrade."""
        found = self.upgrades()
        for record in found[-1:] if name == "last" else found:
            if name in (record.id, "last"):
                return record
        raise NoSuchUpgrade(f"the journal {self._place} has no upgrade {name}")

    def entries(self, upgrade: str) -> list[Entry]:
        """All entries of an upgrade, oldest first."""
        return [entry for entry in self._entries() if entry.upgrade == upgrade]

    def verify(self, head: str = "") -> int:
        """Whether every entry is as it was written and none is missing; returns how many there are.

        Whoever can write the database can also compute a whole new chain, or cut its end.  Give as `head` a digest that
        was noted elsewhere (`head`): then that entry and all before it are as they were.  Raises AuditBroken, with the
        first entry that is wrong.
        """
        chain = Chain()
        seen = not head or head == CHAIN_START.hex()
        with told_as_ours(self._place):
            for row in rows(self._connection):
                try:
                    seen = chain.take(row).digest.hex() == head.lower() or seen
                except ValueError as error:
                    raise not_as_written(self._place, str(error)) from error
        if not seen:
            raise not_as_written(
                self._place, f"none of its {chain.length} entries has the digest {head}: its end was cut or rewritten"
            )
        return chain.length

    def head(self) -> str:
        """The digest of the last entry in hexadecimal, to be kept elsewhere."""
        last = CHAIN_START
        for entry in self._entries():
            last = entry.digest
        return last.hex()

    def close(self) -> None:
        """Done with it."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _entries(self) -> Iterator[Entry]:
        with told_as_ours(self._place):
            for row in rows(self._connection):
                try:
                    entry = parse(row)
                except (ValueError, OverflowError) as error:
                    raise not_as_written(self._place, f"entry {row[0]}: {error}") from error
                yield entry


def _copy(database: Path, into: Path) -> Path:
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.exists():
            shutil.copyfile(source, into / source.name)
    return into / database.name
