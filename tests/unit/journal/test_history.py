from __future__ import annotations

from collections.abc import Callable

import pytest

from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.journal.history import BeganFacts, EndedFacts, History
from tests.unit.journal.rig import BEGINNING, SHA256

BEGAN = BeganFacts("bmu 1.1.0", SHA256, "{}").text()
ENDED = EndedFacts("done", "", "{}").text()


def entry(seq: int, kind: Kind, upgrade: str = "1", **more: object) -> Entry:
    return Entry(seq, upgrade, BEGINNING, kind, **more)  # type: ignore[arg-type]


def under_way() -> History:
    history = History()
    history.take(entry(1, Kind.BEGAN, facts=BEGAN))
    history.take(entry(2, Kind.INTENT, deed=Deed.LOCK, node="pcs"))
    return history


def test_an_intent_is_open_until_its_result() -> None:
    history = under_way()
    history.take(entry(3, Kind.INTENT, deed=Deed.TRANSFER, node="bmu1"))
    assert [one.seq for one in history.open_intents.values()] == [2, 3]
    result = entry(4, Kind.RESULT, deed=Deed.LOCK, node="pcs", ok=True, answers=2)
    history.take(result)
    assert list(history.open_intents) == [3]
    assert history.last(Deed.LOCK) == result
    assert history.last(Deed.TRANSFER) == history.open_intents[3]
    assert history.last(Deed.CONFIRM) is None


def test_an_upgrade_that_ended_leaves_nothing_open() -> None:
    history = under_way()
    history.take(entry(3, Kind.FOUND, text="open"))
    history.take(entry(4, Kind.ENDED, facts=ENDED))
    assert history.unfinished is None
    assert (history.open_intents, history.last(Deed.LOCK), history.next_id) == ({}, None, "2")
    record = history.upgrades["1"]
    assert (record.finished, record.found, record.result, record.file_sha256) == (True, "open", "done", SHA256)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (entry(3, Kind.BEGAN, "2", facts=BEGAN), "has not ended"),
        (entry(3, Kind.NOTE, "2"), "not under way"),
        (entry(3, Kind.NOTE, ""), "not under way"),
        (entry(3, Kind.INTENT), "intent of nothing"),
        (entry(3, Kind.RESULT, deed=Deed.LOCK, node="pcs", ok=True), "no intent"),
        (entry(3, Kind.RESULT, deed=Deed.LOCK, node="pcs", ok=True, answers=1), "no intent"),
        (entry(3, Kind.RESULT, deed=Deed.LOCK, node="", ok=True, answers=2), "another deed"),
        (entry(3, Kind.RESULT, deed=Deed.UNLOCK, node="pcs", ok=True, answers=2), "another deed"),
        (entry(3, Kind.RESULT, deed=Deed.LOCK, node="pcs", answers=2), "another deed"),
        (entry(3, Kind.ENDED, facts="{"), "JSON|property"),
        (entry(3, Kind.ENDED, facts='{"result": "done"}'), "not the facts"),
        (entry(3, Kind.ENDED, facts='{"result": "done", "error": 1, "report": ""}'), "not the facts"),
        (entry(3, Kind.ENDED, facts="[]"), "not the facts"),
    ],
)
def test_what_cannot_follow_changes_nothing(wrong: Entry, why: str) -> None:
    history = under_way()
    with pytest.raises(ValueError, match=why):
        history.take(wrong)
    assert list(history.open_intents) == [2]
    assert history.unfinished is not None
    assert len(history.upgrades) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: entry(1, Kind.NOTE),
        lambda: entry(1, Kind.BEGAN, "2", facts=BEGAN),
        lambda: entry(1, Kind.BEGAN, "", facts=BEGAN),
        lambda: entry(1, Kind.BEGAN, facts=BEGAN.replace(SHA256.hex(), "no digest")),
    ],
)
def test_what_cannot_be_the_first(make: Callable[[], Entry]) -> None:
    history = History()
    with pytest.raises(ValueError, match=r"not under way|the next upgrade is 1|non-hexadecimal"):
        history.take(make())
    assert history.upgrades == {}


def test_an_upgrade_takes_the_place_of_the_one_that_ended_right_before_only() -> None:
    facts = BeganFacts("bmu 1.2.0", SHA256, "{}", supersedes="1").text()
    with pytest.raises(ValueError, match="upgrade 1 did not end right before"):
        History().check(entry(1, Kind.BEGAN, facts=facts))
