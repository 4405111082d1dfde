"""Power is lost while the journal writes: its log is cut, or wrong in a byte, anywhere in the last transaction.

What was committed before stays, to the last entry; what was being written is there as a whole or not at all.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from ess_can.journal.entries import Deed, Entry
from ess_can.journal.journal import Journal
from ess_can.journal.store import DATABASE
from tests.campaign.counts import Count
from tests.campaign.scale import chosen
from tests.unit.journal.rig import REPORT, begin, copied, deed, opened, recorded, same_meaning, whole_upgrade

LOG = f"{DATABASE}-wal"
_LOG_HEADER = 32
_FRAME = 24 + 4096


def _nothing(_journal: Journal) -> None:
    pass


def _under_way(journal: Journal) -> None:
    whole_upgrade(journal)
    begin(journal)
    journal.found("connected")
    deed(journal, Deed.OPEN_CONTACTORS)
    journal.intent(Deed.TRANSFER, "bmu1")


def _log_worked_off(journal: Journal) -> None:
    """All of the log is in the database: the next transaction begins it anew, over what stands there."""
    _under_way(journal)
    assert journal.directory is not None
    with closing(sqlite3.connect(journal.directory / DATABASE)) as database:
        assert database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0


def _intend(journal: Journal) -> None:
    journal.intent(Deed.CONFIRM, "bmu1", "the new image is good")


LAST: dict[str, tuple[Callable[[Journal], None], Callable[[Journal], None]]] = {
    "an upgrade began": (whole_upgrade, begin),
    "an intent": (_under_way, _intend),
    "a result": (_under_way, lambda journal: journal.result(journal.open_intents()[0].seq, ok=True, text="verified")),
    "evidence of several pages": (_under_way, lambda journal: journal.evidence("rack 1 says that it is open " * 500)),
    "an upgrade ended": (_under_way, lambda journal: journal.end("done", "", REPORT)),
    "an intent, the log begun anew": (_log_worked_off, _intend),
    "the first entry": (_nothing, begin),
}


@dataclass(frozen=True)
class Cut:
    """A journal's directory without its log, the log, and where in it the last transaction is."""

    directory: Path
    log: bytes
    first: int
    end: int
    committed: list[Entry]

    def left_with(self, log: bytes, to: Path) -> Path:
        """The directory as found after power came back."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.directory, to)
        (to / LOG).write_bytes(log)
        return to


def _cut(name: str, scratch: Path) -> Cut:
    before, act = LAST[name]
    journal = opened(scratch / "journal")
    entries = recorded(journal)
    before(journal)
    directory = copied(scratch / "journal", scratch / "left")
    old = (directory / LOG).read_bytes()
    act(journal)
    new = (scratch / "journal" / LOG).read_bytes()
    shutil.copytree(scratch / "journal" / "files", directory / "files", dirs_exist_ok=True)
    assert (scratch / "journal" / DATABASE).read_bytes() == (directory / DATABASE).read_bytes()
    journal.close()
    (directory / LOG).unlink()
    first, last = _changed(old, new)
    frames = -(-(last + 1 - _LOG_HEADER) // _FRAME)
    first = 0 if first < _LOG_HEADER else first
    return Cut(directory, new, first, _LOG_HEADER + frames * _FRAME, entries)


def _changed(old: bytes, new: bytes) -> tuple[int, int]:
    """The first and the last offset at which they differ."""
    differ = [at for at in range(len(new)) if old[at : at + 1] != new[at : at + 1]]
    return differ[0], differ[-1]


@pytest.fixture(params=list(LAST))
def cut(request: pytest.FixtureRequest, tmp_path: Path) -> Cut:
    made = _cut(str(request.param), tmp_path)
    assert made.end <= len(made.log)
    assert (made.first == 0) == (request.param == "an intent, the log begun anew")
    return made


def _require_prefix(directory: Path, committed: list[Entry]) -> None:
    """The next process finds exactly this, and goes on from there."""
    journal = opened(directory)
    with journal.reader() as reader:
        assert reader.verify() == len(committed)
        found = [entry for record in reader.upgrades() for entry in reader.entries(record.id)]
    assert found == committed
    assert same_meaning(journal, committed)
    unfinished = journal.unfinished()
    if unfinished is not None:
        assert journal.kept_file(unfinished.id).size
        journal.resume(unfinished.id)
        for intent in journal.open_intents():
            journal.result(intent.seq, ok=False, text="interrupted")
        journal.end("failed", "INTERRUPTED", "")
    begin(journal)
    journal.close()


def test_the_log_cut_at_every_byte_of_the_last_transaction(cut: Cut, tmp_path: Path, count: Count) -> None:
    cases = chosen(range(cut.first, cut.end + 1), quick=30, slice_=300)
    for at in {*cases, cut.end - 1, cut.end}:
        directory = cut.left_with(cut.log[:at], tmp_path / "found")
        _require_prefix(directory, cut.committed if at == cut.end else cut.committed[:-1])
    count("journal: log cut in its last transaction", len(cases))


def test_every_byte_of_the_last_transaction_wrong(cut: Cut, tmp_path: Path, count: Count) -> None:
    cases = chosen(range(cut.first, cut.end), quick=30, slice_=300)
    for at in cases:
        log = bytearray(cut.log)
        log[at] ^= random.Random(at).randrange(1, 256)
        _require_prefix(cut.left_with(bytes(log), tmp_path / "found"), cut.committed[:-1])
    count("journal: a wrong byte in the log's last transaction", len(cases))


def test_the_very_making_of_a_journal_interrupted(tmp_path: Path, count: Count) -> None:
    journal = opened(tmp_path / "journal")
    directory = copied(tmp_path / "journal", tmp_path / "left")
    log = (directory / LOG).read_bytes()
    journal.close()
    made = Cut(directory, log, 0, len(log), [])
    cases = chosen(range(len(log) + 1), quick=60, slice_=600)
    for at in cases:
        _require_prefix(made.left_with(log[:at], tmp_path / "found"), [])
    count("journal: its making cut", len(cases))
