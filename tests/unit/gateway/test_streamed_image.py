from __future__ import annotations

import random
from hashlib import sha256

import pytest

from ess_can.errors import ImageCorrupt
from ess_can.gateway.streamed_image import StreamedImage
from ess_can.image.content import BytesContent
from ess_can.sim.loop import run_virtual

DATA = random.Random(1).randbytes(200_000)
HASH = sha256(DATA).digest()


class Changing:
    """A content of which one byte is another once it was looked at."""

    size = len(DATA)

    def __init__(self, at: int) -> None:
        self._at = at

    def read(self, offset: int, size: int) -> bytes:
        part = bytearray(DATA[offset : offset + size])
        if offset <= self._at < offset + len(part):
            part[self._at - offset] ^= 1
        return bytes(part)


@pytest.mark.parametrize("offset", [0, 1, 65_536, 131_073, len(DATA)])
def test_what_was_sent_from_wherever_is_what_was_verified(offset: int) -> None:
    async def stream() -> None:
        image = StreamedImage(BytesContent(DATA), HASH)
        await image.skip(offset)
        for at in range(offset, image.size, 4093):
            assert image.read(at, 4093) == DATA[at : at + 4093]
            assert image.read(at, 17) == DATA[at : at + 17]  # a block that was too long is sent in parts
        image.require_whole()

    run_virtual(stream())


@pytest.mark.parametrize("offset", [0, 65_536])
@pytest.mark.parametrize("at", [0, 65_535, 65_536, len(DATA) - 1])
def test_a_byte_that_changed_is_found(at: int, offset: int) -> None:
    async def stream() -> None:
        image = StreamedImage(Changing(at), HASH)
        await image.skip(offset)
        for start in range(offset, image.size, 4093):
            image.read(start, 4093)
        with pytest.raises(ImageCorrupt, match="changed"):
            image.require_whole()

    run_virtual(stream())


def test_one_that_was_not_read_to_its_end_is_not_whole() -> None:
    image = StreamedImage(BytesContent(DATA), HASH)
    image.read(0, 100_000)
    with pytest.raises(ImageCorrupt):
        image.require_whole()
