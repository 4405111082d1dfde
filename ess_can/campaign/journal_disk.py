"""The disk under a simulated gateway's journal: in memory or a directory, and with faults where the journal writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from ess_can.journal.journal import Clock, Journal
from ess_can.journal.kept_files import MemoryFiles
from ess_can.journal.store import IN_MEMORY, open_for_writing

_ENTRY = "INSERT INTO entries"

OnWrite = Callable[[int], None]
"""Called with the number, from 0, of the entry that is written."""


class JournalDisk:
    """Outlives the processes that write on it.  In memory without a `directory`.

    Whoever acts when an entry is written is in `before` and `after`: before it is committed, and after; what they
    raise is what the journal meets.  `writes` counts the entries whose writing began.
    """

    def __init__(self, clock: Clock, directory: Path | None = None) -> None:
        self.before: list[OnWrite] = []
        self.after: list[OnWrite] = []
        self.writes = 0
        self._clock = clock
        self._directory = directory

    def open(self) -> Journal:
        """A new journal, or the one that is there.  Raises JournalError."""
        if self._directory is not None:
            return Journal.open(self._directory, self._clock, connect=self._connect)
        return Journal(open_for_writing(IN_MEMORY, self._connect), MemoryFiles(), self._clock, None, None)

    def reopen(self, journal: Journal) -> Journal:
        """What the next process finds when the one that wrote `journal` is gone, however it went."""
        if self._directory is None:
            return journal.survivor()
        journal.close()
        return self.open()

    def _connect(
        self,
        name: str,
        *,
        timeout: float,
        isolation_level: None,
        check_same_thread: bool,
        uri: bool,
    ) -> sqlite3.Connection:
        connection = sqlite3.connect(
            name,
            timeout=timeout,
            isolation_level=isolation_level,
            check_same_thread=check_same_thread,
            factory=_Connection,
            uri=uri,
        )
        connection.disk = self
        return connection

    def writing(self) -> int:
        """For the connection: an entry is about to be written; gives its number."""
        number = self.writes
        self.writes += 1
        for act in tuple(self.before):
            act(number)
        return number

    def committed(self, number: int) -> None:
        """For the connection: this entry is on the disk."""
        for act in tuple(self.after):
            act(number)


class _Connection(sqlite3.Connection):
    """One that tells its disk of each entry."""

    disk: JournalDisk
    written: tuple[int, ...] = ()
    """Entries of the transaction that is open."""

    def execute(self, sql: str, parameters: tuple[object, ...] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        """See `sqlite3.Connection.execute`."""
        if sql.startswith(_ENTRY):
            number = self.disk.writing()
            cursor = super().execute(sql, parameters)
            self.written += (number,)
        else:
            cursor = super().execute(sql, parameters)
        if not self.in_transaction:
            written, self.written = self.written, ()
            for number in () if sql == "ROLLBACK" else written:
                self.disk.committed(number)
        return cursor
