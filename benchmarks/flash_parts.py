"""How long real parts take to receive, program and check an image, over the longer of its wire time and flash time.

Nodes on an otherwise idle bus, in virtual time with exact frame timing: the figures are the same on every machine.
Run it as `python -m benchmarks.flash_parts` from the project's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.station import NoHighVoltage
from ess_can.bus.clock import now, pause
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.port import Bus
from ess_can.can.timing import BitTiming
from ess_can.gateway.node_client import NodeClient, OnError, OnMessage
from ess_can.gateway.transfer_meter import ideal_wire_time_s
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.image.content import BytesContent
from ess_can.image.node_image import NodeImage, build_node_image
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.sim.controller import QueueOrder
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import Board, SimulatedNode
from ess_can.sim.parts import PARTS, FlashPart
from ess_can.sim.plant import BMU_HARDWARE_ID
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.sim.wire import Wire
from ess_can.trust.keys import KeyRing, SigningKey
from ess_can.trust.verify import verify_node_image
from ess_can.uds.access import CmacAccess

CLASSIC_500K = BitTiming(500_000)
FD_500K_2M = BitTiming(500_000, 2_000_000)
TIMINGS = (CLASSIC_500K, FD_500K_2M)
BMU1 = NodeAddress(NodeType.BMU, 1)
_OLD, _NEW = Version(1, 0, 0), Version(1, 1, 0)
_ACCESS = CmacAccess(TEST_ONLY_ACCESS_SECRET)
_KEY = SigningKey.from_seed(hashlib.sha256(b"flash parts").digest(), "flash parts")
_RING = KeyRing.of(_KEY.public)
_BETWEEN_S = 0.01  # from the node's boot to the first request


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds to program `image_bytes` into each of `nodes` nodes at the same time.

    From the first RequestDownload until the last node has verified its image; of all images on the wire at best; and
    that the part's own erase and program times allow at best, all sectors of the image being dirty.  `repeated` counts
    requests that had to be sent again.
    """

    part: str
    timing: BitTiming
    image_bytes: int
    nodes: int
    elapsed_s: float
    wire_s: float
    flash_s: float
    repeated: int

    @property
    def ratio(self) -> float:
        """Elapsed time over the longer of the two limits."""
        return self.elapsed_s / max(self.wire_s, self.flash_s)


def measure(
    part: FlashPart, timing: BitTiming, image_bytes: int, addresses: Sequence[NodeAddress] = (BMU1,)
) -> Measurement:
    """Program an image of `image_bytes` into nodes whose slots are dirty as far as the image reaches.

    The part gets as many sectors as it takes.  Raises EssCanError if anything goes wrong.
    """
    part = part.with_slots_of(image_bytes)
    return run_virtual(_measure(part, timing, image_bytes, addresses, StationCodec.load()))


async def _measure(
    part: FlashPart, timing: BitTiming, size: int, addresses: Sequence[NodeAddress], codec: StationCodec
) -> Measurement:
    fd = timing.data_bitrate is not None
    isotp = IsoTpParams(tx_dl=64, fd=True, brs=True) if fd else IsoTpParams()
    wire = Wire(timing)
    nodes = [_node(wire, codec, address, part, isotp, size) for address in addresses]
    bus = wire.controller("tester")
    await pause(_BETWEEN_S)
    images = {address: _image(address.node_type, _NEW, size) for address in addresses}
    downloads = [_Download(bus, codec, address, isotp, images[address]) for address in addresses]
    for download in downloads:
        await download.prepare()
    began_at = now()
    async with asyncio.TaskGroup() as group:
        for download in downloads:
            group.create_task(download.run())
    elapsed_s = now() - began_at
    for download in downloads:
        await download.client.close()
    for node in nodes:
        node.power_off(now())
    return Measurement(
        part.name,
        timing,
        size,
        len(addresses),
        elapsed_s,
        sum(ideal_wire_time_s(images[address], codec.diagnostic_ids(address)[0], timing) for address in addresses),
        flash_time_s(part, size),
        sum(download.client.repeated for download in downloads),
    )


def erase_time_s(part: FlashPart, size: int) -> float:
    """What it takes to erase all sectors of an image of `size` bytes."""
    return -(-size // part.geometry.sector_size) * part.timing.sector_erase_s


def flash_time_s(part: FlashPart, size: int) -> float:
    """The least that the part's own erase and program times allow for an image of `size` bytes."""
    return erase_time_s(part, size) + -(-size // part.geometry.unit_size) * part.timing.unit_program_s


class _Download:
    """The tester's work on one node."""

    def __init__(self, bus: Bus, codec: StationCodec, address: NodeAddress, isotp: IsoTpParams, image: bytes) -> None:
        ids = IsoTpAddress(*codec.diagnostic_ids(address))

        def connect(on_message: OnMessage, on_error: OnError) -> IsoTpChannel:
            return IsoTpChannel(bus, ids, isotp, on_message=on_message, on_error=on_error)

        self.client = NodeClient(connect)
        self._image = image

    async def prepare(self) -> None:
        """All that comes before the RequestDownload."""
        await self.client.enter_extended()
        await self.client.check_preconditions()
        await self.client.enter_programming()
        await self.client.authenticate(_ACCESS)
        await self.client.announce(len(self._image), hashlib.sha256(self._image).digest())

    async def run(self) -> None:
        """From the RequestDownload on."""
        await self.client.download(0, BytesContent(self._image))
        await self.client.verify(zlib.crc32(self._image))


def _node(
    wire: Wire, codec: StationCodec, address: NodeAddress, part: FlashPart, isotp: IsoTpParams, dirty_bytes: int
) -> SimulatedNode:
    """A node that runs, and whose inactive slot is dirty in its first `dirty_bytes`."""
    geometry = part.geometry

    def verify(content: bytes) -> NodeImage:
        return verify_node_image(content, _RING, slot_size=geometry.slot_size).facts

    node = SimulatedNode(
        address,
        Board(BMU_HARDWARE_ID, "BENCH-0001", _ACCESS, isotp=isotp, part=part),
        wire.controller(str(address), depth=32, order=QueueOrder.PRIORITY),
        codec,
        NoHighVoltage(),
        verify,
        random.Random(1),  # noqa: S311 - the same every time
        {},
    )
    node.install(_image(address.node_type, _OLD, 4096))
    for number in range(-(-dirty_bytes // geometry.sector_size)):
        sector = geometry.slot_offset + number * geometry.sector_size
        if node.flash.is_blank(1, sector, geometry.sector_size):
            node.flash.factory_program(1, sector, bytes(geometry.unit_size))
    node.power_on(boot_s=0.0)
    return node


def _image(node_type: NodeType, version: Version, size: int) -> bytes:
    """A signed image of exactly `size` bytes."""

    def build(payload: bytes) -> bytes:
        return build_node_image(
            payload,
            version=version,
            node_type=node_type,
            hardware_ids=(BMU_HARDWARE_ID,),
            security_counter=version.minor + 1,
            signer=_KEY,
        )

    content = random.Random(f"{version} {size}")  # noqa: S311 - the same every time
    return build(content.randbytes(size - len(build(b"0")) + 1))


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kib", type=int, default=1024, help="size of the image")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measurements = [measure(part, timing, arguments.kib * 1024) for part in PARTS.values() for timing in TIMINGS]
    if arguments.json:
        rows = [
            {
                "part": m.part,
                "bitrate": m.timing.bitrate,
                "data_bitrate": m.timing.data_bitrate,
                "image_bytes": m.image_bytes,
                "elapsed_s": m.elapsed_s,
                "wire_s": m.wire_s,
                "flash_s": m.flash_s,
                "ratio": m.ratio,
            }
            for m in measurements
        ]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    lines = [f"{'part':12} {'bus':12} {'elapsed s':>10} {'wire s':>8} {'flash s':>8} {'ratio':>6}"]
    for m in measurements:
        bus = f"{m.timing.bitrate // 1000}k" + (f"/{m.timing.data_bitrate // 1000}k" if m.timing.data_bitrate else "")
        lines.append(f"{m.part:12} {bus:12} {m.elapsed_s:10.3f} {m.wire_s:8.3f} {m.flash_s:8.3f} {m.ratio:6.3f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
