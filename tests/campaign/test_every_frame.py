"""Each frame of a whole upgrade in turn is lost, duplicated, swapped with the next, corrupted unseen, or delayed.

Whatever it was: no rule is broken, no wrong image ever runs, the upgrade comes to its end, or is resumed to it, and the
next one goes in.  Each of these faults takes effect: every frame is there to be disturbed.
"""

from __future__ import annotations

import pytest

from ess_can.campaign.faults.frames import WAYS
from ess_can.campaign.mixture import plain
from ess_can.campaign.run import run_mixture
from tests.campaign.cases import undisturbed
from tests.campaign.counts import Count
from tests.campaign.scale import chosen

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("way", WAYS)
def test_every_frame(way: str, part: int, count: Count) -> None:
    frames = undisturbed().frames
    assert frames > 800
    indices = chosen(range(frames), quick=10, slice_=100, part=part, parts=PARTS)
    wrong = []
    for index in indices:
        text = f"frame:{index}:{way}"
        result = run_mixture(plain(text))
        if not result.good:
            wrong.append(f"{text}: {result.wrong}")
        if WAYS[way].name not in result.took_effect:  # until then it was undisturbed, and had this frame
            wrong.append(f"{text}: nothing happened to the frame")
    count(f"one frame of a whole upgrade {way}", len(indices))
    assert not wrong, "\n".join(wrong)


def test_a_frame_beyond_the_end_cannot_be_disturbed() -> None:
    for way in WAYS:
        result = run_mixture(plain(f"frame:{10**6}:{way}"))
        assert result.good, result.wrong
        assert result.took_effect == ()
