"""Eight BMUs programmed at the same time over one bus, against the time that their images take on the wire alone.

Run it as `python -m benchmarks.eight_nodes` from the project's folder.  It runs in virtual time and gives the same on
every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from dataclasses import dataclass, replace
from datetime import date
from functools import cache

from benchmarks.flash_parts import flash_time_s
from benchmarks.plant_timeline import PlantTimeline
from ess_can.bus.clock import pause
from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import SETTLED_S, plant_spec, simulated_setup
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.run import upgrade_station
from ess_can.gateway.transfer_meter import ideal_wire_time_s
from ess_can.identity import NodeType, Version
from ess_can.image.node_image import NodeImage, build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.journal.journal import Journal
from ess_can.signals.dbc import StationCodec
from ess_can.sim.loop import run_virtual
from ess_can.sim.parts import PARTS
from ess_can.sim.plant import BMU_HARDWARE_ID, COMM_GATEWAY_HARDWARE_ID, Plant, PlantSpec
from ess_can.trust.keys import KeyRing, SigningKey
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file, verify_node_image

RACKS = 8
IMAGE_KIB = 200
"""The slots of all parts hold it."""
LIMIT = 1.05
_OLD, _NEW = Version(1, 0, 0), Version(1, 1, 0)
_KEY = SigningKey.from_seed(hashlib.sha256(b"eight nodes").digest(), "eight nodes")
_RING = KeyRing.of(_KEY.public)


@dataclass(frozen=True, slots=True)
class ManyNodes:
    """Seconds from the first request to download to the last image verified.

    `other_traffic_s` of `elapsed_s` is what the station's telemetry and our own orders took on the wire; `wire_s` the
    least that all the images take there, and `flash_s` the least that one of them takes in its node's flash.
    """

    part: str
    timing: BitTiming
    image_bytes: int
    nodes: int
    elapsed_s: float
    other_traffic_s: float
    wire_s: float
    flash_s: float

    @property
    def ratio(self) -> float:
        """The time, without other traffic's, over the least possible; 1.00 is the physical limit."""
        return (self.elapsed_s - self.other_traffic_s) / self.wire_s


def measure(spec: PlantSpec, image_kib: int = IMAGE_KIB, config: GatewayConfig | None = None) -> ManyNodes:
    """Upgrade all BMUs of a plant, whose flash holds older images of the same size.

    Raises RuntimeError if that fails, ValueError for an image that their slots do not hold.
    """
    image = _image(NodeType.BMU, _NEW, image_kib)
    olds = {
        NodeType.BMU: _image(NodeType.BMU, _OLD, image_kib),
        NodeType.COMM_GATEWAY: _image(NodeType.COMM_GATEWAY, _OLD, 4),
    }
    codec = StationCodec.load()

    async def run() -> PlantTimeline:
        plant = Plant(spec, codec, olds, _verify)
        timeline = PlantTimeline(plant, 1.0)
        plant.start()
        await pause(SETTLED_S)
        report = await upgrade_station(
            plant.gateway_controller(), _release(image), simulated_setup(plant, config), journal=Journal.in_memory()
        )
        plant.stop()
        if report.error is not None:
            raise RuntimeError(f"the upgrade failed: {report.error}")
        return timeline

    timeline = run_virtual(run())
    begin, end = timeline.programming()
    bmus = [address for address in spec.addresses if address.node_type is NodeType.BMU]
    wire_s = sum(ideal_wire_time_s(image, codec.diagnostic_ids(bmu)[0], spec.bit_timing) for bmu in bmus)
    return ManyNodes(
        spec.flash.name,
        spec.bit_timing,
        len(image),
        len(bmus),
        end - begin,
        timeline.other_traffic_s(begin, end),
        wire_s,
        flash_time_s(spec.flash, len(image)),
    )


@cache
def _image(node_type: NodeType, version: Version, kib: int) -> bytes:
    hardware = {NodeType.BMU: BMU_HARDWARE_ID, NodeType.COMM_GATEWAY: COMM_GATEWAY_HARDWARE_ID}
    return build_node_image(
        random.Random(f"{node_type.name} {version}").randbytes(kib * 1024),  # noqa: S311 - the same every time
        version=version,
        node_type=node_type,
        hardware_ids=(hardware[node_type],),
        security_counter=version.minor + 1,
        signer=_KEY,
    )


def _verify(content: bytes) -> NodeImage:
    return verify_node_image(content, _RING).facts


@cache
def _release(image: bytes) -> VerifiedUpgrade:
    content = build_upgrade_file(
        [Content(image, ())],
        release_name="Eight nodes",
        release_version=_NEW,
        created=date(2026, 1, 1),
        expires=None,
        signer=_KEY,
    )
    return open_upgrade_file(content, _RING)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--racks", type=int, default=RACKS)
    parser.add_argument("--kib", type=int, default=IMAGE_KIB)
    options = parser.parse_args()
    for part in PARTS.values():
        for name, fd in (("500k", False), ("FD 500k/2M", True)):
            figure = measure(replace(plant_spec(None, fd, None, options.racks, 1), flash=part), options.kib)
            sys.stdout.write(
                f"{part.name:<12}{name:<12}{figure.nodes} nodes: {figure.elapsed_s:.3f} s, of which other traffic "
                f"{figure.other_traffic_s:.3f} s; least {figure.wire_s:.3f} s on the wire, {figure.flash_s:.3f} s in "
                f"the flash; ratio {figure.ratio:.4f}\n"
            )


if __name__ == "__main__":
    main()
