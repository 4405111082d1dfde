"""The process that simulates a node dies at every instant of an upgrade; its memories live on, and another one starts.

What there is to die between are the writes of flash and FRAM: each is either in memory or not.  Flash operations that
had begun are found torn.  Always the old or the new image boots, and going on ends with the new one confirmed.
"""

from __future__ import annotations

from collections.abc import Callable

from ess_can.signals.messages import ImageState
from ess_can.sim.flash_cells import FlashCells
from ess_can.sim.power_cut import Admission, PowerCut
from tests.unit.sim.memory_rig import FRAM, GEOMETRY, Rig, make_image

FIRST = make_image("1.0.0", 2)
OLD = make_image("2.0.0", 3)
NEW = make_image("3.0.0", 5)
FLASH = FlashCells.size(GEOMETRY)


class Watch(PowerCut):
    """Calls before every write."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self._call = call

    def admit(self, count: int) -> Admission:
        self._call()
        return super().admit(count)


def start(memory: bytearray, image: bytes | None = None, *, power: PowerCut | None = None, seed: int = 1) -> Rig:
    """A process that simulates the node whose memories these are."""
    view = memoryview(memory)
    return Rig(image, seed=seed, cells=FlashCells(view[:FLASH], GEOMETRY), fram=view[FLASH:], power=power)


def instants(memory: bytearray) -> list[bytes]:
    """The memories before each write of an upgrade to NEW, each different one once, and in the end."""
    seen: dict[bytes, None] = {}

    def look() -> None:
        seen[bytes(memory)] = None

    start(memory, power=Watch(look)).upgrade(NEW)
    look()
    return list(seen)


def before_upgrade() -> bytearray:
    """A node that runs OLD and has the stale FIRST in its other bank, so that an upgrade erases as well."""
    memory = bytearray(FLASH + FRAM)
    FlashCells(memoryview(memory)[:FLASH], GEOMETRY).make_blank()
    start(memory, FIRST).upgrade(OLD)
    return memory


def test_death_at_every_instant() -> None:
    found = instants(before_upgrade())
    assert len(found) > 15
    torn = 0
    versions = set()
    for seed, left in enumerate(found):
        memory = bytearray(left)
        rig = start(memory, seed=seed)
        torn += rig.flash.counters.torn
        standing = (rig.version, rig.standing)
        assert standing in {
            ("2.0.0", ImageState.CONFIRMED),
            ("3.0.0", ImageState.TRIAL),
            ("3.0.0", ImageState.CONFIRMED),
        }
        versions.add(standing)
        rig.upgrade(NEW)
        assert (rig.version, rig.standing) == ("3.0.0", ImageState.CONFIRMED)
        again = start(memory)
        assert (again.version, again.standing) == ("3.0.0", ImageState.CONFIRMED)
    assert len(versions) == 3
    assert torn >= 3 + 3  # sectors and blocks at least


def test_death_again_while_it_recovers() -> None:
    for left in instants(before_upgrade())[::3]:
        for again in instants(bytearray(left))[::2]:
            memory = bytearray(again)
            rig = start(memory)
            assert rig.standing is not ImageState.RECOVERY
            rig.upgrade(NEW)
            assert (start(memory).version, start(memory).standing) == ("3.0.0", ImageState.CONFIRMED)
