"""An image as it is streamed: hashed once more on its way, so that what was sent is what was verified."""

from __future__ import annotations

import hashlib

from ess_can.bus.clock import pause
from ess_can.errors import ImageCorrupt
from ess_can.image.content import PIECE_SIZE, ImageContent


class StreamedImage:
    """An `ImageContent` that is read from its beginning (or from where `skip` led) to its end, in order.

    Reading a part again, as after a block that was too long, is no matter.
    """

    def __init__(self, content: ImageContent, sha256: bytes) -> None:
        self._content = content
        self._sha256 = sha256
        self._state = hashlib.sha256()
        self._hashed = 0

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._content.size

    def read(self, offset: int, size: int) -> bytes:
        """See `ImageContent`."""
        data = self._content.read(offset, size)
        self._state.update(data[self._hashed - offset :])
        self._hashed = max(self._hashed, offset + len(data))
        return data

    async def skip(self, offset: int) -> None:
        """Hash what is not sent again, a piece at a time: others have their turn in between."""
        while self._hashed < offset:
            self.read(self._hashed, min(PIECE_SIZE, offset - self._hashed))
            await pause(0)

    def require_whole(self) -> None:
        """Raises ImageCorrupt unless what was read is the image that was verified."""
        if self._state.digest() != self._sha256:
            raise ImageCorrupt(
                "the image changed after it was checked", why="what was sent has another SHA-256 than what was verified"
            )
