from __future__ import annotations

import pytest

from ess_can.isotp import pci


@pytest.mark.parametrize("raw", range(256))
def test_every_st_min_value(raw: int) -> None:
    # T8: reserved 0x80..0xF0 and 0xFA..0xFF count as 127 ms
    if raw <= 127:
        expected = raw * 1e-3
    elif raw in range(0xF1, 0xFA):
        expected = {0xF1: 1e-4, 0xF2: 2e-4, 0xF3: 3e-4, 0xF4: 4e-4, 0xF5: 5e-4}.get(raw, (raw & 0xF) * 1e-4)
    else:
        expected = 0.127
    assert pci.st_min_seconds(raw) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "padding", "length", "fill"),
    [
        (3, None, 3, None),
        (3, 0xAA, 8, 0xAA),
        (8, 0xAA, 8, None),
        (9, None, 12, 0xCC),
        (9, 0x55, 12, 0x55),
        (49, 0, 64, 0),
    ],
)
def test_padding(size: int, padding: int | None, length: int, fill: int | None) -> None:
    padded = pci.pad(b"\x11" * size, padding)
    assert len(padded) == length
    assert padded[:size] == b"\x11" * size
    assert set(padded[size:]) == ({fill} if fill is not None else set())


@pytest.mark.parametrize(
    ("length", "tx_dl", "fits"),
    [(7, 8, True), (8, 8, False), (7, 64, True), (62, 64, True), (63, 64, False), (10, 12, True), (11, 12, False)],
)
def test_fits_single_frame(length: int, tx_dl: int, fits: bool) -> None:
    assert pci.fits_single_frame(length, tx_dl) is fits


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ("00", None),
        ("0011223344556677", None),  # SF_DL 0 in 8 bytes is no escape
        ("08" + "11" * 7, None),
        ("0f" + "11" * 7, None),
        ("021122", "1122"),
        ("0211223344556677", "1122"),  # padding may be anything
        ("0311", None),  # shorter than SF_DL
        ("0111" + "00" * 10, None),  # beyond 8 bytes only the escape
        ("000a" + "11" * 10, "11" * 10),
        ("000b" + "11" * 10, None),
        ("0000" + "11" * 10, None),
    ],
)
def test_decode_single_frame(data: str, payload: str | None) -> None:
    # T12: SF_DL 0, more than the frame holds, short DLC
    decoded = pci.decode_single_frame(bytes.fromhex(data))
    assert decoded == (None if payload is None else bytes.fromhex(payload))


@pytest.mark.parametrize(
    ("data", "length"),
    [
        ("1000" + "00" * 6, None),
        ("1007" + "11" * 6, None),  # T11: would have been a single frame
        ("1008" + "11" * 6, 8),
        ("1fff" + "11" * 6, 4095),
        ("1008" + "11" * 5, None),  # not a full frame
        ("10", None),
        ("1008", None),
        ("1000000010001122", 4096),
        ("100000000fff1122", None),  # the escape for what 12 bits can say
        ("1000ffffffff1122", 0xFFFF_FFFF),
        ("100a" + "11" * 10, None),
        ("100b" + "11" * 10, 11),
        ("103e" + "11" * 62, None),
        ("103f" + "11" * 62, 63),
        ("103f" + "11" * 7, None),  # 9 bytes: no length a frame can have
    ],
)
def test_decode_first_frame(data: str, length: int | None) -> None:
    raw = bytes.fromhex(data)
    decoded = pci.decode_first_frame(raw)
    if length is None:
        assert decoded is None
    else:
        assert decoded == (length, raw[2 if length <= 0xFFF else 6 :])


def test_first_frame_switches_to_the_escape_beyond_4095() -> None:
    assert pci.encode_first_frame(bytes(4095), 8) == (bytes.fromhex("1fff000000000000"), 6)
    assert pci.encode_first_frame(bytes(4096), 8) == (bytes.fromhex("1000000010000000"), 2)
