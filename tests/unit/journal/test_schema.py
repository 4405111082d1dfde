from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ess_can.errors import JournalCorrupt, JournalVersionUnknown
from ess_can.journal import schema
from ess_can.journal.reader import JournalReader
from ess_can.journal.store import DATABASE
from tests.unit.journal.rig import edit, opened, stored, whole_upgrade

NEXT = (*schema.STEPS, ("CREATE TABLE remarks (seq INTEGER PRIMARY KEY, text TEXT NOT NULL)",))


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def test_an_empty_file_becomes_a_journal_of_today(database: sqlite3.Connection) -> None:
    assert schema.version(database, "here") == 0
    schema.migrate(database, "here")
    assert schema.version(database, "here") == len(schema.STEPS)
    schema.check(database, "here")
    schema.migrate(database, "here")  # nothing more to do
    schema.check(database, "here")


def test_an_older_one_is_brought_to_the_newest_with_all_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    whole_upgrade(journal)
    journal.close()
    before = stored(tmp_path)
    monkeypatch.setattr(schema, "STEPS", NEXT)
    monkeypatch.setattr(schema.migrate, "__defaults__", (NEXT,))
    monkeypatch.setattr(schema.version, "__defaults__", (NEXT,))
    monkeypatch.setattr(schema.check, "__defaults__", (NEXT,))
    assert stored(tmp_path) == before  # who only reads, reads the older one as it is
    opened(tmp_path).close()
    assert stored(tmp_path) == before
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        assert schema.version(database, "") == 2
        assert database.execute("SELECT count(*) FROM remarks").fetchone() == (0,)


def test_a_step_that_fails_leaves_the_older_one(database: sqlite3.Connection) -> None:
    schema.migrate(database, "here")
    before = schema.tables(database)
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        schema.migrate(database, "here", (*schema.STEPS, (NEXT[1][0], "nonsense")))
    assert schema.tables(database) == before
    assert not database.in_transaction
    schema.check(database, "here")


def test_one_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    opened(tmp_path).close()
    edit(tmp_path, "PRAGMA user_version = 2")
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(JournalVersionUnknown, match="its version is 2, this ess-can knows 1"):
        opened(tmp_path)
    with pytest.raises(JournalVersionUnknown):
        JournalReader.open(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA application_id = 0",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
        "CREATE TABLE more (it TEXT)",
        "CREATE TRIGGER lie AFTER INSERT ON entries BEGIN SELECT 1; END",
        "ALTER TABLE entries ADD COLUMN more TEXT",
        "DROP TABLE entries",
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, statement: str) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as database:
        database.execute(statement)
    with pytest.raises(JournalCorrupt, match=r"no journal of ess-can|not those of its version"):
        opened(tmp_path)
    with pytest.raises(JournalCorrupt):
        JournalReader.open(tmp_path)


def test_somebody_elses_database_is_not_touched(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.execute("CREATE TABLE theirs (it TEXT)")
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(JournalCorrupt, match="no journal of ess-can"):
        opened(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


@pytest.mark.parametrize("statement", ["UPDATE entries SET text = 'x'", "DELETE FROM entries"])
def test_the_database_itself_refuses_to_change_an_entry(tmp_path: Path, statement: str) -> None:
    journal = opened(tmp_path)
    whole_upgrade(journal)
    journal.close()
    with (
        closing(sqlite3.connect(tmp_path / DATABASE)) as database,
        pytest.raises(sqlite3.IntegrityError, match="never"),
    ):
        database.execute(statement)
    assert len(stored(tmp_path)) == 12


def test_a_page_that_is_not_whole_is_found_before_it_is_used(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    whole_upgrade(journal)
    journal.close()
    content = bytearray((tmp_path / DATABASE).read_bytes())
    content[4096 + 7] = 99  # the second page's count of fragmented bytes
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(JournalCorrupt, match="damaged: Fragmentation"):
        opened(tmp_path)
    with pytest.raises(JournalCorrupt, match="Fragmentation"):
        JournalReader.open(tmp_path)
