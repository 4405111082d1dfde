"""A gateway and a simulated plant in one process, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ess_can import resources
from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Monitors
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.cli.station_options import load_codec
from ess_can.cli.stop_signals import stopped_by_signals
from ess_can.cli.trace_file import SIMULATED_START_S, trace_file
from ess_can.errors import InvariantViolated
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.progress import OnProgress
from ess_can.gateway.report import Report
from ess_can.gateway.run import GatewaySetup, roll_back_station, upgrade_station
from ess_can.identity import NodeType
from ess_can.image.node_image import NodeImage
from ess_can.isotp import IsoTpParams
from ess_can.journal.journal import Journal
from ess_can.signals.dbc import StationCodec
from ess_can.sim.loop import run_virtual
from ess_can.sim.parts import STM32H743, FlashPart
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.sim.state_files import StateFiles
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.trust.keys import KeyRing
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file, verify_node_image
from ess_can.uds.access import CmacAccess

T = TypeVar("T")

GATEWAY_NAME = "EMS"
"""What the gateway's controller is called on the simulated wire."""

SETTLED_S = 2.0
"""How long the plant runs before the gateway comes: long enough to have reached its operating current."""


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """An upgrade's report, and the hash over every frame that was on the simulated wire."""

    report: Report
    trace_hash: str
    frames: int


def test_release_keys() -> KeyRing:
    """The public TEST key that releases for simulated plants are signed with."""
    return KeyRing.load([resources.test_key_path("TEST-ONLY-release.pub.pem")])


def test_firmware_keys() -> KeyRing:
    """The public TEST key in the ROM of every simulated node."""
    return KeyRing.load([resources.test_key_path("TEST-ONLY-firmware.pub.pem")])


def open_sample_upgrade(path: Path) -> VerifiedUpgrade:
    """Open an upgrade file with the test keys: for simulated plants only."""
    return open_upgrade_file(path, test_release_keys(), firmware_keyring=test_firmware_keys(), allow_test_keys=True)


NO_KEYS = KeyRing(())


def make_plant(
    spec: PlantSpec, codec: StationCodec, firmware_keys: KeyRing = NO_KEYS, state: StateFiles | None = None
) -> Plant:
    """A plant whose nodes run the older sample firmware, or whatever is in `state`.  Call it on the running loop.

    The nodes' ROM holds `firmware_keys` beside the test key: for trying a release of one's own.  Raises FileUnreadable
    for a state that cannot be used.
    """
    keys = KeyRing((*test_firmware_keys().keys, *firmware_keys.keys))

    def verify(image: bytes) -> NodeImage:
        return verify_node_image(image, keys, allow_test_keys=True, slot_size=spec.flash.geometry.slot_size).facts

    images = {
        node_type: resources.sample_path(f"{node_type.name.lower()}-1.0.0.signed.bin").read_bytes()
        for node_type in (NodeType.BMU, NodeType.COMM_GATEWAY)
    }
    return Plant(spec, codec, images, verify, state)


def simulated_setup(plant: Plant, config: GatewayConfig | None = None) -> GatewaySetup:
    """How a gateway reaches a simulated plant."""
    return GatewaySetup(
        plant.codec,
        config or GatewayConfig(plant.addresses),
        CmacAccess(TEST_ONLY_ACCESS_SECRET),
        plant.spec.bit_timing,
        isotp=plant.spec.isotp,
        entropy=random.Random(plant.spec.seed),  # noqa: S311 - a simulation has to be repeatable
        slept_s=lambda: 0.0,
    )


@contextmanager
def plant_trace(plant: Plant, path: Path | None) -> Iterator[None]:
    """Write every frame of the plant's wire to a file, those of its gateway as sent; nothing without a path.

    Raises UsageError, TraceUnwritable.
    """
    with trace_file(path, SIMULATED_START_S) as writer:
        if writer is not None:

            def on_frame(frame: CanFrame, at: float, sender: str) -> None:
                writer.record(frame, at, received=sender != GATEWAY_NAME)

            plant.wire.on_frame.append(on_frame)
        yield


def upgrade_simulated_plant(
    upgrade: VerifiedUpgrade | None,
    spec: PlantSpec,
    on_progress: OnProgress,
    *,
    config: GatewayConfig | None = None,
    dry_run: bool = False,
    prepare: Callable[[Plant], None] | None = None,
    firmware_keys: KeyRing = NO_KEYS,
    trace: Path | None = None,
    codec: StationCodec | None = None,
    journal: Journal | None = None,
    options: str = "",
    roll_back: bool = False,
) -> SimulatedRun:
    """Run a whole upgrade in virtual time, or with `roll_back` give up the one that is unfinished in `journal`.  (Only
    then there need be no `upgrade`.)

    `prepare` may bring the plant into a state before the gateway comes; for `firmware_keys` see `make_plant`, for
    `trace` see `plant_trace`; `codec` is the built-in one unless given, `journal` one that goes with the process,
    `options` what it keeps for whoever resumes.  Signals stop it as they stop one on a real bus.  Raises UsageError if
    the DBC has fewer racks than the plant, Interrupted if it was stopped before the gateway came, and
    InvariantViolated if the monitors, which watch the plant itself, saw a rule broken.
    """

    async def run() -> SimulatedRun:
        plant = make_plant(spec, codec or load_codec(racks=spec.racks), firmware_keys)
        if prepare is not None:
            prepare(plant)
        monitors = Monitors(plant)
        with stopped_by_signals() as report_is_there, plant_trace(plant, trace):
            plant.start()
            await pause(SETTLED_S)
            bus, setup = plant.gateway_controller(), simulated_setup(plant, config)
            kept = Journal.in_memory() if journal is None else journal
            monitors.attach_journal(kept)
            if roll_back or upgrade is None:
                report = await roll_back_station(bus, upgrade, setup, journal=kept, on_progress=on_progress)
            else:
                report = await upgrade_station(
                    bus, upgrade, setup, journal=kept, options=options, on_progress=on_progress, dry_run=dry_run
                )
            report_is_there()
            monitors.ended(report, setup.config.afterwards)
            await pause(1.0)  # what the plant does with its own control again belongs to the trace
            monitors.finish()
            plant.stop()
        _require_unbroken(monitors)
        return SimulatedRun(report, plant.trace.hexdigest(), plant.trace.frames)

    return run_virtual(run())


def _require_unbroken(monitors: Monitors) -> None:
    """Raises InvariantViolated if a rule of safety was broken."""
    if monitors.violations:
        others = len(monitors.violations) - 1
        why = str(monitors.violations[0]) + (f", and {others} more" if others else "")
        raise InvariantViolated(
            "the simulated upgrade broke a rule of safety",
            why=why,
            remedy="Please report it as a bug, with the command: it happens again the same way.",
        )


def plant_spec(bitrate: int | None, fd: bool, data_bitrate: int | None, racks: int, seed: int) -> PlantSpec:
    """A plant on a bus of this kind: 500 kbit/s classic unless said otherwise, 2 Mbit/s data rate with FD."""
    timing = BitTiming(bitrate or 500_000, (data_bitrate or 2_000_000) if fd else None)
    isotp = IsoTpParams(tx_dl=64, fd=True, brs=True) if fd else IsoTpParams()
    return PlantSpec(racks=racks, bit_timing=timing, isotp=isotp, seed=seed)


def flash_for(slot_kib: int) -> FlashPart:
    """The nodes' usual part, or a like one with as many sectors as it takes for image slots of `slot_kib` KiB."""
    return STM32H743.with_slots_of(slot_kib * 1024)


def rack_count(racks: int) -> str:
    """``1 rack``, ``2 racks``."""
    return f"{racks} rack" if racks == 1 else f"{racks} racks"
