"""A run's plan: what plant, which faults, and how long it takes until somebody starts a dead gateway again.

Everything follows from the seed, the same in every process.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ess_can.campaign.plants import SMALLEST, Site, random_site


@dataclass(frozen=True, slots=True)
class Mixture:
    """What one run is to be.

    `faults` are texts that `parse_fault` reads.  Each of `restarts` is after how many seconds a gateway that died is
    started again, while the faults last; if it dies once more after the last, it stays dead until they are over.
    """

    seed: int
    site: Site
    faults: tuple[str, ...] = ()
    restarts: tuple[float, ...] = (2.0,)


def plain(*faults: str, site: Site = SMALLEST, seed: int = 1, restarts: tuple[float, ...] = (2.0,)) -> Mixture:
    """These faults on the smallest plant."""
    return Mixture(seed, site, faults, restarts)


def mixture_of(seed: int) -> Mixture:
    """What a seed stands for."""
    chance = random.Random(f"campaign {seed}")  # noqa: S311 - a simulation has to be repeatable
    site = random_site(chance, seed)
    return Mixture(seed, site, (), tuple(round(chance.uniform(0.05, 20.0), 3) for _ in range(chance.randrange(1, 4))))
