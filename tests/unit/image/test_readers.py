from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import bincopy
import pytest

from ess_can.errors import EssCanError, FileEmpty, FileTooLarge, FileUnreadable, ImageInvalid, UsageError
from ess_can.image.readers import Firmware, FirmwareFormat, format_of, parse_firmware, read_firmware

if TYPE_CHECKING:
    from _typeshed import TraceFunction

BASE = 0x0802_0200
CONTENT = bytes(range(64)) + b"\xff" * 16 + b"tail"


def with_gap() -> bincopy.BinFile:
    file = bincopy.BinFile()
    file.add_binary(CONTENT[:64], address=BASE)
    file.add_binary(b"tail", address=BASE + 80)
    return file


def elf(data: bytes = CONTENT, *, announced: int | None = None) -> bytes:
    """A 32-bit little-endian ARM executable with one loaded section."""
    size = len(data) if announced is None else announced
    data_at, names_at = 0x74, 0x74 + len(data)
    names = b"\0.text\0.shstrtab\0"
    sections_at = names_at + len(names)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, BASE, 0x34, sections_at, 0, 0x34, 32, 1, 40, 3, 2)
    segment = struct.pack("<8I", 1, data_at, 0x2000_0000, BASE, size, size, 5, 4)
    sections = bytes(40)
    sections += struct.pack("<10I", 1, 1, 2, BASE, data_at, size, 0, 0, 4, 0)
    sections += struct.pack("<10I", 7, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    return (header + segment).ljust(data_at, b"\0") + data + names + sections


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (with_gap().as_ihex().encode(), FirmwareFormat.HEX),
        (with_gap().as_srec().encode(), FirmwareFormat.SREC),
        (with_gap().as_srec().replace("\n", "\r\n").encode() + b"\r\n", FirmwareFormat.SREC),
        (with_gap().as_srec().encode() + b"S70508020200EE\n", FirmwareFormat.SREC),
        (elf(), FirmwareFormat.ELF),
    ],
)
def test_formats_with_addresses(data: bytes, kind: FirmwareFormat) -> None:
    assert parse_firmware(data, kind) == Firmware(BASE, CONTENT)


def test_plain_binary() -> None:
    assert parse_firmware(CONTENT, FirmwareFormat.BIN) == Firmware(0, CONTENT)


HEX_LINES = with_gap().as_ihex().splitlines()
SREC_LINES = with_gap().as_srec().splitlines()


def text(*lines: str) -> bytes:
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", FirmwareFormat.HEX),
        (text(*HEX_LINES[:-1]), FirmwareFormat.HEX),  # the end-of-file record is missing
        (text(*HEX_LINES, HEX_LINES[0]), FirmwareFormat.HEX),
        (text(*HEX_LINES, HEX_LINES[-1]), FirmwareFormat.HEX),
        (text(HEX_LINES[-1]), FirmwareFormat.HEX),  # nothing but the end
        (text(HEX_LINES[0], HEX_LINES[1].replace("0", "1", 1), HEX_LINES[-1]), FirmwareFormat.HEX),
        (text(*HEX_LINES[:-1], HEX_LINES[1], HEX_LINES[-1]), FirmwareFormat.HEX),  # an address twice
        (text("hello", HEX_LINES[-1]), FirmwareFormat.HEX),
        (text(":zz0000010000", HEX_LINES[-1]), FirmwareFormat.HEX),
        (b"\xff\xfe", FirmwareFormat.HEX),
        (text(*SREC_LINES[:-1]), FirmwareFormat.SREC),
        (text(*SREC_LINES, SREC_LINES[0]), FirmwareFormat.SREC),
        (text(*SREC_LINES[1:]), FirmwareFormat.SREC),  # a data record is missing
        (text(SREC_LINES[0], SREC_LINES[1][:-2] + "00", SREC_LINES[-1]), FirmwareFormat.SREC),
        (text("S", SREC_LINES[-1]), FirmwareFormat.SREC),
        (b"", FirmwareFormat.ELF),
        (b"\x7fELF", FirmwareFormat.ELF),
        (elf()[:200], FirmwareFormat.ELF),
        (elf(announced=5000), FirmwareFormat.ELF),  # the file ends within the section
        (b"\x7fELF" + bytes(range(200)), FirmwareFormat.ELF),
    ],
)
def test_broken_inputs(data: bytes, kind: FirmwareFormat) -> None:
    with pytest.raises(ImageInvalid, match=kind.name):
        parse_firmware(data, kind)


@pytest.mark.parametrize("pack", [bincopy.BinFile.as_ihex, bincopy.BinFile.as_srec])
def test_work_grows_with_the_records_not_with_their_square(pack: Callable[[bincopy.BinFile], str]) -> None:
    """Thousands of bytes that do not touch each other, in an order that had each of them moved again and again."""

    def calls(count: int) -> int:
        file = bincopy.BinFile()
        for number in range(count):
            file.add_binary(b"x", address=2 * number)
        text = pack(file).encode()
        kind = FirmwareFormat.HEX if pack is bincopy.BinFile.as_ihex else FirmwareFormat.SREC
        with lines_counted() as counted:
            parse_firmware(text, kind)
        return counted[0]

    assert calls(400) < 2.2 * calls(200)


@contextmanager
def lines_counted() -> Iterator[list[int]]:
    """Count the lines of Python that are run."""
    counted = [0]

    def trace(_frame: FrameType, event: str, _argument: object) -> TraceFunction:
        counted[0] += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield counted
    finally:
        sys.settrace(before)


def wide_elf() -> bytes:
    """A 64-bit header and nothing that it announces."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    return header + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, BASE, 0x40, 0x40, 0, 0x40, 56, 1, 64, 1, 0)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0x2A, b"\0\0\xff\xff", "wrong size"),  # 65,535 segments of no bytes each
        (0x2E, b"\0\0\xff\xff", "wrong size"),  # 65,535 sections, looked at for each segment
        (0x2C, b"\xff\xff", "outside the file"),
        (0x20, b"\xff\xff\xff\xff", "outside the file"),
        (0x30, b"\0\0", "1 segments and 0 sections"),
    ],
)
def test_elf_tables_that_no_firmware_has(at: int, value: bytes, why: str) -> None:
    good = elf()
    with pytest.raises(ImageInvalid, match=why):
        parse_firmware(good[:at] + value + good[at + len(value) :], FirmwareFormat.ELF)


def test_elf_tables_with_too_many_entries() -> None:
    good = bytearray(elf())
    struct.pack_into("<H", good, 0x2C, 300)
    struct.pack_into("<H", good, 0x30, 300)
    with pytest.raises(ImageInvalid, match="300 segments and 300 sections"):
        parse_firmware(bytes(good) + bytes(300 * 40), FirmwareFormat.ELF)


def test_a_64_bit_elf_file_has_larger_entries() -> None:
    with pytest.raises(ImageInvalid, match="outside the file"):
        parse_firmware(wide_elf(), FirmwareFormat.ELF)
    with pytest.raises(ImageInvalid, match="no bytes to program"):
        parse_firmware(wide_elf() + bytes(64), FirmwareFormat.ELF)


@pytest.mark.parametrize("line", [":00000006FA", ":0100000600F9"])
def test_a_hex_record_of_an_unknown_type(line: str) -> None:
    with pytest.raises(ImageInvalid, match="type 6"):
        parse_firmware(text(*HEX_LINES[:-1], line, HEX_LINES[-1]), FirmwareFormat.HEX)


def test_hex_addresses_by_segment() -> None:
    lines = (":020000021000EC", ":0100000041BE", ":00000001FF")
    assert parse_firmware(text(*lines), FirmwareFormat.HEX) == Firmware(0x1_0000, b"A")
    starts = (":0400000300003800C1", ":0400000508020200EB")  # where to start is of no interest
    assert parse_firmware(text(*starts, *lines), FirmwareFormat.HEX) == Firmware(0x1_0000, b"A")


def test_an_srec_header_behind_the_end() -> None:
    with pytest.raises(ImageInvalid, match="does not end"):
        parse_firmware(text(*SREC_LINES, "S0030000FC"), FirmwareFormat.SREC)


def test_reading_ends_as_soon_as_it_cannot_fit() -> None:
    lines = [*HEX_LINES[:-1], "what follows is not looked at"]
    with pytest.raises(FileTooLarge):
        parse_firmware(text(*lines), FirmwareFormat.HEX, limit=10)


def test_a_wide_gap_is_not_filled() -> None:
    file = bincopy.BinFile()
    file.add_binary(b"a", address=0)
    file.add_binary(b"b", address=0xFFFF_0000)
    with pytest.raises(FileTooLarge, match="4294901761 bytes"):
        parse_firmware(file.as_ihex().encode(), FirmwareFormat.HEX)


def test_the_limit() -> None:
    parse_firmware(bytes(10), FirmwareFormat.BIN, limit=10)
    with pytest.raises(FileTooLarge):
        parse_firmware(bytes(11), FirmwareFormat.BIN, limit=10)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.hex", FirmwareFormat.HEX),
        ("a.S19", FirmwareFormat.SREC),
        ("a.elf", FirmwareFormat.ELF),
        ("a.b.bin", FirmwareFormat.BIN),
    ],
)
def test_the_suffix_tells_the_format(name: str, kind: FirmwareFormat) -> None:
    assert format_of(Path(name)) is kind


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "fw.hex"
    path.write_text(with_gap().as_ihex())
    assert read_firmware(path) == Firmware(BASE, CONTENT)
    (tmp_path / "empty.hex").touch()
    cases: dict[str, type[EssCanError]] = {
        "empty.hex": FileEmpty,
        "missing.hex": FileUnreadable,
        "fw.zip": UsageError,
        "fw": UsageError,
    }
    for name, error in cases.items():
        with pytest.raises(error):
            read_firmware(tmp_path / name)
