"""Thousands of upgrades under random faults: no rule is broken, each comes to an end, and a good one always follows.

Each seed is a plant, faults and their moments (`ess_can.campaign.mixture`).  When the faults are over, a final state
must be reached, and the next release must go in.  Some seeds are run twice, and nothing may differ.
"""

from __future__ import annotations

import pytest

from ess_can.campaign.run import TWICE, checked_seed
from tests.campaign.counts import Count
from tests.campaign.scale import chosen

FIRST = 1
SEEDS = range(FIRST, FIRST + 10_000)
PARTS = 16


@pytest.mark.parametrize("part", range(PARTS))
def test_random_faults(part: int, count: Count) -> None:
    wrong: list[str] = []
    seeds = chosen(SEEDS, quick=40, slice_=600, part=part, parts=PARTS)
    for seed in seeds:
        result = checked_seed(seed)
        if not result.good:
            wrong.append(f"ess-can sim replay --seed {seed}: {result.wrong}")
    count("seeded upgrades that were run twice, to the same trace", sum(seed % TWICE == 0 for seed in seeds))
    count("seeded upgrades with random faults, healed, then a good upgrade", len(seeds))
    assert not wrong, "\n".join(wrong)
