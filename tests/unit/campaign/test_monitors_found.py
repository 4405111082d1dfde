"""Invariant 20: high voltage is left as the first attempt found it, or as the site wants it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.operator import disconnect
from ess_can.errors import HeldOpenByChoice
from ess_can.gateway.config import Afterwards
from ess_can.gateway.phases import Phase
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.report import Report
from ess_can.journal.journal import Journal
from ess_can.signals.messages import PcsCommandCode
from tests.unit.campaign.monitor_rig import ONE_RACK, Rig, Script, seen, watch

_CONTENT = b"an upgrade file"
I = Invariant  # noqa: E741 - the tests read better
LEFT_OPEN = Report(result=Phase.DONE, hv_after=Connection.OPEN)
"""What a gateway says that knows nothing of how the plant was found at first."""
LEFT_CONNECTED = Report(result=Phase.DONE, hv_after=Connection.CONNECTED)
FOUND_OPEN = replace(ONE_RACK, running=False)


def begun(rig: Rig) -> Journal:
    """Only what is said of the end is looked at here: the deeds are on record elsewhere."""
    journal = Journal.in_memory()
    rig.monitors.attach_journal(journal)
    journal.begin("a release", _CONTENT, hashlib.sha256(_CONTENT).digest(), "{}")
    return journal


def judged(script: Script) -> set[Invariant]:
    return seen(script) & {I.SUCCESS}


@pytest.mark.parametrize(("unfinished", "broken"), [(True, {I.SUCCESS}), (False, set())])
def test_20_a_resumed_upgrade_leaves_open_what_the_first_attempt_found_connected(
    unfinished: bool, broken: set[Invariant]
) -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.isolate()
        if not unfinished:
            journal.end(Phase.DONE.value, "", "{}")
        rig.monitors.attach_journal(journal)
        rig.command(PcsCommandCode.LOCK)
        await pause(0.2)
        rig.monitors.ended(LEFT_OPEN)

    assert judged(script) == broken


@pytest.mark.parametrize(
    ("afterwards", "report", "broken"),
    [
        (Afterwards.AS_FOUND, LEFT_OPEN, set()),
        (Afterwards.CONNECT, LEFT_OPEN, {I.SUCCESS}),
        (Afterwards.HOLD_OPEN, LEFT_OPEN, {I.SUCCESS}),
        (Afterwards.HOLD_OPEN, Report(result=Phase.HELD_OPEN, error=HeldOpenByChoice("as asked")), set()),
        (Afterwards.AS_FOUND, Report(result=Phase.HELD_OPEN, error=HeldOpenByChoice("as asked")), {I.SUCCESS}),
    ],
)
def test_20_a_plant_that_is_not_left_as_its_site_wants(
    afterwards: Afterwards, report: Report, broken: set[Invariant]
) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.monitors.ended(report, afterwards)

    assert seen(script, spec=FOUND_OPEN) == broken


def test_20_what_was_found_open_is_closed() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        await rig.close()
        rig.monitors.ended(LEFT_CONNECTED, Afterwards.CONNECT)
        rig.monitors.ended(replace(LEFT_CONNECTED))

    monitors = watch(script, spec=FOUND_OPEN)
    assert [each.text for each in monitors.violations] == ["success, but high voltage is connected, and was found open"]


@pytest.mark.parametrize("by_site", [True, False])
def test_20_what_somebody_opened_since_stays_open(by_site: bool) -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.read_all()
        rig.command(PcsCommandCode.ZERO_POWER)
        await pause(0.5)
        rig.fall_silent()
        await pause(1.0)
        if by_site:
            await disconnect(rig.plant)
        rig.monitors.attach_journal(journal)
        rig.command(PcsCommandCode.LOCK)
        await pause(0.2)
        rig.monitors.ended(LEFT_OPEN)

    assert bool(judged(script)) is not by_site


def test_20_a_plant_whose_lock_is_gone_is_as_it_is() -> None:
    async def script(rig: Rig) -> None:
        journal = begun(rig)
        await rig.isolate()
        rig.fall_silent()
        rig.plant.pcs.locked = False
        await pause(0.1)
        rig.monitors.attach_journal(journal)
        rig.command(PcsCommandCode.LOCK)
        await pause(0.2)
        rig.monitors.ended(LEFT_OPEN)

    assert judged(script) == set()
