"""The database's tables, and how an older one becomes the one of today.

`PRAGMA user_version` counts the steps that were applied; an empty file has 0.  A step is never changed: a new table
or column is a new step at the end.  Each is applied in a transaction of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ess_can.errors import JournalVersionUnknown
from ess_can.journal.failures import damaged

APPLICATION_ID: Final = int.from_bytes(b"ESSJ", "big")
"""Marks the file as a journal of ours (`PRAGMA application_id`)."""

Step = tuple[str, ...]

STEPS: Final[tuple[Step, ...]] = (
    (
        """CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    upgrade TEXT NOT NULL,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    deed TEXT,
    node TEXT NOT NULL,
    text TEXT NOT NULL,
    ok INTEGER,
    answers INTEGER,
    facts TEXT NOT NULL,
    digest BLOB NOT NULL
)""",
        "CREATE TRIGGER entries_stay BEFORE UPDATE ON entries "
        "BEGIN SELECT RAISE(ABORT, 'an entry is never changed'); END",
        "CREATE TRIGGER entries_remain BEFORE DELETE ON entries "
        "BEGIN SELECT RAISE(ABORT, 'an entry is never removed'); END",
    ),
)


def migrate(connection: sqlite3.Connection, place: str, steps: Sequence[Step] = STEPS) -> None:
    """Bring the database to the last version.  Raises as `check_version`, and sqlite3.Error."""
    for step in steps[version(connection, place, steps) :]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            number = _number(connection, "user_version")
            for statement in step:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):  # after some failures it has been done already
                connection.execute("ROLLBACK")
            raise


def version(connection: sqlite3.Connection, place: str, steps: Sequence[Step] = STEPS) -> int:
    """The version that the database has; 0 if it is empty.

    Raises JournalVersionUnknown for one of a newer ess-can, JournalCorrupt for one that is no journal, sqlite3.Error.
    """
    found = _number(connection, "user_version")
    mark = _number(connection, "application_id")
    if (found, mark) == (0, 0) and not tables(connection):
        return 0
    if mark != APPLICATION_ID or found < 1:
        raise damaged(place, "it is a database, but no journal of ess-can")
    if found > len(steps):
        raise JournalVersionUnknown(
            f"the journal {place} was written by a newer version of ess-can",
            why=f"its version is {found}, this ess-can knows {len(steps)}",
        )
    return found


def check(connection: sqlite3.Connection, place: str, steps: Sequence[Step] = STEPS) -> None:
    """Whether database and tables are whole and as `steps` make them.  Raises JournalCorrupt, sqlite3.Error."""
    for (finding,) in connection.execute("PRAGMA quick_check(1)"):
        if finding != "ok":
            raise damaged(place, str(finding).splitlines()[-1])
    model = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(model, place, steps[: version(connection, place, steps)])
        if tables(connection) != tables(model):
            raise damaged(place, "its tables are not those of its version")
    finally:
        model.close()


def tables(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """What there is in the database, as it was created."""
    return sorted(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"), key=repr)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
