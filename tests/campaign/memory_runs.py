"""A node's memory alone: what runs of its guards are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.campaign import guard
from tests.campaign.guard import Run
from tests.unit.sim.memory_rig import Rig, make_image

OLD: Final = make_image("2.0.0", 3)
NEW: Final = make_image("3.0.0", 5)


def rig(text: str, script: Callable[[Rig], None]) -> Run:
    """Something is done with a node's memory, which asserts what must hold."""
    return guard.script(f"a node's memory, {text}", lambda: script(Rig(OLD)))
