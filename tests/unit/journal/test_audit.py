"""Every entry edited, removed, inserted, swapped, or cut off with all behind it: it is found, and named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ess_can.errors import AuditBroken
from ess_can.journal.entries import CHAIN_START, Entry
from ess_can.journal.reader import JournalReader
from ess_can.journal.store import DATABASE, add
from tests.unit.journal.rig import begin, copied, edit, opened, recorded, whole_upgrade

EDITS = {
    "upgrade": "'7'",
    "at": "'2031-05-04T03:02:00.000000Z'",
    "kind": "CASE kind WHEN 'note' THEN 'evidence' ELSE 'note' END",
    "deed": "CASE deed WHEN 'lock' THEN 'unlock' ELSE 'lock' END",
    "node": "node || '9'",
    "text": "text || ' or not'",
    "ok": "1 - coalesce(ok, 0)",
    "answers": "coalesce(answers, 0) + 1",
    "facts": "replace(facts, 'done', 'failed') || ' '",
    "digest": "zeroblob(32)",
}
ODD_VALUES = {
    "upgrade": "x'31'",
    "at": "replace(at, 'Z', '+00:00')",
    "kind": "7",
    "deed": "x'00'",
    "node": "x'00'",
    "text": "7.5",
    "ok": "2",
    "answers": "'x'",
    "facts": "x'00'",
    "digest": "'text'",
}
MORE_ODD_VALUES = {
    "at": "'2031-05-04T03:02:00.000000'",
    "deed": "'nonsense'",
    "ok": "'yes'",
    "digest": "x''",
    "text": "CAST(x'ff' AS TEXT)",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    directory = tmp_path_factory.mktemp("audit") / "journal"
    journal = opened(directory)
    entries = recorded(journal)
    whole_upgrade(journal)
    begin(journal)
    journal.close()
    return directory, entries


def require_found(directory: Path, first_bad: int) -> None:
    with JournalReader.open(directory) as reader, pytest.raises(AuditBroken, match=f"entry {first_bad}:"):
        reader.verify()
    with pytest.raises(AuditBroken, match=f"entry {first_bad}:"):
        opened(directory)


@pytest.mark.parametrize("values", [EDITS, ODD_VALUES, MORE_ODD_VALUES], ids=["likely", "odd", "odder"])
def test_every_column_of_every_entry_edited(
    original: tuple[Path, list[Entry]], tmp_path: Path, values: dict[str, str]
) -> None:
    for entry in original[1]:
        for column, value in values.items():
            directory = copied(original[0], tmp_path / "edited")
            edit(directory, f"UPDATE entries SET {column} = {value} WHERE seq = ?", entry.seq)  # noqa: S608
            require_found(directory, entry.seq)


def test_every_entry_removed(original: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    for entry in original[1][:-1]:
        directory = copied(original[0], tmp_path / "removed")
        edit(directory, "DELETE FROM entries WHERE seq = ?", entry.seq)
        require_found(directory, entry.seq)
        edit(directory, "UPDATE entries SET seq = seq - 1 WHERE seq > ?", entry.seq)
        require_found(directory, entry.seq)


def test_two_neighbours_swapped(original: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    for entry in original[1][:-1]:
        directory = copied(original[0], tmp_path / "swapped")
        for before, after in ((entry.seq, -1), (entry.seq + 1, entry.seq), (-1, entry.seq + 1)):
            edit(directory, "UPDATE entries SET seq = ? WHERE seq = ?", after, before)
        require_found(directory, entry.seq)


def test_an_entry_inserted_anywhere(original: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    for entry in original[1]:
        directory = copied(original[0], tmp_path / "inserted")
        edit(directory, "UPDATE entries SET seq = -seq - 1 WHERE seq >= ?", entry.seq)
        edit(directory, "UPDATE entries SET seq = -seq WHERE seq < 0")
        with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as database:
            add(database, replace(entry, text="it was not so"))
        require_found(directory, entry.seq)


def test_one_in_front_of_all(original: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    for seq in (0, -5, -(2**63), 2**63 - 1):
        directory = copied(original[0], tmp_path / "front")
        with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as database:
            add(database, replace(original[1][0], seq=seq))
        require_found(directory, 1 if seq < 1 else len(original[1]) + 1)


def test_a_tail_that_was_cut_shows_against_a_head_that_was_noted(
    original: tuple[Path, list[Entry]], tmp_path: Path
) -> None:
    entries = original[1]
    for kept in range(len(entries)):
        directory = copied(original[0], tmp_path / "cut")
        edit(directory, "DELETE FROM entries WHERE seq > ?", kept)
        with JournalReader.open(directory) as reader:
            assert reader.verify() == kept  # by itself it is whole
            for noted in entries[:kept]:
                assert reader.verify(noted.digest.hex().upper()) == kept
            for noted in entries[kept:]:
                with pytest.raises(AuditBroken, match="its end was cut or rewritten"):
                    reader.verify(noted.digest.hex())


def rewritten(entries: list[Entry], change: Callable[[Entry], Entry]) -> list[Entry]:
    chain: list[Entry] = []
    for entry in map(change, entries):
        chain.append(replace(entry, digest=entry.chained(chain[-1].digest if chain else CHAIN_START)))
    return chain


def test_a_chain_that_was_made_anew_shows_too(original: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    directory, entries = original
    head = entries[-1].digest.hex()
    for seq in range(1, len(entries) + 1):
        forged = rewritten(entries, lambda one: replace(one, text="all was well") if one.seq == seq else one)  # noqa: B023
        there = copied(directory, tmp_path / "forged")
        edit(there, "DELETE FROM entries")
        with closing(sqlite3.connect(there / DATABASE, isolation_level=None)) as database:
            for entry in forged:
                add(database, entry)
        with JournalReader.open(there) as reader:
            assert reader.verify() == len(entries)
            with pytest.raises(AuditBroken):
                reader.verify(head)


def test_nothing_noted_needs_nothing(tmp_path: Path) -> None:
    with JournalReader.open(tmp_path) as reader:
        assert reader.verify(CHAIN_START.hex()) == 0
        with pytest.raises(AuditBroken):
            reader.verify("ab" * 32)


def test_a_chain_with_a_gap_in_its_numbers_is_none(original: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    directory = copied(original[0], tmp_path / "gap")
    edit(directory, "DELETE FROM entries")
    with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as database:
        for entry in rewritten(original[1][:2], lambda one: replace(one, seq=one.seq * 2 - 1)):
            add(database, entry)
    with JournalReader.open(directory) as reader, pytest.raises(AuditBroken, match="entry 2: entry 3 stands"):
        reader.verify()
