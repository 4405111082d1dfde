"""Our Profile 5 against the C implementation in the package autosar-e2e."""

from __future__ import annotations

import random

import e2e
import pytest

from ess_can.signals.e2e import check, protect


@pytest.mark.parametrize("length", [3, 4, 8, 12, 64])
def test_both_protect_alike(length: int) -> None:
    source = random.Random(length)
    for _ in range(300):
        data = source.randbytes(length)
        data_id, counter = source.randrange(0x10000), source.randrange(256)
        theirs = bytearray(data)
        theirs[2] = counter
        e2e.p05.e2e_p05_protect(theirs, data_id, increment_counter=False)
        assert protect(data, data_id, counter) == theirs


def test_each_accepts_the_others_frames() -> None:
    source = random.Random(5)
    for _ in range(300):
        data_id, counter = source.randrange(0x10000), source.randrange(256)
        ours = protect(source.randbytes(8), data_id, counter)
        assert e2e.p05.e2e_p05_check(ours, data_id)
        theirs = bytearray(source.randbytes(8))
        e2e.p05.e2e_p05_protect(theirs, data_id)
        assert check(theirs, data_id)


def test_both_give_the_same_verdict_on_any_bytes() -> None:
    source = random.Random(6)
    verdicts = []
    for _ in range(3000):
        frame = bytearray(protect(source.randbytes(8), 0x0E11, 9))
        for _ in range(source.randrange(6)):
            frame[source.randrange(8)] ^= 1 << source.randrange(8)
        verdicts.append(check(frame, 0x0E11))
        assert verdicts[-1] == e2e.p05.e2e_p05_check(bytes(frame), 0x0E11)
    assert {True, False} == set(verdicts)
