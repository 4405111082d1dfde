"""Where power may be lost in one upgrade of a whole system: each moment and memory that a cut can leave, once.

While the upgrade goes its undisturbed way, each of the node's writes is done again on copies of its memories, once for
every operation in it and every mode, with power cut there, by the memories' own code and with their own chance.  Cuts
of one instant that leave memories which no node can tell from each other (`forks.meaning`) have the same future.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ess_can.bus.clock import now
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.station import Station
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import PhaseEntered
from ess_can.sim.flash import Flash
from ess_can.sim.flash_cells import BANKS, FlashAction
from ess_can.sim.fram import Fram
from ess_can.sim.power_cut import CutMode, PowerCut
from tests.campaign.cases import BMU1
from tests.campaign.forks import Key, meaning, operate
from tests.unit.sim.memory_rig import RigState


@dataclass(frozen=True, slots=True)
class Place:
    """Operation `at` from where the upgrade begins, struck in this mode, in `phase` and at the instant `at_s`.

    `ways` is how many operations and modes of the same instant leave the same memory, `also` the last of the others.
    """

    at: int
    mode: CutMode
    phase: Phase
    at_s: float
    ways: int = 1
    also: tuple[int, CutMode] | None = None


@dataclass(frozen=True, eq=False)
class Places:
    """Armed like a fault, disturbs nothing, and finds all places in the first attempt."""

    patch: pytest.MonkeyPatch
    found: dict[tuple[float, Key], Place] = field(default_factory=dict)

    kind = FaultKind.CUT_BEFORE
    text = "none"

    @property
    def operations(self) -> int:
        """How many operations there are."""
        return sum(place.ways for place in self.found.values()) // len(CutMode)

    @property
    def instants(self) -> list[Place]:
        """The first place of each instant at which something is written."""
        first: dict[float, Place] = {}
        for place in self.found.values():
            first.setdefault(place.at_s, place)
        return list(first.values())

    def arm(self, station: Station) -> None:
        def on_start(_process: object) -> None:
            station.on_start.remove(on_start)
            self._watch(station)

        station.on_start.append(on_start)

    def _watch(self, station: Station) -> None:
        node = station.plant.nodes[BMU1]
        flash, fram = node.flash, node.records.fram
        power = PowerCut()
        power.on_cut = flash.power.on_cut
        flash.power = fram.power = power
        chance = random.Random()
        cut = PowerCut()
        copied_flash = Flash(chance, cut, flash.geometry, flash.timing)
        copied_fram = Fram(chance, cut, fram.size)

        def state_of(flash: Flash, fram: Fram) -> RigState:
            banks = tuple(flash.export_bank(bank) for bank in range(BANKS))
            return RigState(banks, fram.export(), tuple(sorted(fram.unstable.items())))

        def fork(count: int, write: Callable[[], object]) -> None:
            if station.attempts != 1:
                return
            before, drawn = state_of(flash, fram), fram._rng.getstate()
            phase = [event.phase for event in station.events if isinstance(event, PhaseEntered)][-1]
            for at in range(count):
                for mode in CutMode:
                    for bank, snapshot in enumerate(before.banks):
                        copied_flash.restore_bank(bank, snapshot)
                    copied_fram.restore(before.fram)
                    copied_fram.unstable.update(before.undecided)
                    chance.setstate(drawn)
                    cut.arm(at, mode)
                    write()
                    cut.restore()
                    key = now(), meaning(state_of(copied_flash, copied_fram))
                    known = self.found.get(key)
                    index = power.operations + at
                    self.found[key] = (
                        replace(known, ways=known.ways + 1, also=(index, mode))
                        if known
                        else Place(index, mode, phase, now())
                    )

        usual_write, usual_complete = Fram.write, Flash.complete

        def fram_write(written: Fram, address: int, data: bytes) -> bool:
            if written is fram:
                fork(len(data), lambda: usual_write(copied_fram, address, data))
            return usual_write(written, address, data)

        def flash_complete(written: Flash, bank: int, at: float) -> Any:
            pending = written._banks[bank].pending
            if written is flash and pending is not None and at >= pending[0].done_at:
                operation, data = pending
                erases = operation.action is FlashAction.ERASE
                count = 1 if erases else len(data) // flash.geometry.unit_size
                fork(count, lambda: operate(copied_flash, operation.action, bank, operation.offset, data))
            return usual_complete(written, bank, at)

        self.patch.setattr(Fram, "write", fram_write)
        self.patch.setattr(Flash, "complete", flash_complete)
