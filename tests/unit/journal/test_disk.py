"""What the disk may do to a journal: each has its error, and nothing that was written is lost."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ess_can.errors import EssCanError, JournalCorrupt, JournalUnwritable, Locked
from ess_can.journal.entries import Deed
from ess_can.journal.failures import told_as_ours
from ess_can.journal.journal import MARGIN, Journal
from ess_can.journal.store import DATABASE
from tests.unit.journal.rig import (
    WallClock,
    begin,
    failing,
    fault,
    opened,
    recorded,
    same_meaning,
    stored,
    whole_upgrade,
)

DiskFault = tuple[Callable[[], Exception], type[EssCanError]]

FAULTS: dict[str, DiskFault] = {
    "disk full": (lambda: fault("database or disk is full", sqlite3.SQLITE_FULL), JournalUnwritable),
    "fsync": (lambda: fault("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC), JournalUnwritable),
    "write": (lambda: fault("disk I/O error", sqlite3.SQLITE_IOERR_WRITE), JournalUnwritable),
    "no code": (lambda: fault("disk I/O error", None), JournalUnwritable),
    "read-only": (lambda: fault("attempt to write a readonly database", sqlite3.SQLITE_READONLY), JournalUnwritable),
    "cannot open": (lambda: fault("unable to open database file", sqlite3.SQLITE_CANTOPEN), JournalUnwritable),
    "malformed": (lambda: fault("database disk image is malformed", sqlite3.SQLITE_CORRUPT), JournalCorrupt),
    "damaged": (lambda: sqlite3.DatabaseError("database disk image is malformed"), JournalCorrupt),
    "in use": (lambda: fault("database is locked", sqlite3.SQLITE_BUSY), Locked),
    "memory": (MemoryError, JournalCorrupt),
    "garbled message": (lambda: UnicodeDecodeError("utf-8", b"\xc5", 0, 1, "invalid"), JournalCorrupt),
    "system": (lambda: OSError(errno.EIO, "Input/output error"), JournalUnwritable),
}


@pytest.fixture(params=list(FAULTS))
def disk_fault(request: pytest.FixtureRequest) -> DiskFault:
    return FAULTS[str(request.param)]


def test_a_write_that_fails_is_the_last(tmp_path: Path, disk_fault: DiskFault) -> None:
    make, error = disk_fault
    broken = False
    journal = opened(tmp_path, failing(lambda sql: make() if broken and sql.startswith("INSERT") else None))
    entries, failures = recorded(journal), list[str]()
    journal.on_failure.append(lambda: failures.append("told"))
    begin(journal)
    seq = journal.intent(Deed.OPEN_CONTACTORS)
    assert failures == []
    broken = True
    with pytest.raises(error):
        journal.result(seq, ok=True)
    assert failures == ["told"]
    broken = False
    acts: list[Callable[[], None]] = [
        lambda: journal.result(seq, ok=True),
        lambda: journal.note(""),
        lambda: journal.end("failed", "", ""),
    ]
    for act in acts:
        with pytest.raises(JournalUnwritable, match="not written any more: a write failed"):
            act()
    assert same_meaning(journal, entries)
    assert [intent.seq for intent in journal.open_intents()] == [seq]
    journal.close()
    assert stored(tmp_path) == entries
    opened(tmp_path).close()


@pytest.mark.parametrize("statement", ["PRAGMA", "PRAGMA journal_mode", "BEGIN", "CREATE", "COMMIT", "SELECT seq"])
def test_an_opening_that_fails_leaves_it_for_the_next(tmp_path: Path, disk_fault: DiskFault, statement: str) -> None:
    make, error = disk_fault
    with pytest.raises(error) as caught:
        opened(tmp_path, failing(lambda sql: make() if sql.startswith(statement) else None))
    assert str(tmp_path) in str(caught.value)
    assert caught.value.remedy
    journal = opened(tmp_path)
    whole_upgrade(journal)
    journal.close()
    assert len(stored(tmp_path)) == 12


def test_a_full_disk_shows_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    free = MARGIN + 50_000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=free))
    journal.require_room(50_000)
    with pytest.raises(JournalUnwritable, match="is full"):
        journal.require_room(50_001)
    begin(journal)
    free = MARGIN - 1
    with pytest.raises(JournalUnwritable, match="is full"):
        journal.resume("1")
    journal.end("failed", "", "")
    with pytest.raises(JournalUnwritable, match="is full"):
        begin(journal)
    assert len(stored(tmp_path)) == 2
    journal.close()
    Journal.in_memory().require_room(2**60)


def test_a_disk_that_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)

    def fails(_path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", fails)
    with pytest.raises(JournalUnwritable, match="Input/output error"):
        journal.require_room(0)
    journal.close()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from ess_can.errors import JournalUnwritable
from ess_can.journal.entries import Deed
from tests.unit.journal.rig import begin, opened
journal = opened(Path(sys.argv[1]))
begin(journal)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    while True:
        print(journal.intent(Deed.TRANSFER, "bmu1", "x" * 300), flush=True)
except JournalUnwritable as error:
    print(error, file=sys.stderr)
"""


def test_a_disk_that_fills_up_on_the_way(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    told = [int(line) for line in done.stdout.split()]
    assert "cannot be used" in done.stderr
    assert len(told) > 3
    assert [entry.seq for entry in stored(tmp_path)] == [1, *told]
    journal = opened(tmp_path)
    assert [intent.seq for intent in journal.open_intents()] == told
    journal.close()


@pytest.mark.parametrize("name", ["lock", "journal.sqlite3", "files"])
def test_something_else_in_its_place(tmp_path: Path, name: str) -> None:
    if name == "files":
        (tmp_path / name).write_bytes(b"")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(JournalUnwritable, match=r"[Ff]ile exists|[Ii]s a directory"):
        opened(tmp_path)


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalUnwritable):
        opened(tmp_path / "file" / "journal")
    with pytest.raises(JournalUnwritable):
        opened(tmp_path / "file")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_on_which_nothing_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(JournalUnwritable, match=os.strerror(number)):
        opened(tmp_path)


def test_a_file_system_without_a_log(tmp_path: Path) -> None:
    def connect(
        name: str, *, timeout: float, isolation_level: None, check_same_thread: bool, uri: bool
    ) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{name}?vfs=unix-dotfile",
            timeout=timeout,
            isolation_level=isolation_level,
            check_same_thread=check_same_thread,
            uri=True,
        )

    with pytest.raises(JournalUnwritable, match="no write-ahead log") as caught:
        opened(tmp_path, connect)
    assert "local disk" in caught.value.remedy


def test_a_database_that_another_program_holds(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as shell:
        shell.execute("PRAGMA locking_mode = EXCLUSIVE")
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(Locked, match="database is locked"):
            Journal.open(tmp_path, WallClock(), connect=impatient)
    opened(tmp_path).close()


def impatient(
    name: str, *, timeout: float, isolation_level: None, check_same_thread: bool, uri: bool
) -> sqlite3.Connection:
    assert timeout < 5
    return sqlite3.connect(
        name, timeout=0.01, isolation_level=isolation_level, check_same_thread=check_same_thread, uri=uri
    )


def test_a_connection_that_cannot_be_closed_is_closed_enough(tmp_path: Path) -> None:
    class Sticky(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            raise fault("unable to close", sqlite3.SQLITE_BUSY)

    def connect(name: str, *, timeout: float, isolation_level: None, check_same_thread: bool, uri: bool) -> Sticky:
        made = sqlite3.connect(name, factory=Sticky, isolation_level=isolation_level, uri=uri, timeout=timeout)
        assert isinstance(made, Sticky)
        return made

    journal = opened(tmp_path, connect)
    whole_upgrade(journal)
    journal.close()
    opened(tmp_path).close()
    assert len(stored(tmp_path)) == 12


def test_an_error_that_is_none_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), told_as_ours("here"):
        raise KeyError
    with pytest.raises(ValueError, match="it"):
        opened(tmp_path, failing(lambda sql: ValueError("it") if sql.startswith("SELECT seq") else None))
    opened(tmp_path).close()
