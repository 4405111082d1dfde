"""A node's memories in a small geometry, images with a fake signature, and a gateway's steps against them."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar, Final

from ess_can.errors import ImageInvalid, SignatureInvalid
from ess_can.identity import NodeType, Version
from ess_can.image.node_image import NodeImage
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import NodeRecords
from ess_can.sim.bootloader import Bootloader, provision
from ess_can.sim.flash import Flash, FlashOperation, FlashTiming
from ess_can.sim.flash_cells import BANKS, BankSnapshot, FlashCells, FlashGeometry
from ess_can.sim.fram import Fram
from ess_can.sim.parts import FlashPart
from ess_can.sim.power_cut import PowerCut
from ess_can.sim.programming import MemoryConfig, ProgrammingMemory
from ess_can.uds.target import Nrc, Operation

GEOMETRY: Final = FlashGeometry(sectors_per_bank=4, sector_size=64, unit_size=16)
HARDWARE: Final = 7
BLOCK: Final = 50  # not a multiple of the unit
BUFFER: Final = 116  # two blocks, and less than a unit that waits for the next
FRAM: Final = 512
_HEADER = struct.Struct(">4sBBHIBBI")
_MAGIC = b"FAKE"


def make_image(
    version: str,
    counter: int = 1,
    *,
    size: int = 150,
    node_type: NodeType = NodeType.BMU,
    hardware_id: int = HARDWARE,
) -> bytes:
    """An image of exactly `size` bytes whose last 32 stand for hash and signature."""
    v = Version.parse(version)
    head = _HEADER.pack(_MAGIC, v.major, v.minor, v.revision, v.build, node_type, hardware_id, counter)
    signed = head + random.Random(version).randbytes(size - len(head) - 32)
    return signed + hashlib.sha256(signed).digest()


def verify(image: bytes) -> NodeImage:
    """Check the fake signature, as `ess_can.trust` does a real one."""
    signed, digest = image[:-32], image[-32:]
    if len(signed) < _HEADER.size or not image.startswith(_MAGIC):
        raise ImageInvalid("not an image")
    if hashlib.sha256(signed).digest() != digest:
        raise SignatureInvalid("the signature does not match")
    _, major, minor, revision, build, node_type, hardware_id, counter = _HEADER.unpack_from(signed)
    return NodeImage(
        version=Version(major, minor, revision, build),
        node_type=NodeType(node_type),
        hardware_ids=(hardware_id,),
        security_counter=counter,
        payload_size=len(signed) - _HEADER.size,
        signed_size=len(signed),
        size=len(image),
        digest=digest,
        key_id=None,
        signature=None,
    )


PART: Final = FlashPart("a rig's", "none", GEOMETRY, FlashTiming(), BUFFER, BLOCK, hash_bytes_per_s=40e6)


class PowerLostError(Exception):
    """The node died under the gateway's hands."""


@dataclass(frozen=True, slots=True)
class RigState:
    """All that outlives a node's power."""

    banks: tuple[BankSnapshot, ...]
    fram: bytes
    undecided: tuple[tuple[int, int], ...]  # bits of the FRAM, by address


class Rig:
    """One provisioned and booted node; `now` advances by the time that its operations take.

    Its memories are new and end with it unless they are given.
    """

    FLASH: ClassVar[type[Flash]] = Flash
    FRAM: ClassVar[type[Fram]] = Fram

    def __init__(
        self,
        image: bytes | None = None,
        *,
        bank: int = 0,
        seed: int = 1,
        trial_boots: int = 1,
        part: FlashPart = PART,
        cells: FlashCells | None = None,
        fram: memoryview | None = None,
        power: PowerCut | None = None,
    ) -> None:
        self.now = 100.0
        self.power = power or PowerCut()
        self.rng = rng = random.Random(seed)
        self.operations: list[FlashOperation] = []
        self.flash = self.FLASH(rng, self.power, part.geometry, part.timing, cells=cells)
        self.flash.on_start.append(self.operations.append)
        self.fram = self.FRAM(rng, self.power, size=FRAM, cells=fram)
        self.records = NodeRecords(self.fram)
        self.bootloader = Bootloader(self.flash, self.records, verify)
        self.config = MemoryConfig(NodeType.BMU, HARDWARE, part, trial_boots)
        if image is not None:
            provision(self.flash, self.records, image, verify, bank)
        self.memory = ProgrammingMemory(self.bootloader, self.config)

    # --- the node -----------------------------------------------------------------------------

    @property
    def version(self) -> str:
        return str(self.memory.version)

    @property
    def standing(self) -> ImageState:
        return self.memory.standing

    def power_cycle(self) -> None:
        """Lose power (again), get it back, boot."""
        self.memory.power_off(self.now)
        self.power.restore()
        self.memory = ProgrammingMemory(self.bootloader, self.config)

    def reset(self) -> None:
        """A reset on request: supply and an armed cut stay as they are."""
        self.memory.power_off(self.now)
        self.memory = ProgrammingMemory(self.bootloader, self.config)
        self.check_power()

    def state(self) -> RigState:
        return self.with_banks(tuple(self.flash.export_bank(bank) for bank in range(BANKS)))

    def with_banks(self, banks: tuple[BankSnapshot, ...]) -> RigState:
        """The state, if it is known what is in flash."""
        return RigState(banks, self.fram.export(), tuple(sorted(self.fram.unstable.items())))

    def take_over(self, state: RigState) -> None:
        """Become a node with this memory; boot it next."""
        for bank, snapshot in enumerate(state.banks):
            self.flash.restore_bank(bank, snapshot)
        self.take_over_fram(state)

    def take_over_fram(self, state: RigState) -> None:
        """Only the records; flash stays as it is."""
        self.fram.restore(state.fram)
        self.fram.unstable.update(state.undecided)

    def would_boot(self) -> tuple[ImageState, str]:
        """What a power-up would run if power were lost now, found out on a copy."""
        copy = Rig(part=self.config.part)
        copy.take_over(self.state())
        copy.reset()
        return copy.standing, copy.version

    def check_power(self) -> None:
        if not self.power.powered:
            raise PowerLostError

    # --- the gateway --------------------------------------------------------------------------

    def wait(self, operation: Operation | Nrc) -> Nrc | None:
        """Let an operation finish when it is due; its result, or its refusal."""
        if isinstance(operation, Nrc):
            return operation
        assert operation.done_at >= self.now
        self.now = operation.done_at
        return operation.finish(self.now)

    def expect(self, operation: Operation | Nrc) -> None:
        result = self.wait(operation)
        self.check_power()
        assert result is None, result

    def announce(self, image: bytes) -> None:
        self.expect(self.memory.erase(len(image), hashlib.sha256(image).digest(), self.now))

    def download(self, image: bytes, offset: int = 0) -> None:
        block = self.memory.begin_download(offset, len(image) - offset, self.now)
        self.check_power()
        assert not isinstance(block, Nrc), block
        for start in range(offset, len(image), block):
            self.expect(self.memory.write(image[start : start + block], self.now))
        self.expect(self.memory.end_download(self.now))

    def verify(self, image: bytes) -> None:
        self.expect(self.memory.verify(zlib.crc32(image), self.now))

    def activate(self) -> None:
        result = self.memory.activate_on_trial(self.now)
        self.check_power()
        assert result is None, result

    def confirm(self) -> None:
        result = self.memory.confirm(self.now)
        self.check_power()
        assert result is None, result

    def put(self, image: bytes) -> None:
        """Bring the image into the inactive bank, from wherever an earlier attempt ended."""
        state = self.memory.resume_state()
        if state.image_sha256 != hashlib.sha256(image).digest():
            self.announce(image)
            state = self.memory.resume_state()
        if state.verified_offset < len(image):
            self.download(image, state.verified_offset)

    def revert(self) -> None:
        result = self.memory.revert(self.now)
        self.check_power()
        assert result is None, result

    def upgrade(self, image: bytes) -> None:
        """All of an upgrade, from whatever state the node is in.  Raises PowerLostError."""
        self.check_power()
        version = str(verify(image).version)
        if self.version != version:
            self.put(image)
            self.verify(image)
            self.activate()
            self.reset()
            assert (self.version, self.standing) == (version, ImageState.TRIAL)
        if self.standing is ImageState.TRIAL:
            self.confirm()
