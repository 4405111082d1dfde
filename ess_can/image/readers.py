"""Firmware as linkers write it: Intel HEX, Motorola S-record, ELF and plain binary, read through bincopy."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter
from pathlib import Path
from typing import Final

from ess_can.errors import EssCanError, FileTooLarge, ImageInvalid, UsageError
from ess_can.image.files import read_limited
from ess_can.image.node_image import SLOT_SIZE

MAX_INPUT_SIZE: Final = 64 * 1024 * 1024
"""Bytes of an input file: as text, firmware takes thrice its size, and an ELF file has debug information besides."""

Block = tuple[int, bytes]
"""An address and the bytes from there on."""

_MAX_ELF_ENTRIES = 1 << 16


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
    try:
        blocks = _collect(_BLOCKS[kind](data), limit)
    except EssCanError:
        raise
    except Exception as error:  # the parsers below raise whatever a broken input makes them raise
        raise _broken(kind, str(error) or type(error).__name__) from error
    return _join(blocks, kind)


def _collect(blocks: Iterable[Block], limit: int) -> list[Block]:
    """The blocks that have bytes, by address.  Ends as soon as they cannot fit: a file may go on and on."""
    found, low, high, size = list[Block](), 1 << 64, 0, 0
    for address, content in blocks:
        if content:
            found.append((address, content))
            low, high = min(low, address), max(high, address + len(content))
            size += len(content)
            _check_span(low, max(high, low + size), limit)
    found.sort(key=itemgetter(0))
    return found


def _join(blocks: list[Block], kind: FirmwareFormat) -> Firmware:
    if not blocks:
        raise _broken(kind, "it holds no bytes to program")
    start = blocks[0][0]
    image = bytearray()
    for address, content in blocks:
        gap = address - start - len(image)
        if gap < 0:
            raise _broken(kind, f"it gives the byte for address {address:#x} twice")
        image += b"\xff" * gap + content
    return Firmware(start, bytes(image))


def _lines(data: bytes) -> Iterator[str]:
    for line in io.StringIO(data.decode("ascii")):
        if record := line.strip():
            yield record


def _hex_blocks(data: bytes) -> Iterator[Block]:
    """A block for each data record.  A file that was cut off between two lines lacks its end."""
    import bincopy

    offset, ended = 0, False
    for line in _lines(data):
        if ended:
            ended = False
            break
        kind, address, _, content = bincopy.unpack_ihex(line)
        if kind == bincopy.IHEX_DATA:
            yield offset + address, bytes(content)
        elif kind == bincopy.IHEX_EXTENDED_SEGMENT_ADDRESS:
            offset = int.from_bytes(content, "big") << 4
        elif kind == bincopy.IHEX_EXTENDED_LINEAR_ADDRESS:
            offset = int.from_bytes(content, "big") << 16
        elif kind > bincopy.IHEX_START_LINEAR_ADDRESS:
            raise _broken(FirmwareFormat.HEX, f"it has a record of type {kind}")
        ended = kind == bincopy.IHEX_END_OF_FILE
    if not ended:
        raise _broken(FirmwareFormat.HEX, "its end-of-file record is not exactly the last line")


def _srec_blocks(data: bytes) -> Iterator[Block]:
    """A block for each data record.  The file ends with its count (S5, S6), its termination (S7, S8, S9) or both."""
    import bincopy

    records, ended = 0, False
    for line in _lines(data):
        kind, address, _, content = bincopy.unpack_srec(line)
        if kind in "0123" and ended:
            ended = False
            break
        if kind in "123":
            records += 1
            yield address, bytes(content)
        elif kind in "56" and address != records:
            raise _broken(FirmwareFormat.SREC, f"it announces {address} data records and has {records}")
        ended = kind in "56789"
    if not ended:
        raise _broken(FirmwareFormat.SREC, "it does not end with its count or termination records")


def _elf_blocks(data: bytes) -> Iterator[Block]:
    """A block for each part that is loaded."""
    import bincopy

    _check_elf_tables(data)
    content = bincopy.BinFile()
    content.add_elf(data, overwrite=False)
    for segment in content.segments:
        if len(segment.data) != segment.maximum_address - segment.minimum_address:
            raise _broken(FirmwareFormat.ELF, f"it ends within the bytes for address {segment.minimum_address:#x}")
        yield segment.minimum_address, bytes(segment.data)


def _check_elf_tables(data: bytes) -> None:
    """Refuse tables that firmware does not have: the reader looks at every section once for each segment.

    Their sizes are announced apart from the tables themselves (System V ABI, "ELF Header").
    """
    wide, order = data[4] == 2, ">" if data[5] == 2 else "<"
    (segments_at, sections_at), counts_at = (
        struct.unpack_from(order + ("2Q" if wide else "2I"), data, 32 if wide else 28),
        54 if wide else 42,
    )
    segment_size, segments, section_size, sections = struct.unpack_from(order + "4H", data, counts_at)
    if (segment_size, section_size) != ((56, 64) if wide else (32, 40)):
        raise _broken(FirmwareFormat.ELF, "the entries of its tables have a wrong size")
    if max(segments_at + segments * segment_size, sections_at + sections * section_size) > len(data):
        raise _broken(FirmwareFormat.ELF, "its tables lie outside the file")
    if not 0 < segments * sections <= _MAX_ELF_ENTRIES:
        raise _broken(FirmwareFormat.ELF, f"it has {segments} segments and {sections} sections")


_BLOCKS: Final[Mapping[FirmwareFormat, Callable[[bytes], Iterator[Block]]]] = {
    FirmwareFormat.HEX: _hex_blocks,
    FirmwareFormat.SREC: _srec_blocks,
    FirmwareFormat.ELF: _elf_blocks,
}


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
