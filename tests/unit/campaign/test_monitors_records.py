"""Invariants 16 and 20 to 22: the journal, and what an end says of itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.monitors.records import most_entries
from ess_can.errors import EssCanError, HeldOpen, HeldOpenByChoice, PcsFault
from ess_can.gateway.config import Afterwards
from ess_can.gateway.phases import Phase
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.report import Report
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.journal.journal import Journal
from ess_can.signals.messages import PcsCommandCode
from tests.scenario.support import BMU1, play
from tests.unit.campaign.monitor_rig import Rig, seen

_CONTENT = b"an upgrade file"
I = Invariant  # noqa: E741 - the tests read better


def begun(rig: Rig) -> Journal:
    journal = Journal.in_memory()
    rig.monitors.attach_journal(journal)
    journal.begin("a release", _CONTENT, hashlib.sha256(_CONTENT).digest(), "{}")
    return journal


# --- 16 -----------------------------------------------------------------------------------------------


def test_16_intents_before_and_results_after() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.read_all()
        ramp_down = journal.intent(Deed.RAMP_DOWN)
        rig.command(PcsCommandCode.ZERO_POWER)
        await pause(1.0)
        journal.result(ramp_down, ok=True)
        await pause(1.0)
        restart = journal.intent(Deed.RESTART, str(BMU1))
        rig.raw("021101")
        await pause(0.1)
        journal.result(restart, ok=False, text="refused")
        journal.end("done", "", "{}")

    assert seen(script) == set()


def test_16_an_order_without_an_intent() -> None:
    async def script(rig: Rig) -> None:
        begun(rig)
        await rig.read_all()
        rig.command(PcsCommandCode.ZERO_POWER)
        await pause(0.1)

    assert seen(script) == {I.RECORDED}


def test_16_the_intent_of_another_deed() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.read_all()
        journal.intent(Deed.LOCK)
        rig.command(PcsCommandCode.ZERO_POWER)
        await pause(0.1)

    assert seen(script) == {I.RECORDED}


def test_16_the_intent_for_another_node() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.read_all()
        journal.intent(Deed.RESTART, "comm_gateway")
        rig.raw("021101")
        await pause(0.1)

    assert seen(script) == {I.RECORDED}


def test_16_a_deed_that_goes_on_after_its_result() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.read_all()
        journal.result(journal.intent(Deed.RESTART, str(BMU1)), ok=True)
        await pause(0.3)
        rig.raw("021101")
        await pause(0.1)

    assert seen(script) == {I.RECORDED}


def test_16_a_deed_without_a_result_at_the_end() -> None:
    """The journal itself does not let that happen: so its entries are told in its place."""

    async def script(rig: Rig) -> None:
        journal = begun(rig)
        heard: list[Entry] = []
        journal.on_entry.insert(0, heard.append)
        tell = journal.on_entry[1]
        journal.intent(Deed.LOCK)
        ended = replace(heard[-1], seq=heard[-1].seq + 1, kind=Kind.ENDED, deed=None)
        tell(replace(ended, digest=ended.chained(heard[-1].digest)))

    assert I.RECORDED in seen(script)


def test_16_without_a_journal_that_works_the_plant_is_still_made_safe() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.read_all()
        for told in journal.on_failure:
            told()
        rig.command(PcsCommandCode.LOCK)
        await pause(0.1)

    assert seen(script) == set()


def test_16_without_a_journal_that_works_nothing_is_written() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.isolate()
        for told in journal.on_failure:
            told()
        await pause(0.3)
        rig.write_request()
        await pause(0.1)

    assert I.RECORDED in seen(script)


# --- 22 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["text = 'another'", "seq = 99"])
def test_22_an_entry_is_changed(column: str) -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        journal.note("as it was")
        journal.note("and the last")
        for trigger in ("entries_stay", "entries_remain"):
            journal._connection.execute(f"DROP TRIGGER {trigger}")
        journal._connection.execute(f"UPDATE entries SET {column} WHERE seq = 2")  # noqa: S608 - constants

    assert seen(script) == {I.AUDIT_CHAIN}


def test_22_entries_that_do_not_follow_each_other() -> None:
    async def script(rig: Rig) -> None:
        journal = Journal.in_memory()
        rig.monitors.attach_journal(journal)
        heard = journal.on_entry[0]
        journal.on_entry[0] = lambda entry: heard(replace(entry, seq=entry.seq + 1))
        journal.begin("a release", _CONTENT, hashlib.sha256(_CONTENT).digest(), "{}")

    assert seen(script) == {I.AUDIT_CHAIN}


def test_22_the_next_process_finds_less_than_was_written() -> None:
    async def script(rig: Rig) -> None:
        begun(rig).note("this one is lost")
        rig.monitors.attach_journal(Journal.in_memory())

    assert seen(script) == {I.AUDIT_CHAIN}


# --- 20 and 21: a report that lies ------------------------------------------------------------------------


def ended_with(report: Report, afterwards: Afterwards = Afterwards.AS_FOUND) -> set[Invariant]:
    async def script(rig: Rig) -> None:
        rig.monitors.ended(report, afterwards)

    return seen(script)


def test_20_success_that_was_none() -> None:
    report = play().report
    assert report.result is Phase.DONE
    # The same words about a plant on which nothing was done.
    assert ended_with(report) == {I.SUCCESS}


def test_20_held_open_by_choice_and_it_is_not() -> None:
    report = Report(result=Phase.HELD_OPEN, error=HeldOpenByChoice("as asked"))
    assert ended_with(report, Afterwards.HOLD_OPEN) == {I.SUCCESS}


def test_20_success_but_high_voltage_is_not_back() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.monitors.ended(Report(result=Phase.DONE, hv_after=Connection.OPEN))

    assert seen(script) == {I.SUCCESS}


def test_21_an_error_without_a_type() -> None:
    assert ended_with(Report(result=Phase.FAILED, error=EssCanError("something"))) == {I.TYPED_FAILURE}


def test_21_an_end_that_is_none() -> None:
    assert ended_with(Report(result=Phase.PROGRAM, error=PcsFault("tripped"))) == {I.TYPED_FAILURE}


def test_21_a_failure_without_an_error() -> None:
    assert ended_with(Report(result=Phase.FAILED)) == {I.TYPED_FAILURE}


def test_21_said_to_be_safe_and_it_is_not() -> None:
    report = Report(result=Phase.HELD_OPEN, error=HeldOpen("held"), proved_safe=True)
    assert ended_with(report) == {I.TYPED_FAILURE}


def test_21_a_typed_failure_is_one() -> None:
    assert ended_with(Report(result=Phase.REFUSED, error=PcsFault("tripped"))) == set()


def test_21_the_journal_does_not_say_how_it_ended() -> None:
    async def script(rig: Rig) -> None:
        begun(rig)
        rig.monitors.ended(Report(result=Phase.FAILED, error=PcsFault("tripped")))

    assert seen(script) == {I.TYPED_FAILURE}


@pytest.mark.parametrize(("error", "broken"), [("PCS_FAULT", set()), ("BUS_OFF", {I.TYPED_FAILURE})])
def test_21_the_journal_says_what_it_ended_with(error: str, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        begun(rig).end(Phase.FAILED.value, error, "{}")
        rig.monitors.ended(Report(result=Phase.FAILED, error=PcsFault("tripped")))

    assert seen(script) == broken


# --- the enumeration ----------------------------------------------------------------------------------------


def test_all_28_have_a_number_and_a_sentence() -> None:
    assert [invariant.number for invariant in Invariant] == list(range(1, 29))
    assert all(invariant.sentence.endswith(".") for invariant in Invariant)


# --- 24 -----------------------------------------------------------------------------------------------

MOST = most_entries(nodes=2, attempts=4)


@pytest.mark.parametrize(("notes", "broken"), [(MOST - 1, set()), (MOST, {I.BOUNDED})])
def test_24_a_journal_that_grows_without_end(notes: int, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        for _ in range(notes):
            journal.note("again")

    assert seen(script) == broken


def test_24_each_run_has_its_own_entries() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        for _ in range(3):
            for _ in range(MOST - 1):
                journal.note("again")
            journal.resume("1")

    assert seen(script) == set()


@pytest.mark.parametrize(("size", "broken"), [(512, set()), (1024, {I.BOUNDED})])
def test_24_entries_that_are_too_long(size: int, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        for _ in range(MOST - 2):
            journal.note("x" * size)

    assert seen(script) == broken
