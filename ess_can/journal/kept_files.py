"""The journal's own copy of the upgrade file: an interrupted upgrade goes on with the very bytes that it began with.

The bytes are hashed while they are copied and once more when they are opened again; what is used is what was hashed.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from ess_can.errors import FileUnreadable
from ess_can.journal.failures import damaged, told_as_ours

_PIECE: Final = 64 * 1024
_SUFFIX: Final = ".essup"
_SYNCS_DIRECTORIES: Final = os.name != "nt"


class Content(Protocol):
    """Bytes addressed by their offset, as `ess_can.image.content.ImageContent`."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` of them from `offset` on; fewer where the end comes first."""


class KeptBytes:
    """A content in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many bytes."""
        return len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        """See `Content`."""
        return self._data[offset : offset + size]


class KeptFile:
    """A content in an open file, which stays readable until it is not used any more."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._handle)
        self._size = os.fstat(self._handle).st_size

    @property
    def size(self) -> int:
        """How many bytes."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """See `Content`.  Raises JournalUnwritable, and JournalCorrupt if there is less than there was."""
        expected = max(0, min(size, self._size - offset))
        with told_as_ours(str(self._path)):
            os.lseek(self._handle, offset, os.SEEK_SET)
            data = os.read(self._handle, expected)
        if len(data) != expected:
            raise damaged(self._path, f"{len(data)} bytes at {offset} where there were {expected}")
        return data


class KeptFiles(Protocol):
    """Copies by the name of their upgrade."""

    def keep(self, name: str, source: Content | Path | bytes, sha256: bytes) -> None:
        """Copy `source`, whose bytes were checked and have this hash.

        Raises FileUnreadable if it cannot be read or is not what was checked any more, and JournalUnwritable.
        """

    def open(self, name: str, sha256: bytes) -> Content:
        """The copy.  Raises JournalCorrupt if it is not there or not as it was made, and JournalUnwritable."""

    def keep_only(self, names: set[str]) -> None:
        """Remove all others."""


class MemoryFiles:
    """Copies that go with the process."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def keep(self, name: str, source: Content | Path | bytes, sha256: bytes) -> None:
        """See `KeptFiles`."""
        data = b"".join(_pieces(source))
        _require_same(hashlib.sha256(data).digest(), sha256)
        self._files[name] = data

    def open(self, name: str, sha256: bytes) -> Content:
        """See `KeptFiles`."""
        data = self._files.get(name)
        if data is None or hashlib.sha256(data).digest() != sha256:
            raise damaged(name, "its upgrade file is not as it was kept")
        return KeptBytes(data)

    def keep_only(self, names: set[str]) -> None:
        """See `KeptFiles`."""
        self._files = {name: data for name, data in self._files.items() if name in names}


class DiskFiles:
    """Copies in a directory of their own, for nobody else to read; on the disk when `keep` returns."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def keep(self, name: str, source: Content | Path | bytes, sha256: bytes) -> None:
        """See `KeptFiles`."""
        path = self._path(name)
        unfinished = path.with_suffix(".new")
        with told_as_ours(str(path)):
            unfinished.unlink(missing_ok=True)
            try:
                _require_same(_write(unfinished, source), sha256)
                unfinished.replace(path)
            except BaseException:
                with suppress(OSError):
                    unfinished.unlink()
                raise
            sync_directory(self._directory)

    def open(self, name: str, sha256: bytes) -> Content:
        """See `KeptFiles`."""
        path = self._path(name)
        with told_as_ours(str(path)):
            try:
                file = KeptFile(path)
            except FileNotFoundError as error:
                raise damaged(path, "the kept upgrade file is missing") from error
            if _hash(file) != sha256:
                raise damaged(path, "the kept upgrade file is not the one that the upgrade began with")
        return file

    def keep_only(self, names: set[str]) -> None:
        """See `KeptFiles`.  What cannot be removed stays: it harms nobody."""
        with suppress(OSError):
            for path in list(self._directory.iterdir()):
                if path not in {self._path(name) for name in names}:
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"


def size_of(source: Content | Path | bytes) -> int:
    """How many bytes it has.  Raises FileUnreadable."""
    if isinstance(source, Path):
        try:
            return source.stat().st_size
        except OSError as error:
            raise _unreadable(source, error) from error
    return len(source) if isinstance(source, bytes) else source.size


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk.  Raises OSError."""
    if not _SYNCS_DIRECTORIES:
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, source: Content | Path | bytes) -> bytes:
    """Copy to a new file and return the hash of what was written."""
    state = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        for piece in _pieces(source):
            state.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return state.digest()


def _pieces(source: Content | Path | bytes) -> Iterator[bytes]:
    """Raises FileUnreadable."""
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except OSError as error:
            raise _unreadable(source, error) from error
        return
    content = KeptBytes(source) if isinstance(source, bytes) else source
    for offset in range(0, content.size, _PIECE):
        yield content.read(offset, _PIECE)


def _unreadable(path: Path, error: OSError) -> FileUnreadable:
    return FileUnreadable(f"cannot read {path}", why=error.strerror or str(error))


def _hash(content: Content) -> bytes:
    state = hashlib.sha256()
    for piece in _pieces(content):
        state.update(piece)
    return state.digest()


def _require_same(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise FileUnreadable(
            "the upgrade file changed after it was checked",
            why=f"SHA-256 is {found.hex()}, that of the checked bytes {expected.hex()}",
            remedy="Run the command again, and let nobody write to the file meanwhile.",
        )
