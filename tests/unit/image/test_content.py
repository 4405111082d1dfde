"""Contents are slices of bytes that need not be in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ess_can.image.content import PIECE_SIZE, BytesContent, ContentPart, ImageContent, as_content, pieces
from ess_can.image.files import PrivateCopy

DATA = bytes(range(256))


def test_bytes_become_a_content_and_a_content_stays_what_it_is() -> None:
    content = as_content(DATA)
    assert content == BytesContent(DATA)
    assert as_content(content) is content


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 255), st.integers(0, 255))
def test_every_content_reads_as_a_slice_does(offset: int, size: int, start: int, length: int) -> None:
    length = min(length, len(DATA) - start)
    for whole in (BytesContent(DATA), PrivateCopy([DATA[:100], b"", DATA[100:]])):
        assert whole.size == len(DATA)
        assert whole.read(offset, size) == DATA[offset : offset + size]
        part = ContentPart(whole, start, length)
        assert part.size == length
        assert part.read(offset, size) == DATA[start : start + length][offset : offset + size]


@pytest.mark.parametrize("size", [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE + 7])
def test_the_pieces_are_all_of_it_and_none_is_large(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    content: ImageContent = BytesContent(data[:size])
    assert b"".join(pieces(content)) == data[:size]
    assert all(0 < len(piece) <= PIECE_SIZE for piece in pieces(content))
    for start, end in ((0, size // 2), (size // 3, size), (size, size)):
        assert b"".join(pieces(content, start, end)) == data[start:end]


def test_its_bytes_are_not_shown(tmp_path: Path) -> None:
    content = BytesContent(b"firmware")
    assert "firmware" not in repr(content) + repr(ContentPart(content, 1, 2))
