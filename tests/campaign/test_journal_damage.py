"""A journal's files damaged at random: what it says then is what was committed, or a typed error.

It costs no more than hostile input may elsewhere: memory within 64 MiB, and a bounded number of calls, so no hang.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from ess_can.errors import JournalCorrupt, JournalError
from ess_can.journal.entries import Deed, Entry
from ess_can.journal.store import DATABASE
from tests.campaign.counts import Count
from tests.campaign.scale import chosen
from tests.fuzz.bounds import calls_at_most, within_memory
from tests.unit.journal.rig import begin, deed, opened, outcome, recorded, whole_upgrade

LOG, INDEX = f"{DATABASE}-wal", f"{DATABASE}-shm"
OLDER = 6
UNFINISHED = str(OLDER + 1)
KEPT = f"files/{UNFINISHED}.essup"
WHOLE, HALF_LOGGED = "closed", "killed"
CASES = 3000
CALLS = 400_000
"""What opening and reading the journal may cost; undamaged it is a third of that."""
T = TypeVar("T")
Damage = Callable[[bytearray, random.Random], None]


def _flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _flip_many(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randrange(2, 64)):
        _flip(content, rng)


def _flip_at_the_start(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(min(len(content), 120))] ^= rng.randrange(1, 256)


def _truncate(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _lengthen(content: bytearray, rng: random.Random) -> None:
    content += rng.randbytes(rng.randrange(1, 9000))


def _garbage_block(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at : at + 512] = rng.randbytes(len(content[at : at + 512]))


def _blank_page(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content)) // 4096 * 4096
    content[at : at + 4096] = bytes(len(content[at : at + 4096]))


def _swap_pages(content: bytearray, rng: random.Random) -> None:
    one, other = (rng.randrange(len(content)) // 4096 * 4096 for _ in range(2))
    content[one : one + 4096], content[other : other + 4096] = content[other : other + 4096], content[one : one + 4096]


def _garbage(content: bytearray, rng: random.Random) -> None:
    content[:] = rng.randbytes(len(content))


DAMAGES: list[Damage] = [
    *(_flip, _flip_many, _flip_at_the_start, _truncate, _lengthen),
    *(_garbage_block, _blank_page, _swap_pages, _garbage),
]


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], list[Entry]]:
    """The same journal closed in order, and as a kill leaves it; and what was committed."""
    scratch = tmp_path_factory.mktemp("damage")
    journal = opened(scratch / "journal")
    entries = recorded(journal)
    for _ in range(OLDER):
        whole_upgrade(journal)
    begin(journal)
    journal.close()  # works off the log: from here on the database holds the older half, the log the newer one
    journal = opened(scratch / "journal")
    journal.on_entry.append(entries.append)
    journal.resume(UNFINISHED)
    for number in range(40):
        deed(journal, Deed.TRANSFER, f"bmu{number}")
    journal.evidence("long " * 3000)
    journal.intent(Deed.CONFIRM)
    shutil.copytree(scratch / "journal", scratch / HALF_LOGGED)
    journal.close()
    shutil.copytree(scratch / "journal", scratch / WHOLE)
    return {state: scratch / state for state in (WHOLE, HALF_LOGGED)}, entries


def _damaged(source: Path, to: Path, name: str, case: int) -> Path:
    rng = random.Random(case)
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to)
    content = bytearray((to / name).read_bytes())
    DAMAGES[case % len(DAMAGES)](content, rng)
    (to / name).write_bytes(content)
    return to


@pytest.mark.parametrize(
    ("state", "name"), [(WHOLE, DATABASE), (HALF_LOGGED, DATABASE), (HALF_LOGGED, LOG), (HALF_LOGGED, INDEX)]
)
def test_damaged_at_random(
    journals: tuple[dict[str, Path], list[Entry]], tmp_path: Path, count: Count, state: str, name: str
) -> None:
    directories, committed = journals
    cases = chosen(range(CASES), quick=90, slice_=900)

    def run() -> None:
        seen: Counter[str] = Counter()
        for case in cases:
            directory = _damaged(directories[state], tmp_path / "found", name, case)
            found = _bounded(case, partial(outcome, directory))
            if isinstance(found, list):
                assert found == committed[: len(found)], case
                seen["all" if found == committed else "some"] += 1
            else:
                assert isinstance(found, JournalError), case
                assert found.remedy
                seen[found.name] += 1
        _require_all_kinds(name, seen, len(cases))

    _warmed_up(directories[state], tmp_path)
    within_memory(run)
    count("journal: database, log or index damaged at random", len(cases))


def _warmed_up(directory: Path, scratch: Path) -> None:
    """What reading a journal imports and keeps belongs to the baseline."""
    assert isinstance(outcome(shutil.copytree(directory, scratch / "warm")), list)


def _bounded(case: int, work: Callable[[], T]) -> T:
    """Do it, in no more calls than a journal of this size can be worth."""
    try:
        with calls_at_most(CALLS):
            return work()
    except BaseException as error:
        error.add_note(f"case {case}")
        raise


def _require_all_kinds(name: str, seen: Counter[str], cases: int) -> None:
    """What damage to this file may come to does come."""
    if name == INDEX:
        assert set(seen) == {"all"}  # it is made anew
    elif name == LOG:
        assert seen["some"]
        assert not seen["JOURNAL_UNWRITABLE"]
    else:
        assert seen["JOURNAL_CORRUPT"] > cases // 10
        assert not seen["some"], "entries are missing, and nobody says so"


def test_a_kept_file_damaged_at_random(
    journals: tuple[dict[str, Path], list[Entry]], tmp_path: Path, count: Count
) -> None:
    directories, committed = journals
    original = (directories[WHOLE] / KEPT).read_bytes()
    cases = chosen(range(CASES), quick=45, slice_=300)

    def read(directory: Path) -> None:
        journal = opened(directory)
        if (directory / KEPT).read_bytes() != original:
            with pytest.raises(JournalCorrupt):
                journal.kept_file(UNFINISHED)
        journal.close()
        assert outcome(directory) == committed

    def run() -> None:
        for case in cases:
            directory = _damaged(directories[WHOLE], tmp_path / "found", KEPT, case)
            _bounded(case, partial(read, directory))

    _warmed_up(directories[WHOLE], tmp_path)
    within_memory(run)
    count("journal: kept file damaged at random", len(cases))
