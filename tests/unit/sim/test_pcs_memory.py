"""What a PCS remembers."""

from __future__ import annotations

import random

import pytest

from ess_can.sim.fram import Fram
from ess_can.sim.pcs_memory import NoPcsMemory, PcsKept, RecordedPcsMemory

EVERY = [PcsKept(locked, stop) for locked in (False, True) for stop in (False, True)]


@pytest.mark.parametrize("kept", EVERY)
def test_it_is_packed_and_unpacked(kept: PcsKept) -> None:
    assert len(kept.pack()) == PcsKept.SIZE
    assert PcsKept.unpack(kept.pack()) == kept


def test_a_record_outlives_the_process() -> None:
    cells = memoryview(bytearray(64))
    assert RecordedPcsMemory(Fram(random.Random(1), cells=cells)).load() == PcsKept()
    for kept in EVERY:
        RecordedPcsMemory(Fram(random.Random(1), cells=cells)).save(kept)
        assert RecordedPcsMemory(Fram(random.Random(1), cells=cells)).load() == kept


def test_without_a_memory_only_the_button_is_found_as_it_is() -> None:
    memory = NoPcsMemory()
    for kept in EVERY:
        memory.save(kept)
        assert memory.load() == PcsKept(emergency_stop=kept.emergency_stop)
