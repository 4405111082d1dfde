"""A journal under arbitrary calls, deaths and losses of power, compared with a list."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ess_can.errors import JournalError, Locked, NoSuchUpgrade, NothingToResume
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.journal.journal import Journal
from tests.unit.journal.rig import FILE, SHA256, WallClock, copied, same_meaning, stored

TEXTS = st.text(max_size=60)


class JournalMachine(RuleBasedStateMachine):
    @initialize(on_disk=st.booleans())
    def make(self, on_disk: bool) -> None:
        self.clock = WallClock()
        self.scratch = Path(tempfile.mkdtemp(prefix="journal-"))
        self.place = self.scratch / "0"
        self.deaths = 0
        self.on_disk = on_disk
        self.journal = Journal.open(self.place, self.clock) if on_disk else Journal.in_memory(self.clock)
        self.written: list[Entry] = []
        self.journal.on_entry.append(self.written.append)
        self.upgrades = 0
        self.unfinished = False
        self.resumed = False
        self.open: dict[int, tuple[Deed, str]] = {}

    # --- what the gateway may do in any order ---------------------------------------------------

    @rule(release=TEXTS, options=TEXTS)
    def begin(self, release: str, options: str) -> None:
        if self.unfinished:
            with pytest.raises(JournalError, match="has not ended"):
                self.journal.begin(release, FILE, SHA256, options)
            return
        record = self.journal.begin(release, FILE, SHA256, options)
        self.upgrades += 1
        assert (record.id, record.release, record.options) == (str(self.upgrades), release, options)
        self.unfinished = self.resumed = True

    @rule(number=st.integers(0, 4))
    def resume(self, number: int) -> None:
        if self.unfinished and number == self.upgrades:
            self.journal.resume(str(number))
            self.resumed = True
        else:
            with pytest.raises((NoSuchUpgrade, NothingToResume)):
                self.journal.resume(str(number))

    @precondition(lambda self: not (self.unfinished and self.resumed))
    @rule(deed=st.sampled_from(Deed), text=TEXTS)
    def act_without_an_upgrade(self, deed: Deed, text: str) -> None:
        with pytest.raises(ValueError, match="not under way"):
            self.journal.intent(deed, text=text)
        with pytest.raises(ValueError, match="not under way"):
            self.journal.end("done", "", text)

    @precondition(lambda self: self.unfinished and self.resumed)
    @rule(deed=st.sampled_from(Deed), node=st.sampled_from(["", "bmu1", "bmu2"]), text=TEXTS)
    def intend(self, deed: Deed, node: str, text: str) -> None:
        seq = self.journal.intent(deed, node, text)
        self.open[seq] = (deed, node)
        last = self.journal.last(deed)
        assert last is not None
        assert (last.seq, last.kind, last.node, last.text) == (seq, Kind.INTENT, node, text)

    @precondition(lambda self: self.unfinished and self.resumed)
    @rule(pick=st.integers(0, 5), ok=st.booleans(), text=TEXTS)
    def tell_the_result(self, pick: int, ok: bool, text: str) -> None:
        if pick >= len(self.open):
            with pytest.raises(ValueError, match="no intent"):
                self.journal.result(10_000 + pick, ok, text)
            return
        seq = list(self.open)[pick]
        self.journal.result(seq, ok, text)
        deed, node = self.open.pop(seq)
        told = self.written[-1]
        assert (told.kind, told.deed, told.node, told.ok, told.answers) == (Kind.RESULT, deed, node, ok, seq)

    @precondition(lambda self: self.unfinished and self.resumed)
    @rule(text=TEXTS, what=st.sampled_from(["found", "phase", "evidence", "note"]))
    def remark(self, text: str, what: str) -> None:
        calls = {
            "found": self.journal.found,
            "phase": self.journal.phase,
            "evidence": self.journal.evidence,
            "note": self.journal.note,
        }
        calls[what](text)
        assert (self.written[-1].kind.value, self.written[-1].text) == (what, text)

    @precondition(lambda self: self.unfinished and self.resumed)
    @rule(result=TEXTS, error=TEXTS, report=TEXTS)
    def end(self, result: str, error: str, report: str) -> None:
        self.journal.end(result, error, report)
        self.unfinished = False
        self.open.clear()
        with self.journal.reader() as reader:
            record = reader.upgrade("last")
        assert (record.result, record.error, record.report) == (result, error, report)

    # --- what may happen to it ------------------------------------------------------------------

    @rule(years=st.integers(-20, 20))
    def set_the_clock(self, years: int) -> None:
        self.clock.time = self.clock.time.replace(year=2030 + years, day=1)

    @rule()
    def die(self) -> None:
        self._found_again(self.journal.survivor())

    @precondition(lambda self: self.on_disk)
    @rule()
    def lose_power(self) -> None:
        """The next one finds what was on the disk at this moment; nobody closed it."""
        self.deaths += 1
        left = copied(self.place, self.scratch / str(self.deaths))
        self.journal.close()
        self.place = left
        self._found_again(Journal.open(left, self.clock))

    @precondition(lambda self: self.on_disk)
    @rule()
    def somebody_else_wants_it(self) -> None:
        with pytest.raises(Locked):
            Journal.open(self.place, self.clock)

    def _found_again(self, journal: Journal) -> None:
        self.journal = journal
        self.journal.on_entry.append(self.written.append)
        self.resumed = False

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    def it_says_what_was_written(self) -> None:
        assert same_meaning(self.journal, self.written)
        assert [entry.seq for entry in self.written] == list(range(1, len(self.written) + 1))
        assert {intent.seq: (intent.deed, intent.node) for intent in self.journal.open_intents()} == self.open
        unfinished = self.journal.unfinished()
        assert (unfinished is not None) == self.unfinished
        if unfinished is not None:
            kept = self.journal.kept_file(unfinished.id)
            assert kept.read(0, kept.size) == FILE

    def teardown(self) -> None:
        with self.journal.reader() as reader:
            assert reader.verify(self.journal.head) == len(self.written)
        self.journal.close()
        if self.on_disk:
            assert stored(self.place) == self.written
            files = [path.stem for path in (self.place / "files").iterdir()]
            assert files == ([str(self.upgrades)] if self.unfinished else [])
        shutil.rmtree(self.scratch)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
