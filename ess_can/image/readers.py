"""Firmware as linkers write it: Intel HEX, Motorola S-record, ELF and plain binary, read through bincopy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ess_can.errors import FileTooLarge, ImageInvalid, UsageError
from ess_can.image.files import read_limited
from ess_can.image.node_image import SLOT_SIZE

if TYPE_CHECKING:
    import bincopy

MAX_INPUT_SIZE: Final = 64 * 1024 * 1024
"""Bytes of an input file: as text, firmware takes thrice its size, and an ELF file has debug information besides."""


class FirmwareFormat(Enum):
    """The formats, with the file name suffixes that mean them."""

    HEX = (".hex", ".ihex", ".ihx")
    SREC = (".srec", ".s19", ".s28", ".s37", ".mot")
    ELF = (".elf", ".axf", ".out")
    BIN = (".bin",)


@dataclass(frozen=True, slots=True)
class Firmware:
    """Bytes and the address of the first one; gaps hold 0xFF as erased flash does.  A plain binary starts at 0."""

    base_address: int
    data: bytes = field(repr=False)


def format_of(path: Path) -> FirmwareFormat:
    """The format that the file name's suffix means.  Raises UsageError."""
    for kind in FirmwareFormat:
        if path.suffix.lower() in kind.value:
            return kind
    known = " ".join(suffix for kind in FirmwareFormat for suffix in kind.value)
    raise UsageError(f"the format of {path} is not known", why=f"its name ends with none of {known}")


def read_firmware(path: Path, limit: int = SLOT_SIZE) -> Firmware:
    """Read a firmware file of at most `limit` bytes of content, gaps included.

    Raises UsageError (suffix), FileUnreadable, FileEmpty, FileTooLarge, ImageInvalid.
    """
    kind = format_of(path)
    return parse_firmware(read_limited(path, MAX_INPUT_SIZE), kind, limit)


def parse_firmware(data: bytes, kind: FirmwareFormat, limit: int = SLOT_SIZE) -> Firmware:
    """Read firmware from the bytes of a file.  Raises FileTooLarge, ImageInvalid."""
    if kind is FirmwareFormat.BIN:
        firmware = Firmware(0, data)
        _check_span(0, len(data), limit)
        return firmware
    import bincopy

    content = bincopy.BinFile()
    try:
        _add(content, data, kind)
    except ImageInvalid:
        raise
    except Exception as error:  # the parsers below raise whatever a broken input makes them raise
        raise _broken(kind, str(error) or type(error).__name__) from error
    segments = list(content.segments)
    if not segments:
        raise _broken(kind, "it holds no bytes to program")
    start, end = segments[0].minimum_address, segments[-1].maximum_address
    _check_span(start, end, limit)
    image = bytearray(b"\xff" * (end - start))
    for segment in segments:
        low, high = segment.minimum_address - start, segment.maximum_address - start
        if len(segment.data) != high - low:
            raise _broken(kind, f"it ends within the bytes for address {segment.minimum_address:#x}")
        image[low:high] = segment.data
    return Firmware(start, bytes(image))


def _add(content: bincopy.BinFile, data: bytes, kind: FirmwareFormat) -> None:
    if kind is FirmwareFormat.ELF:
        content.add_elf(data, overwrite=False)
        return
    text = data.decode("ascii")
    # bincopy does not miss the end, so a file that was cut off between two lines would pass.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if kind is FirmwareFormat.HEX:
        _check_hex_end(lines)
        content.add_ihex(text)
    else:
        _check_srec_end(lines)
        content.add_srec(text)


def _check_hex_end(lines: list[str]) -> None:
    ends = [number for number, line in enumerate(lines, 1) if line[7:9] == "01"]
    if ends != [len(lines)]:
        raise _broken(FirmwareFormat.HEX, "its end-of-file record is not exactly the last line")


def _check_srec_end(lines: list[str]) -> None:
    """The file ends with its count (S5, S6), its termination (S7, S8, S9) or both, and the count is right."""
    tail = [line for line in lines if line[:2] in ("S5", "S6", "S7", "S8", "S9")]
    if not tail or lines[-len(tail) :] != tail:
        raise _broken(FirmwareFormat.SREC, "it does not end with its count or termination records")
    records = sum(line[:2] in ("S1", "S2", "S3") for line in lines)
    for line in tail:
        if line[:2] in ("S5", "S6") and int(line[4:-2], 16) != records:
            raise _broken(FirmwareFormat.SREC, f"it announces {int(line[4:-2], 16)} data records and has {records}")


def _check_span(start: int, end: int, limit: int) -> None:
    if end - start > limit:
        raise FileTooLarge(
            "the firmware does not fit",
            why=f"it spans {end - start} bytes from {start:#x} to {end:#x}, at most {limit} are allowed",
            remedy="Check the linker script: a section outside the slot makes a wide gap.  "
            "If the nodes' slots are larger, say so with --slot-kib.",
        )


def _broken(kind: FirmwareFormat, why: str) -> ImageInvalid:
    return ImageInvalid(
        f"the {kind.name} file is broken", why=why, remedy="Build the firmware again, or copy it in binary mode."
    )
