"""Errors of the journal, on a disk, after an upgrade of a simulated station wrote it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ess_can.campaign.plants import NEW, SMALLEST
from ess_can.campaign.releases import release
from ess_can.campaign.station import Station
from ess_can.errors import (
    AuditBroken,
    JournalCorrupt,
    JournalError,
    JournalVersionUnknown,
    Locked,
    NoSuchUpgrade,
)
from ess_can.journal.journal import Journal
from ess_can.journal.reader import JournalReader
from ess_can.journal.store import DATABASE
from ess_can.sim.loop import run_virtual
from tests.campaign.reached import Reached
from tests.unit.journal.rig import FILE, SHA256, WallClock, edit


def _written(directory: Path) -> Path:
    """The journal of an upgrade."""
    place = directory / "journal"

    async def upgrade() -> None:
        spec = replace(SMALLEST.plant, running=False)
        station = Station(spec, release(SMALLEST.release, NEW, SMALLEST.payload_bytes), 1, directory=place)
        await station.settle()
        station.start_upgrade()
        if not await station.ended() or station.report is None or station.report.error is not None:
            raise AssertionError(f"the upgrade failed: {station.report}")
        station.switch_off()
        station.journal.close()

    run_virtual(upgrade())
    return place


def _history_verified(place: Path) -> object:
    with JournalReader.open(place) as reader:
        return reader.verify()


def _tampered(directory: Path) -> object:
    place = _written(directory)
    if not _history_verified(place):
        raise AssertionError("the upgrade left no record")
    edit(place, "UPDATE entries SET text = text || '!' WHERE seq = ?", 5)
    return _history_verified(place)


def _overwritten(directory: Path) -> object:
    place = _written(directory)
    database = place / DATABASE
    content = bytearray(database.read_bytes())
    content[4096:8192] = bytes(range(256)) * 16
    database.write_bytes(content)
    return Journal.open(place, WallClock())


def _of_a_newer_version(directory: Path) -> object:
    place = _written(directory)
    edit(place, "PRAGMA user_version = 999")
    return Journal.open(place, WallClock())


def _in_use(directory: Path) -> object:
    with closing(Journal.open(directory, WallClock())):
        return Journal.open(directory, WallClock())


def _not_there(directory: Path) -> object:
    with JournalReader.open(_written(directory)) as reader:
        reader.upgrade("last")
        return reader.upgrade("2")


def _two_at_once(_directory: Path) -> object:
    with closing(Journal.in_memory()) as journal:
        journal.begin("first", FILE, SHA256, "")
        return journal.begin("second", FILE, SHA256, "")


REACHED = (
    Reached(AuditBroken, _tampered),
    Reached(JournalCorrupt, _overwritten),
    Reached(JournalVersionUnknown, _of_a_newer_version),
    Reached(Locked, _in_use),
    Reached(NoSuchUpgrade, _not_there),
    Reached(JournalError, _two_at_once),
)
