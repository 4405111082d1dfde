"""Reading a file within a limit, with one typed error for each way to fail: into memory, or into a private copy."""

from __future__ import annotations

import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ess_can.errors import FileEmpty, FileTooLarge, FileUnreadable, TemporaryFileFailed
from ess_can.image.content import PIECE_SIZE


class PrivateCopy:
    """An `ImageContent` in a temporary file without a name, so that nobody else comes by it, and none of it in memory.

    The file goes when the copy is not used any more, or with the process.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Copy what `pieces` gives.  Raises TemporaryFileFailed."""
        try:
            self._file = tempfile.TemporaryFile(prefix="ess-can-")  # noqa: SIM115 - it is open for as long as we live
        except OSError as error:
            raise _failed("made", error.strerror or str(error)) from error
        weakref.finalize(self, self._file.close)
        self._size = 0
        try:
            for piece in pieces:
                self._file.write(piece)
                self._size += len(piece)
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # it tries once more to write what it could not
                self._file.close()
            raise _failed("written", error.strerror or str(error)) from error

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """See `ImageContent`.  Raises TemporaryFileFailed."""
        expected = max(0, min(size, self._size - offset))
        try:
            self._file.seek(offset)
            data = self._file.read(expected)
        except OSError as error:
            raise _failed("read", error.strerror or str(error)) from error
        if len(data) != expected:
            raise _failed("read", f"{len(data)} bytes at {offset} where {expected} were written")
        return data


def read_limited(path: Path, limit: int, *, remedy: str = "") -> bytes:
    """All bytes of the regular file at `path`.

    Raises FileUnreadable (missing, a directory, a device, no permission), FileEmpty, FileTooLarge (over `limit` bytes),
    with `remedy` in place of their own.
    """
    return b"".join(_pieces(path, limit, remedy))


def copy_limited(path: Path, limit: int) -> PrivateCopy:
    """A private copy of the regular file at `path`, which stays as it is whatever becomes of that one.

    Raises the errors of `read_limited`, and TemporaryFileFailed.
    """
    return PrivateCopy(_pieces(path, limit, ""))


def _pieces(path: Path, limit: int, remedy: str) -> Iterator[bytes]:
    """The file's bytes, never more than one beyond `limit`: it may grow meanwhile."""
    size = 0
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise FileUnreadable(f"cannot read {path}", why="it is a directory", remedy=remedy)
        if not stat.S_ISREG(state.st_mode):
            raise FileUnreadable(f"cannot read {path}", why="it is not a regular file", remedy=remedy)
        if state.st_size > limit:
            raise _too_large(path, limit, remedy)
        with path.open("rb") as file:
            while piece := file.read(min(PIECE_SIZE, limit + 1 - size)):
                size += len(piece)
                if size > limit:
                    raise _too_large(path, limit, remedy)
                yield piece
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileUnreadable(f"cannot read {path}", why=reason, remedy=remedy) from error
    if size == 0:
        raise FileEmpty(f"{path} is empty", remedy=remedy)


def _too_large(path: Path, limit: int, remedy: str) -> FileTooLarge:
    return FileTooLarge(f"{path} is too large", why=f"more than {limit} bytes, which is the limit", remedy=remedy)


def _failed(act: str, why: str) -> TemporaryFileFailed:
    return TemporaryFileFailed(f"the private copy of the file cannot be {act}", why=why)
