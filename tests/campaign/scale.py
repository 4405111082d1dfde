"""How much of a campaign is run: a quick form with every test run, a slice that changes with the commit, or the whole.

A campaign enumerates its cases and asks `chosen` which of them to run.  ``ESS_CAN_CAMPAIGN`` says how many (`quick`
unless set), ``ESS_CAN_CAMPAIGN_SEED`` which ones a slice has.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Scale(Enum):
    """How much is run."""

    QUICK = "quick"
    SLICE = "slice"
    WHOLE = "whole"


SCALE = Scale(os.environ.get("ESS_CAN_CAMPAIGN", "quick"))
SEED = os.environ.get("ESS_CAN_CAMPAIGN_SEED", "")


def chosen(cases: Sequence[T], *, quick: int, slice_: int, part: int = 0, parts: int = 1) -> list[T]:
    """The cases to run now: `quick` of them evenly spread, `slice_` of them drawn by the seed, or all.

    With `parts` only those of one `part` (from 0) are given: parametrize over it, and the parts run on all cores.
    """
    if SCALE is Scale.QUICK:
        taken = [cases[at * len(cases) // quick] for at in range(quick)] if quick < len(cases) else list(cases)
    elif SCALE is Scale.SLICE:
        drawn = random.Random(f"{SEED} {len(cases)}").sample(range(len(cases)), min(slice_, len(cases)))
        taken = [cases[at] for at in sorted(drawn)]
    else:
        taken = list(cases)
    return taken[part::parts]
