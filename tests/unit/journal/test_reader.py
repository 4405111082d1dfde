from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from ess_can.errors import AuditBroken, JournalCorrupt, JournalUnwritable, NoSuchUpgrade
from ess_can.journal.entries import Deed
from ess_can.journal.reader import JournalReader
from ess_can.journal.store import DATABASE
from tests.unit.journal.rig import begin, copied, edit, opened, recorded, stored, whole_upgrade


def test_no_journal_is_an_empty_one_and_stays_none(tmp_path: Path) -> None:
    directory = tmp_path / "none"
    with JournalReader.open(directory) as reader:
        assert (reader.upgrades(), reader.verify(), reader.head()) == ([], 0, bytes(32).hex())
        with pytest.raises(NoSuchUpgrade):
            reader.upgrade("last")
    assert not directory.exists()
    (tmp_path / DATABASE).write_bytes(b"")  # one whose making was interrupted
    assert stored(tmp_path) == []


def test_upgrades_by_name(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    whole_upgrade(journal)
    begin(journal, "bmu 1.2.0")
    journal.close()
    with JournalReader.open(tmp_path) as reader:
        assert [record.release for record in reader.upgrades()] == ["bmu 1.1.0", "bmu 1.2.0"]
        assert reader.upgrade("1").finished
        assert reader.upgrade("last").id == reader.upgrade("2").id == "2"
        assert [entry.seq for entry in reader.entries("2")] == [13]
        assert reader.entries("3") == []
        with pytest.raises(NoSuchUpgrade, match="no upgrade 3"):
            reader.upgrade("3")


def test_it_reads_while_somebody_writes_and_disturbs_nobody(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    entries = recorded(journal)
    begin(journal)
    with JournalReader.open(tmp_path) as reader:
        for _ in range(20):
            journal.result(journal.intent(Deed.ANNOUNCE), ok=True)
            assert reader.entries("1") == entries
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM entries")
    journal.end("done", "", "")
    journal.close()
    assert stored(tmp_path) == entries


def test_it_changes_nothing_that_a_crash_left(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal")
    entries = recorded(journal)
    whole_upgrade(journal)
    left = copied(tmp_path / "journal", tmp_path / "left")
    journal.close()
    before = {path.name: path.read_bytes() for path in left.iterdir() if path.is_file()}
    assert stored(left) == entries
    assert {name: (left / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("log", ["with its log", "without"])
def test_where_nothing_can_be_written_a_copy_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str) -> None:
    journal = opened(tmp_path / "journal")
    entries = recorded(journal)
    whole_upgrade(journal)
    left = copied(tmp_path / "journal", tmp_path / "left")
    journal.close()
    if log == "without":
        left = tmp_path / "journal"
    names = sorted(path.name for path in left.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and Path(path) == left))
    with JournalReader.open(left) as reader:
        assert reader.entries("1") == entries
        assert sorted(path.name for path in left.iterdir()) == names
        copies = [row[2] for row in reader._connection.execute("PRAGMA database_list")]
    assert copies != []
    assert not Path(copies[0]).exists()


def test_a_directory_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", refused)
        with pytest.raises(JournalUnwritable, match="Permission denied"):
            JournalReader.open(tmp_path)
    (tmp_path / DATABASE).mkdir()
    with pytest.raises(JournalUnwritable, match="cannot be used"):
        JournalReader.open(tmp_path)


def test_a_path_with_signs_of_an_address(tmp_path: Path) -> None:
    directory = tmp_path / "a?b#c%20d é"
    journal = opened(directory)
    entries = recorded(journal)
    whole_upgrade(journal)
    journal.close()
    assert stored(directory) == entries


def test_a_database_of_garbage(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"garbage " * 1000)
    with pytest.raises(JournalCorrupt):
        JournalReader.open(tmp_path)
    with pytest.raises(JournalCorrupt):
        opened(tmp_path)


def test_an_entry_that_makes_no_sense_is_named_when_it_is_listed(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    whole_upgrade(journal)
    journal.close()
    edit(tmp_path, "UPDATE entries SET kind = 'nonsense' WHERE seq = 4")
    with JournalReader.open(tmp_path) as reader:
        for act in (reader.upgrades, reader.head, lambda: reader.entries("1")):
            with pytest.raises(AuditBroken, match="entry 4: 'nonsense'"):
                act()
    edit(tmp_path, "UPDATE entries SET kind = 'began' WHERE seq = 4")
    with JournalReader.open(tmp_path) as reader:
        assert len(reader.entries("1")) == 12
        with pytest.raises(AuditBroken, match="entry 4: upgrade 1 has not ended"):
            reader.upgrades()
