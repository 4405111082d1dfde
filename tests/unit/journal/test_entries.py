from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ess_can.journal.entries import CHAIN_START, Deed, Entry, Kind, storable, time_text

AT = datetime(2031, 5, 4, 3, 2, 1, 20, tzinfo=UTC)
ENTRY = Entry(7, "3", AT, Kind.RESULT, Deed.TRANSFER, "bmu1", 'Köln "ok"', ok=False, answers=6, facts="{}")


def test_the_bytes_that_are_chained_are_these() -> None:
    canonical = b'[7,"3","2031-05-04T03:02:01.000020Z","result","transfer","bmu1","K\\u00f6ln \\"ok\\"",false,6,"{}"]'
    assert ENTRY.chained(CHAIN_START) == hashlib.sha256(bytes(32) + canonical).digest()
    bare = Entry(1, "", AT, Kind.NOTE)
    canonical = b'[1,"","2031-05-04T03:02:01.000020Z","note",null,"","",null,null,""]'
    assert bare.chained(b"\1" * 32) == hashlib.sha256(b"\1" * 32 + canonical).digest()


@pytest.mark.parametrize(
    "other",
    [
        replace(ENTRY, seq=8),
        replace(ENTRY, upgrade="4"),
        replace(ENTRY, at=AT + timedelta(microseconds=1)),
        replace(ENTRY, kind=Kind.INTENT),
        replace(ENTRY, deed=Deed.VERIFY),
        replace(ENTRY, deed=None),
        replace(ENTRY, node="bmu2"),
        replace(ENTRY, node="", text='bmu1Köln "ok"'),
        replace(ENTRY, text=""),
        replace(ENTRY, ok=True),
        replace(ENTRY, ok=None),
        replace(ENTRY, answers=5),
        replace(ENTRY, facts=""),
    ],
)
def test_every_field_is_covered(other: Entry) -> None:
    assert other.chained(CHAIN_START) != ENTRY.chained(CHAIN_START)


def test_so_is_what_stands_before_it_but_not_its_own_digest() -> None:
    assert ENTRY.chained(b"\1" * 32) != ENTRY.chained(CHAIN_START)
    assert replace(ENTRY, digest=b"x").chained(CHAIN_START) == ENTRY.chained(CHAIN_START)


def test_times_are_utc_whatever_the_zone() -> None:
    assert time_text(AT.astimezone(timezone(timedelta(hours=-9)))) == time_text(AT) == "2031-05-04T03:02:01.000020Z"


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert storable("bad \udcff name, good 電池") == "bad \\udcff name, good 電池"
