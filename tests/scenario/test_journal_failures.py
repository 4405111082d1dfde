"""A journal that cannot be written: nothing is begun without it, and what was begun ends safely."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ess_can.bus.clock import pause
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import Report
from ess_can.journal.journal import Journal
from ess_can.journal.reader import JournalReader
from ess_can.sim.loop import run_virtual
from tests.scenario.support import NEW, OLD, QUICK, SETTLED_S, Scene, changes_plant, release, small_plant

KIB = 8


class FailingDisk(sqlite3.Connection):
    """Commits so many entries; each one after that fails."""

    left = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("INSERT"):
            if self.left <= 0:
                raise sqlite3.OperationalError("disk I/O error")
            self.left -= 1
        return super().execute(sql, *parameters)


def journal_on(directory: Path, commits: int) -> Journal:
    class Disk(FailingDisk):
        left = commits

    return Journal.open(
        directory, lambda: datetime(2031, 5, 4, tzinfo=UTC), connect=partial(sqlite3.connect, factory=Disk)
    )


def play(journal: Journal) -> tuple[Report, Scene, bool]:
    """An upgrade with this journal: its report, the scene, and whether the plant is connected and unlocked again."""

    async def run() -> tuple[Report, Scene, bool]:
        plant = small_plant(QUICK)
        plant.start()
        scene = Scene(plant)
        await pause(SETTLED_S)
        report = await scene.run_upgrade(release(kib=KIB), journal=journal)
        await pause(0.2)
        scene.monitors.finish()
        back = scene.all_connected and not plant.pcs.locked
        versions = {str(version) for version in plant.versions().values()}
        assert scene.monitors.violations == []
        assert versions <= {str(OLD), str(NEW)}
        plant.stop()
        return report, scene, back

    return run_virtual(run())


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """How many a good upgrade has."""
    directory = tmp_path_factory.mktemp("good")
    journal = journal_on(directory, 10_000)
    report, _, back = play(journal)
    assert (report.result, report.error, back) == (Phase.DONE, None, True)
    journal.close()
    with JournalReader.open(directory) as reader:
        assert reader.upgrade("last").result == "done"
        yield reader.verify()


def test_each_write_fails_in_turn(entries: int, tmp_path: Path) -> None:
    for commits in range(entries):
        journal = journal_on(tmp_path / str(commits), commits)
        report, scene, back = play(journal)
        said = f"write {commits + 1} of {entries} fails: {report.result}, {report.error}"
        assert back, said
        assert report.journal_error is not None, said
        assert report.journal_error.name == "JOURNAL_UNWRITABLE"
        assert report.exit_code != 0, said
        if commits < 2:  # what began the record
            assert (report.result, changes_plant(scene)) == (Phase.REFUSED, []), said
        elif report.result is not Phase.DONE:  # else only what came after the last confirmation is missing
            assert report.result in (Phase.FAILED, Phase.ROLLED_BACK), said
        journal.close()
        with JournalReader.open(tmp_path / str(commits)) as reader:
            assert reader.verify() == commits


def test_a_disk_without_room_refuses_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1024}))
    report, scene, _ = play(journal_on(tmp_path, 10_000))
    assert report.error is not None
    assert (report.result, report.error.name) == (Phase.REFUSED, "JOURNAL_UNWRITABLE")
    assert changes_plant(scene) == []
