from __future__ import annotations

import struct
from pathlib import Path

import bincopy
import pytest

from ess_can.errors import EssCanError, FileEmpty, FileTooLarge, FileUnreadable, ImageInvalid, UsageError
from ess_can.image.readers import Firmware, FirmwareFormat, format_of, parse_firmware, read_firmware

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
