"""Each frame of a whole upgrade in turn is lost, duplicated, swapped with the next, corrupted unseen, or delayed.

Whatever it was: no rule is broken, no wrong image ever runs, the upgrade comes to its end, or is resumed to it, and the
next one goes in.
"""

from __future__ import annotations

import pytest

from ess_can.campaign.mixture import plain
from tests.campaign.cases import found_wrong, undisturbed
from tests.campaign.counts import Count
from tests.campaign.scale import chosen

WAYS = ("lost", "duplicated", "swapped", "corrupted", "delayed")
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("way", WAYS)
def test_every_frame(way: str, part: int, count: Count) -> None:
    frames = undisturbed().frames
    assert frames > 800
    indices = chosen(range(frames), quick=10, slice_=100, part=part, parts=PARTS)
    wrong = found_wrong(plain(f"frame:{index}:{way}") for index in indices)
    count(f"one frame of a whole upgrade {way}", len(indices))
    assert not wrong, "\n".join(wrong)
