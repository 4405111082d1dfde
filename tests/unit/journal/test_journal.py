from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ess_can.errors import FileUnreadable, JournalError, JournalUnwritable, Locked, NoSuchUpgrade, NothingToResume
from ess_can.journal.entries import Deed, Kind
from ess_can.journal.journal import Journal
from tests.unit.journal.rig import (
    BEGINNING,
    FILE,
    REPORT,
    SHA256,
    WallClock,
    begin,
    copied,
    deed,
    failing,
    fault,
    opened,
    recorded,
    same_meaning,
    stored,
    whole_upgrade,
)

Make = Callable[[], Journal]


@pytest.fixture(params=["on disk", "in memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return (lambda: opened(tmp_path / "journal")) if request.param == "on disk" else Journal.in_memory


def test_an_upgrade_from_its_beginning_to_its_end(make: Make) -> None:
    journal = make()
    assert journal.unfinished() is None
    assert journal.head == bytes(32).hex()
    entries = recorded(journal)
    whole_upgrade(journal)
    assert journal.unfinished() is None
    assert [entry.seq for entry in entries] == list(range(1, 13))
    assert [entry.kind for entry in entries] == [
        *(Kind.BEGAN, Kind.FOUND, Kind.PHASE, Kind.INTENT, Kind.RESULT, Kind.EVIDENCE),
        *(Kind.INTENT, Kind.RESULT, Kind.INTENT, Kind.RESULT, Kind.NOTE, Kind.ENDED),
    ]
    assert journal.head == entries[-1].digest.hex()
    with journal.reader() as reader:
        assert reader.entries("1") == entries
        assert reader.verify(journal.head) == 12
        assert reader.head() == journal.head
        (record,) = reader.upgrades()
        assert reader.verify() == 12
    assert (record.id, record.release, record.file_sha256, record.options) == ("1", "bmu 1.1.0", SHA256, '{"racks": 2}')
    assert (record.found, record.result, record.error, record.report) == ("connected", "done", "", REPORT)
    assert (record.began_at, record.ended_at) == (entries[0].at, entries[-1].at)
    journal.close()


def test_begin_says_what_stands_recorded(make: Make) -> None:
    journal = make()
    record = journal.begin("bmu \udcff", FILE, SHA256, "{}")
    assert record == journal.unfinished()
    assert (record.release, record.found, record.ended_at, record.finished) == ("bmu \\udcff", "", None, False)
    journal.close()


def test_a_killed_one_goes_on_where_it_stopped(make: Make) -> None:
    journal = make()
    entries = recorded(journal)
    begin(journal)
    deed(journal, Deed.LOCK)
    journal.intent(Deed.TRANSFER, "bmu1")
    journal.intent(Deed.TRANSFER, "bmu2")
    journal = journal.survivor()
    assert same_meaning(journal, entries)
    assert [intent.node for intent in journal.open_intents()] == ["bmu1", "bmu2"]
    done = journal.last(Deed.LOCK)
    assert done is not None
    assert (done.kind, done.ok) == (Kind.RESULT, True)
    kept = journal.kept_file("1")
    assert (kept.size, kept.read(0, kept.size), kept.read(kept.size - 3, 9)) == (len(FILE), FILE, FILE[-3:])
    with pytest.raises(ValueError, match="not under way"):
        journal.note("before it is resumed")
    assert journal.resume("1") == journal.unfinished()
    journal.result(4, ok=False, text="interrupted")
    journal.end("failed", "INTERRUPTED", "")
    journal.close()


def test_the_dead_one_writes_nothing_more(make: Make) -> None:
    journal = make()
    begin(journal)
    survivor = journal.survivor()
    for act in (lambda: journal.intent(Deed.CLOSE), lambda: begin(journal), lambda: journal.end("done", "", "")):
        with pytest.raises(JournalUnwritable, match="not written any more"):
            act()
    survivor.resume("1")
    assert survivor.open_intents() == []
    survivor.close()


def test_one_upgrade_at_a_time(make: Make) -> None:
    journal = make()
    begin(journal)
    with pytest.raises(JournalError, match="upgrade 1 has not ended") as caught:
        begin(journal, "bmu 1.2.0")
    assert "ess-can resume" in caught.value.remedy
    journal.end("failed", "BUS_SILENT", "")
    begin(journal, "bmu 1.2.0")
    unfinished = journal.unfinished()
    assert unfinished is not None
    assert (unfinished.id, unfinished.release) == ("2", "bmu 1.2.0")
    journal.close()


def test_one_upgrade_takes_the_place_of_another_in_one_step(make: Make) -> None:
    journal = make()
    begin(journal)
    journal.found("connected")
    deed(journal, Deed.LOCK)
    journal.intent(Deed.ACTIVATE, "bmu1")
    lock, activation = journal.last(Deed.LOCK), journal.last(Deed.ACTIVATE)
    entries = recorded(journal)
    record = journal.begin("bmu 1.2.0", FILE, SHA256, "{}", supersedes="1")
    assert [(entry.kind, entry.upgrade, entry.text) for entry in entries] == [
        (Kind.ENDED, "1", "superseded"),
        (Kind.BEGAN, "2", "bmu 1.2.0"),
    ]
    journal = journal.survivor()
    assert journal.unfinished() == record
    assert (record.id, record.found) == ("2", "connected")
    assert (journal.last(Deed.LOCK), journal.last(Deed.ACTIVATE)) == (lock, activation)
    assert journal.open_intents() == []
    journal.resume("2")
    journal.end("done", "", "")
    begin(journal)
    assert journal.last(Deed.LOCK) is None
    with journal.reader() as reader:
        assert [one.result for one in reader.upgrades()] == ["superseded", "done", ""]
        reader.verify()
    journal.close()


def test_only_an_unfinished_upgrade_is_superseded(make: Make) -> None:
    journal = make()
    begin(journal)
    journal.end("failed", "BUS_SILENT", "")
    with pytest.raises(ValueError, match="not under way"):
        journal.begin("bmu 1.2.0", FILE, SHA256, "{}", supersedes="1")
    begin(journal)
    with pytest.raises(JournalError, match="upgrade 2 has not ended"):
        journal.begin("bmu 1.2.0", FILE, SHA256, "{}", supersedes="1")
    journal.close()


def test_one_whose_place_is_taken_by_an_upgrade_with_nothing_to_do_ends_with_one_entry(make: Make) -> None:
    journal = make()
    begin(journal)
    deed(journal, Deed.LOCK)
    entries = recorded(journal)
    journal = journal.survivor()
    journal.on_entry.append(entries.append)
    journal.supersede("1")
    assert [(entry.kind, entry.upgrade, entry.text) for entry in entries] == [(Kind.ENDED, "1", "superseded")]
    assert journal.unfinished() is None
    with journal.reader() as reader:
        assert [one.result for one in reader.upgrades()] == ["superseded"]
        reader.verify()
    with pytest.raises(NothingToResume):
        journal.supersede("1")
    with pytest.raises(NoSuchUpgrade):
        journal.supersede("2")
    journal.close()


@pytest.mark.parametrize("fails_at", range(4))
def test_half_a_takeover_is_none(tmp_path: Path, fails_at: int) -> None:
    statements: list[str] = []

    def fails(statement: str) -> Exception | None:
        if started and not statement.startswith("ROLLBACK"):
            statements.append(statement)
            if len(statements) == fails_at + 1:
                return fault("disk I/O error", sqlite3.SQLITE_IOERR)
        return None

    started = False
    journal = opened(tmp_path, failing(fails))
    begin(journal)
    started = True
    with pytest.raises(JournalUnwritable):
        journal.begin("bmu 1.2.0", FILE, SHA256, "{}", supersedes="1")
    assert len(statements) == fails_at + 1
    journal.close()
    survivor = opened(tmp_path)
    unfinished = survivor.unfinished()
    assert unfinished is not None
    assert unfinished.id == "1"
    assert survivor.kept_file("1").size == len(FILE)
    survivor.close()


def test_only_what_is_unfinished_is_resumed(make: Make) -> None:
    journal = make()
    with pytest.raises(NoSuchUpgrade):
        journal.resume("1")
    whole_upgrade(journal)
    with pytest.raises(NothingToResume, match="upgrade 1 has ended"):
        journal.resume("1")
    begin(journal)
    with pytest.raises(NothingToResume):
        journal.resume("1")
    for name in ("1", "3"):
        with pytest.raises(Exception, match=r"is damaged|no upgrade 3"):
            journal.kept_file(name)
    journal.close()


def test_what_makes_no_sense_is_not_written(make: Make) -> None:
    journal = make()
    with pytest.raises(ValueError, match="not under way"):
        journal.intent(Deed.CLOSE)
    begin(journal)
    seq = journal.intent(Deed.CLOSE)
    journal.result(seq, ok=True)
    head = journal.head
    for wrong in (seq, 1, 99):
        with pytest.raises(ValueError, match="no intent without a result"):
            journal.result(wrong, ok=True)
    assert journal.head == head
    journal.note("and it goes on")
    journal.close()


def test_texts_come_back_as_they_were(make: Make) -> None:
    journal = make()
    begin(journal)
    texts = ["", "\0", "a\0b", "電池 'x' \"y\" \\u0000", "\n\r\t\x1b[2J", "x" * 100_000]
    for text in texts:
        journal.note(text)
    with journal.reader() as reader:
        reader.verify()
        assert [entry.text for entry in reader.entries("1")[1:]] == texts
    journal.close()


def test_a_file_that_is_not_what_was_checked_begins_nothing(make: Make, tmp_path: Path) -> None:
    journal = make()
    path = tmp_path / "it.essup"
    path.write_bytes(FILE[:-1] + b"?")
    with pytest.raises(FileUnreadable, match="changed after it was checked"):
        journal.begin("bmu 1.1.0", path, SHA256, "{}")
    with pytest.raises(FileUnreadable, match="cannot read"):
        journal.begin("bmu 1.1.0", tmp_path / "missing", SHA256, "{}")
    assert journal.unfinished() is None
    path.write_bytes(FILE)
    journal.begin("bmu 1.1.0", path, SHA256, "{}")
    path.unlink()
    assert journal.kept_file("1").read(0, len(FILE)) == FILE
    journal.close()


@pytest.mark.parametrize("years", [-10, 10])
def test_a_wall_clock_that_jumps_harms_nothing(tmp_path: Path, years: int) -> None:
    clock = WallClock()
    journal = Journal.open(tmp_path, clock)
    begin(journal)
    seq = journal.intent(Deed.CLOSE)
    clock.time = BEGINNING.replace(year=BEGINNING.year + years)
    journal.result(seq, ok=True)
    journal.close()
    journal = Journal.open(tmp_path, clock)
    assert journal.open_intents() == []
    journal.resume("1")
    clock.time = BEGINNING
    journal.end("done", "", "")
    journal.close()
    assert [(entry.seq, entry.at.year) for entry in stored(tmp_path)] == [
        (1, 2031),
        (2, 2031),
        *((seq, 2031 + years) for seq in (3, 4)),
        (5, 2031),
    ]


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_any_year_will_do(tmp_path: Path, year: int) -> None:
    journal = Journal.open(tmp_path, lambda: datetime(year, 1, 1, tzinfo=UTC))
    whole_upgrade(journal)
    journal.close()
    assert {entry.at.year for entry in stored(tmp_path)} == {year}


def test_what_is_written_is_on_the_disk_before_the_call_returns(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal")
    entries = recorded(journal)
    begin(journal)
    for _ in range(5):
        journal.intent(Deed.TRANSFER, "bmu1")
        assert stored(copied(tmp_path / "journal", tmp_path / "copy")) == entries
    journal.close()


def test_the_database_waits_for_the_disk_at_each_transaction(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    told = [journal._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert told == ["wal", 2]  # FULL
    begin(journal)
    assert not journal._connection.in_transaction
    journal.close()


def test_on_entry_is_told_only_of_what_is_on_the_disk(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    seen: list[int] = []
    journal.on_entry.append(lambda entry: seen.append(entry.seq - len(stored(tmp_path))))
    whole_upgrade(journal)
    journal.close()
    assert seen == [0] * 12


def test_only_its_user_can_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "journal"
    journal = opened(directory)
    begin(journal)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.rglob("*"))}
    journal.close()
    assert modes.pop("journal") == modes.pop("files") == 0o700
    assert modes.pop("1.essup") == 0o600
    assert set(modes) == {"lock", "journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"}
    assert set(modes.values()) == {0o600}


def test_two_in_one_process_are_one_too_many(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(Locked):
        opened(tmp_path)
    first.close()
    first.close()
    opened(tmp_path).close()


def test_kept_files_go_with_their_upgrade_and_leftovers_at_the_next_start(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    begin(journal)
    files = tmp_path / "files"
    assert [path.name for path in files.iterdir()] == ["1.essup"]
    journal.end("done", "", "")
    assert list(files.iterdir()) == []
    begin(journal)
    (files / "3.essup").write_bytes(b"copied, and killed before the upgrade began")
    (files / "2.new").write_bytes(b"half copied")
    journal = journal.survivor()
    assert [path.name for path in files.iterdir()] == ["2.essup"]
    assert journal.kept_file("2").size == len(FILE)
    journal.close()


def test_what_a_dead_process_had_begun_to_write_is_gone() -> None:
    journal = Journal.in_memory()
    begin(journal, "bmu 1.1.0")
    before = len(journal.reader().entries("1"))
    journal._connection.execute("BEGIN")
    assert len(journal.survivor().reader().entries("1")) == before
