"""The plants that campaigns run on: small, quick and different from each other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ess_can.can.timing import BitTiming
from ess_can.gateway.config import Afterwards, BusLimits, GatewayConfig
from ess_can.identity import NodeType, Version
from ess_can.isotp import IsoTpParams
from ess_can.sim.electrical import LinkSpec
from ess_can.sim.parts import STM32F429, STM32G474, FlashPart
from ess_can.sim.plant import PlantSpec

T = TypeVar("T")

NEW = Version(1, 1, 0)
"""The release that is brought in under faults."""
OTHER = Version(1, 1, 1)
"""A release that somebody begins where that one is unfinished."""
NEXT = Version(1, 2, 0)
"""The release after it, which must always be accepted."""

SMALL_PART = replace(
    STM32G474,
    name="STM32G474, slots of 32 KiB",
    geometry=replace(STM32G474.geometry, sectors_per_bank=STM32G474.geometry.protected_sectors + 16),
    block_bytes=2048,
    buffer_bytes=8192,
)
"""Small pages, blocks and slots: an image of a few KiB takes several of each, and a plant is quickly made."""

SLOW_PART = replace(
    STM32F429,
    name="STM32F429, sectors of 4 KiB",
    geometry=replace(STM32F429.geometry, sectors_per_bank=9, sector_size=4096),
    block_bytes=4096,
    buffer_bytes=16384,
)
"""Erases for longer than a session lasts without a word; its units are half-words."""

QUICK_LINK = LinkSpec(capacitance_f=0.2e-3)
"""A link that is discharged in under a second."""


@dataclass(frozen=True, slots=True)
class Site:
    """A plant, how it is found and is to be left, and what is brought in.

    `release` are the node types that get new firmware, each with an image of `payload_bytes`; `bank` is what all nodes
    run from at first.
    """

    plant: PlantSpec
    bank: int = 0
    afterwards: Afterwards = Afterwards.AS_FOUND
    bus: BusLimits = field(default_factory=BusLimits)
    release: tuple[NodeType, ...] = (NodeType.BMU,)
    payload_bytes: int = 5000

    def config(self, afterwards: Afterwards | None = None) -> GatewayConfig:
        """The gateway's configuration, `afterwards` as the site has it unless given."""
        return GatewayConfig(self.plant.addresses, bus=self.bus, afterwards=afterwards or self.afterwards)

    @property
    def text(self) -> str:
        """In words, for people."""
        plant = self.plant
        timing = plant.bit_timing
        rate = f"{timing.bitrate // 1000} kbit/s"
        if timing.data_bitrate is not None:
            rate += f" with FD at {timing.data_bitrate // 1000} kbit/s"
        told = [f"{plant.racks} {'rack' if plant.racks == 1 else 'racks'}", rate, plant.flash.name]
        told.append("found connected" if plant.running else "found open")
        told += ["running from bank 1"] if self.bank else []
        told += ["a PCS that remembers its lock"] if plant.pcs_keeps_lock else []
        if self.afterwards is not Afterwards.AS_FOUND:
            told.append(f"to be left {self.afterwards.value}")
        if self.bus.load is not None:
            told.append(f"load cap {100 * self.bus.load.share:g} %{' and yielding' if self.bus.load.yields else ''}")
        if self.bus.nodes_at_once is not None:
            told.append(f"{self.bus.nodes_at_once} node at once")
        names = " and ".join(node_type.name.lower() for node_type in self.release)
        told.append(f"{self.payload_bytes} bytes for {names}")
        return ", ".join(told)


SMALLEST = Site(PlantSpec(racks=1, flash=SMALL_PART, link=QUICK_LINK), payload_bytes=3000)
"""One rack, one small image: what an exhaustive campaign goes through frame by frame."""


def random_site(chance: random.Random, seed: int) -> Site:
    """A site drawn by `chance`; `seed` is the plant's own."""
    fd = chance.random() < 0.25
    timing = BitTiming(
        _weighted(chance, (250_000, 1), (500_000, 4), (1_000_000, 2)),
        _weighted(chance, (2_000_000, 2), (5_000_000, 1)) if fd else None,
    )
    isotp = IsoTpParams(tx_dl=64, fd=True, brs=True) if fd else IsoTpParams()
    if chance.random() < 0.2:
        isotp = replace(isotp, block_size=8, st_min=1)
    racks = _weighted(chance, (1, 6), (2, 3), (3, 1))
    plant = PlantSpec(
        racks=racks,
        running=chance.random() < 0.8,
        bit_timing=timing,
        isotp=isotp,
        link=QUICK_LINK if chance.random() < 0.8 else LinkSpec(capacitance_f=0.6e-3),
        flash=_flash(chance),
        seed=seed,
        pcs_keeps_lock=random.Random(f"PCS {seed}").random() < 0.5,  # noqa: S311 - drawn beside all else, to be repeatable
    )
    return Site(
        plant,
        bank=chance.randrange(2),
        afterwards=_weighted(chance, (Afterwards.AS_FOUND, 16), (Afterwards.HOLD_OPEN, 2), (Afterwards.CONNECT, 2)),
        bus=_bus(chance),
        release=_weighted(
            chance, ((NodeType.BMU,), 8), ((NodeType.COMM_GATEWAY,), 1), ((NodeType.COMM_GATEWAY, NodeType.BMU), 2)
        ),
        payload_bytes=chance.randrange(600, 6000),
    )


def _flash(chance: random.Random) -> FlashPart:
    return _weighted(chance, (SMALL_PART, 9), (SLOW_PART, 1))


def _bus(chance: random.Random) -> BusLimits:
    return _weighted(
        chance,
        (BusLimits(), 8),
        (BusLimits(max_load_percent=60), 1),
        (BusLimits(yield_to_traffic=True), 1),
        (BusLimits(nodes_at_once=1), 1),
    )


def _weighted(chance: random.Random, *choices: tuple[T, int]) -> T:
    values: Sequence[T] = [value for value, _ in choices]
    return chance.choices(values, [weight for _, weight in choices])[0]
