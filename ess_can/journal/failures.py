"""What the disk and the database say, as the journal's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ess_can.errors import AuditBroken, JournalCorrupt, JournalError, JournalUnwritable, Locked

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_TOOBIG}
_DAMAGED |= {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
_IN_USE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


@contextmanager
def told_as_ours(place: str) -> Iterator[None]:
    """Raise what goes wrong inside as JournalUnwritable, JournalCorrupt or Locked; `place` is what to name."""
    try:
        yield
    except sqlite3.Error as error:
        raise _of_database(place, error) from error
    except OSError as error:
        raise unwritable(place, error) from error
    except (MemoryError, UnicodeDecodeError) as error:  # a damaged length; a damaged name in SQLite's own message
        raise damaged(place, "what is in it makes no sense") from error


def _of_database(place: str, error: sqlite3.Error) -> JournalError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    why = str(error)
    if primary in _IN_USE:
        return Locked(f"the journal {place} is in use", why=why)
    if primary in _DAMAGED or (primary is None and not isinstance(error, sqlite3.OperationalError)):
        return damaged(place, why)
    return JournalUnwritable(f"the journal {place} cannot be used", why=why)


def unwritable(place: str | Path, error: OSError) -> JournalUnwritable:
    """The system refuses a file of the journal."""
    return JournalUnwritable(f"the journal {place} cannot be used", why=error.strerror or str(error))


def damaged(place: str | Path, why: str) -> JournalCorrupt:
    """The journal's database or a file of it cannot be made sense of."""
    return JournalCorrupt(f"the journal {place} is damaged", why=why)


def not_as_written(place: str | Path, why: str) -> AuditBroken:
    """The database can be read, but an entry does not match the chain of digests."""
    return AuditBroken(f"the journal {place} is not as it was written (changed by somebody, or damaged)", why=why)
