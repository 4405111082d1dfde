"""Where the bytes of an image are: something that is read piece by piece, so that nobody has to hold all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

PIECE_SIZE: Final = 64 * 1024
"""Bytes that are read at once by whoever goes through all of a content."""


class ImageContent(Protocol):
    """Bytes that never change, addressed by their offset."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` of them from `offset` on; fewer where the end comes first, as in a slice."""


@dataclass(frozen=True, slots=True)
class BytesContent:
    """A content that is in memory already."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        """See `ImageContent`."""
        return self.data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class ContentPart:
    """`size` bytes of another content, which has that many from `start` on."""

    whole: ImageContent = field(repr=False)
    start: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """See `ImageContent`."""
        return self.whole.read(self.start + offset, min(size, max(0, self.size - offset)))


def as_content(source: ImageContent | bytes) -> ImageContent:
    """`source`, or a content of its bytes."""
    return BytesContent(source) if isinstance(source, bytes) else source


def pieces(content: ImageContent, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes from `start` to `end` (all of them if None), `PIECE_SIZE` at a time."""
    stop = content.size if end is None else end
    for offset in range(start, stop, PIECE_SIZE):
        yield content.read(offset, min(PIECE_SIZE, stop - offset))
