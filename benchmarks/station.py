"""Simulated stations on which a transfer may begin, for the figures that are simulated time and so do not depend on
the machine.

Plant, bus, nodes and the gateway's own parts are those of the product, and so are all of their rules: high voltage is
off and proved off by fresh evidence, the node checks it by itself, every block is read back, the image is verified.
The flash is one that is faster than the wire, so that the wire is what is measured.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

from ess_can.bus.clock import pause, until
from ess_can.bus.kernel_isotp import IsoTpTransport
from ess_can.bus.station import StationLink
from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import make_plant, simulated_setup, test_firmware_keys, test_release_keys
from ess_can.gateway.interlock import Permit
from ess_can.gateway.station_master import USER_ISOTP, StationMaster
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.image.node_image import build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.isotp import IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import PcsCommandCode, UpgradePhase
from ess_can.sim.controller import Controller
from ess_can.sim.electrical import LinkSpec
from ess_can.sim.node import Behaviour
from ess_can.sim.parts import FASTER_THAN_WIRE
from ess_can.sim.plant import BMU_HARDWARE_ID, Plant, PlantSpec
from ess_can.trust.keys import SigningKey
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file

BMU1 = NodeAddress(NodeType.BMU, 1)
_KEYS = Path(__file__).parent.parent / "firmware_samples" / "keys"
_SEED = 1
_QUICK_LINK = LinkSpec(capacitance_f=0.2e-3)  # discharged at once: nothing that is measured here depends on it
ROOM_KIB = 4  # for the image's header and trailer
_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class BusKind:
    """A bus by its bit rates; `name` is what the tables call it."""

    name: str
    timing: BitTiming

    @property
    def fd(self) -> bool:
        """Whether it carries CAN FD, with 64 bytes a frame and bit-rate switch."""
        return self.timing.data_bitrate is not None

    @property
    def isotp(self) -> IsoTpParams:
        """Full frames of the kind."""
        return IsoTpParams(tx_dl=64, fd=True, brs=True) if self.fd else IsoTpParams()


CLASSIC = tuple(BusKind(f"{rate // 1000}k" if rate < 10**6 else "1M", BitTiming(rate)) for rate in (
    125_000, 250_000, 500_000, 1_000_000
))  # fmt: skip
FD = (
    BusKind("FD 500k/2M", BitTiming(500_000, 2_000_000)),
    BusKind("FD 1M/5M", BitTiming(1_000_000, 5_000_000)),
    BusKind("FD 1M/8M", BitTiming(1_000_000, 8_000_000)),
)


def bus_kind(name: str) -> BusKind:
    """The kind of that name.  Raises KeyError."""
    return {kind.name: kind for kind in (*CLASSIC, *FD)}[name]


@cache
def codec() -> StationCodec:
    """The station's DBC, loaded once."""
    return StationCodec.load()


def all_racks() -> int:
    """As many racks as the DBC has."""
    return sum(node.node_type is NodeType.BMU for node in codec().nodes())


@cache
def bmu_image(kib: int) -> bytes:
    """A signed image of `kib` KiB and its header for a BMU, of random content, the same every time."""
    return build_node_image(
        random.Random(_SEED).randbytes(kib * 1024),  # noqa: S311 - the same every time
        version=Version(2, 0, 0),
        node_type=NodeType.BMU,
        hardware_ids=(BMU_HARDWARE_ID,),
        security_counter=2,
        signer=SigningKey.load(_KEYS / "TEST-ONLY-firmware.pem"),
    )


@dataclass(frozen=True, slots=True)
class Station:
    """A plant whose first BMU may be programmed; `master` is the gateway's hold on it, `gateway` its controller.

    `racks` is 0 for a BMU alone on the wire.
    """

    kind: BusKind
    racks: int
    plant: Plant
    gateway: Controller
    master: StationMaster

    @property
    def ids(self) -> tuple[int, int]:
        """Identifiers of the BMU's requests and responses."""
        return self.plant.codec.diagnostic_ids(BMU1)

    def other_traffic_s(self) -> float:
        """The wire time so far of everything that is not diagnostics of the BMU."""
        return self.plant.wire.busy_s() - self.plant.wire.busy_s(self.ids)

    async def permit(self) -> Permit | None:
        """The gateway's own permit to write; None for a BMU alone, where there is nobody to give evidence."""
        return await self.master.interlock.prove_off(_WITHIN_S) if self.racks else None


class NoHighVoltage:
    """The application of a BMU that is alone on the wire: it says nothing, and there is no high voltage near it."""

    def start(self, link: StationLink, behaviour: Behaviour, now: float) -> None:
        """See `ess_can.sim.node.Application`."""

    def stop(self, now: float) -> None:
        """See `Application`."""

    def hang(self) -> None:
        """See `Application`."""

    def hold(self, held: bool) -> None:
        """See `Application`."""

    def programming_allowed(self, now: float) -> bool:
        """See `Application`."""
        return True

    def reset_allowed(self, now: float) -> bool:
        """See `Application`."""
        return True


def fast_plant(kind: BusKind, racks: int, kib: int) -> PlantSpec:
    """A plant that is found open, with flash that is faster than any bus and holds images of `kib` KiB."""
    return PlantSpec(
        racks=racks,
        running=False,
        bit_timing=kind.timing,
        isotp=kind.isotp,
        link=_QUICK_LINK,
        seed=_SEED,
        flash=FASTER_THAN_WIRE.with_slots_of((kib + ROOM_KIB) * 1024),
    )


@asynccontextmanager
async def open_station(
    kind: BusKind,
    racks: int,
    kib: int,
    *,
    dbc: StationCodec | None = None,
    depth: int = 10,
    isotp: IsoTpParams | None = None,
    transport: IsoTpTransport = USER_ISOTP,
    answer_s: float = 0.0,
) -> AsyncIterator[Station]:
    """A station of that many racks, open, locked, and proved so to its nodes; of a BMU alone with 0 racks.

    The gateway's heartbeat, polls and notices run as in an upgrade.  `depth` is that of its controller's queue,
    `isotp` how both ends behave (as `kind` says unless given), `transport` who speaks ISO-TP for the gateway,
    `answer_s` how long the BMU thinks before each answer.
    """
    spec = replace(fast_plant(kind, max(racks, 1), kib), isotp=isotp or kind.isotp)
    plant = make_plant(spec, dbc or codec())
    gateway = plant.gateway_controller(depth)
    node = plant.nodes[BMU1]
    node.board = replace(node.board, answer_s=answer_s)
    async with replace(simulated_setup(plant), transport=transport).master(gateway) as master:
        if racks:
            plant.start()
            master.orders.start(PcsCommandCode.LOCK)
            master.orders.announce(UpgradePhase.PROGRAMMING, BMU1)
            master.interlock.start_polling()
        else:
            node.application = NoHighVoltage()
            node.power_on(boot_s=0.0)
        await pause(0.1)
        loop = plant.wire.loop
        if not await until(lambda: node.application.programming_allowed(loop.time()), _WITHIN_S):
            raise RuntimeError("the BMU does not find high voltage off")
        yield Station(kind, racks, plant, gateway, master)
    plant.stop()


def bmu_release(kib: int, slot_size: int) -> VerifiedUpgrade:
    """A release of that image, checked as the gateway checks it."""
    file = build_upgrade_file(
        [Content(bmu_image(kib), ())],
        release_name="Benchmark",
        release_version=Version(2, 0, 0),
        created=date(2026, 1, 1),
        signer=SigningKey.load(_KEYS / "TEST-ONLY-release.pem"),
        slot_size=slot_size,
    )
    return open_upgrade_file(
        file,
        test_release_keys(),
        firmware_keyring=test_firmware_keys(),
        allow_test_keys=True,
        slot_size=slot_size,
    )
