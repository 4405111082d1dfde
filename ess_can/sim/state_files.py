"""Files in which a simulated plant's memories outlive its process.

Each node has one file, mapped into memory: what is stored there is in the file whenever and however the process ends.
(A loss of the computer's own power may cost what its system had not written out yet.)  A file gets its name only once
the production line has filled it, so that a file with a name is always whole.  Numbers are in the machine's byte order.

Each part of the plant (BMS, PCS) holds a lock on its part of the folder for as long as it runs.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ess_can.errors import FileUnreadable, UsageError
from ess_can.file_lock import lock_file
from ess_can.sim.flash_cells import FlashCells, FlashGeometry, UnitState
from ess_can.sim.fram import FRAM_SIZE

_MAGIC = b"ESSCANsm"
_FORMAT = 1
_HEADER = struct.Struct("=8s6I16s")  # magic, format, geometry, FRAM's size, whose it is
_HEADER_SIZE = 64
_STARTS = struct.Struct("=Q")
_NO_GEOMETRY = FlashGeometry(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class MappedMemory:
    """A file's content behind its header; `fresh` until it is `sealed`, which gives the file its name."""

    content: memoryview
    fresh: bool
    _path: Path

    def seal(self) -> None:
        """It has been filled: from now on it is found again.  Raises FileUnreadable."""
        if self.fresh:
            try:
                _unfinished(self._path).replace(self._path)
            except OSError as error:
                raise _unusable(self._path, error.strerror or str(error)) from error


@dataclass(frozen=True, slots=True)
class NodeStorage:
    """Where a node's flash and FRAM live.  `fresh` until the production line has filled them: then call `seal`."""

    flash: FlashCells
    fram: memoryview
    memory: MappedMemory

    @property
    def fresh(self) -> bool:
        """Whether there is nothing in it yet."""
        return self.memory.fresh


class StateFiles:
    """The files of one plant, or of some parts of it, in `folder`, which is made if it does not exist.

    `starts` counts how often these parts were started before.  Raises UsageError if another process uses one of them,
    and FileUnreadable if the folder cannot be used.
    """

    def __init__(self, folder: Path, parts: Iterable[str]) -> None:
        self.folder = folder
        self.starts = 0
        self._locks: list[int] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for part in parts:
                self._take(folder / f"{part}.lock")
        except OSError as error:
            self.close()
            path = folder if error.filename is None else Path(os.fsdecode(error.filename))
            raise _unusable(path, error.strerror or str(error)) from error
        except UsageError:
            self.close()
            raise

    def node(self, name: str, geometry: FlashGeometry) -> NodeStorage:
        """A node's memories.  Raises FileUnreadable for a file that is not this node's, whole, with this geometry."""
        flash_size = FlashCells.size(geometry)
        memory = self._map(name, geometry, FRAM_SIZE, flash_size + FRAM_SIZE)
        cells = FlashCells(memory.content[:flash_size], geometry)
        if memory.fresh:
            cells.make_blank()
        elif reason := _implausible(cells):
            raise _unfit(self.folder / f"{name}.mem", reason)
        return NodeStorage(cells, memory.content[flash_size:], memory)

    def record(self, name: str) -> MappedMemory:
        """A memory of `FRAM_SIZE` bytes for a device without flash; zeros when new.  Raises FileUnreadable."""
        return self._map(name, _NO_GEOMETRY, FRAM_SIZE, FRAM_SIZE)

    def close(self) -> None:
        """Let others use the folder."""
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def _take(self, path: Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._locks.append(handle)
        if not lock_file(handle):
            raise UsageError(
                f"another simulator uses {path.parent}",
                why=f"{path.name} is locked",
                remedy="End it first, or give each its own --state DIR.",
            )
        stored = os.read(handle, _STARTS.size)
        starts = _STARTS.unpack(stored)[0] if len(stored) == _STARTS.size else 0
        self.starts = max(self.starts, starts)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, _STARTS.pack((starts + 1) % 2**64))

    def _map(self, name: str, geometry: FlashGeometry, fram_size: int, size: int) -> MappedMemory:
        path = self.folder / f"{name}.mem"
        header = _HEADER.pack(
            _MAGIC,
            _FORMAT,
            geometry.sectors_per_bank,
            geometry.sector_size,
            geometry.unit_size,
            geometry.protected_sectors,
            fram_size,
            name.encode("ascii"),
        )
        try:
            fresh = not path.exists()
            mapped = _create(_unfinished(path), header, size) if fresh else _open(path, header, size)
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error
        return MappedMemory(memoryview(mapped)[_HEADER_SIZE:], fresh, path)


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".new")


def _create(path: Path, header: bytes, size: int) -> mmap.mmap:
    with suppress(FileNotFoundError):
        path.unlink()
    with path.open("x+b") as file:
        if sys.platform == "linux":
            os.posix_fallocate(file.fileno(), 0, _HEADER_SIZE + size)  # a full disk shows now, not in mid-write
        else:
            file.truncate(_HEADER_SIZE + size)
        mapped = mmap.mmap(file.fileno(), _HEADER_SIZE + size)
    mapped[: len(header)] = header
    return mapped


def _open(path: Path, header: bytes, size: int) -> mmap.mmap:
    with path.open("r+b") as file:
        found = file.read(len(header))
        length = os.fstat(file.fileno()).st_size
        if found[: len(_MAGIC)] != _MAGIC:
            raise _unfit(path, "it is not a memory of a simulated plant")
        if len(found) == len(header) and found != header:
            raise _unfit(path, _difference(found, header))
        if length != _HEADER_SIZE + size:
            what = "cut off" if length < _HEADER_SIZE + size else "too long"
            raise _unfit(path, f"it is {what}: it has {length} bytes, not {_HEADER_SIZE + size}")
        return mmap.mmap(file.fileno(), length)


def _difference(found: bytes, expected: bytes) -> str:
    """What of a file's header is not as expected, as text."""
    _, version, *geometry, name = _HEADER.unpack(found)
    _, our_version, *our_geometry, our_name = _HEADER.unpack(expected)
    if version != our_version:
        if version == int.from_bytes(our_version.to_bytes(4, "little"), "big"):
            return "it is from a machine of another byte order"
        return f"it is of another version of ess-can: its format is {version}, not {our_version}"
    if name != our_name:
        return f"it is another node's: that of {_text(name)}, not of {_text(our_name)}"
    kib, our_kib = (sectors * size / 1024 for sectors, size, *_ in (geometry, our_geometry))
    if kib != our_kib:
        return f"it is of another flash geometry: banks of {kib:g} KiB, not {our_kib:g} (--flash-kib as before?)"
    return f"it is of another flash geometry: {geometry}, not {our_geometry}"


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode("ascii", "replace")


def _implausible(cells: FlashCells) -> str:
    """What no flash ever holds, as text; empty if nothing of the kind is found."""
    try:
        for bank in cells.banks:
            if max(bank.states) > max(UnitState):
                return "its unit states make no sense"
            _ = bank.cut_off
    except ValueError as error:
        return str(error)
    return ""


def _unfit(path: Path, reason: str) -> FileUnreadable:
    """The file can be read, but it is not what belongs there."""
    remedy = f"Remove the file {path}, and this node begins as a new one; or give another folder by --state."
    return _refused(path, reason, remedy)


def _unusable(path: Path, reason: str) -> FileUnreadable:
    """The system refuses the file or folder."""
    return _refused(path, reason, f"Make {path} readable and writable, or give another folder by --state.")


def _refused(path: Path, reason: str, remedy: str) -> FileUnreadable:
    return FileUnreadable(f"{path} cannot be used as the simulated plant's memory", why=reason, remedy=remedy)
