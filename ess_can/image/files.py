"""Reading a file within a limit, with one typed error for each way to fail."""

from __future__ import annotations

import stat
from pathlib import Path

from ess_can.errors import FileEmpty, FileTooLarge, FileUnreadable


def read_limited(path: Path, limit: int, *, remedy: str = "") -> bytes:
    """All bytes of the regular file at `path`.

    Raises FileUnreadable (missing, a directory, a device, no permission), FileEmpty, FileTooLarge (over `limit` bytes),
    with `remedy` in place of their own.
    """
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise FileUnreadable(f"cannot read {path}", why="it is a directory", remedy=remedy)
        if not stat.S_ISREG(state.st_mode):
            raise FileUnreadable(f"cannot read {path}", why="it is not a regular file", remedy=remedy)
        size = state.st_size
        data = b""
        if size <= limit:
            with path.open("rb") as file:
                data = file.read(limit + 1)  # one more than allowed: the file may have grown meanwhile
            size = len(data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileUnreadable(f"cannot read {path}", why=reason, remedy=remedy) from error
    if size > limit:
        raise FileTooLarge(f"{path} is too large", why=f"more than {limit} bytes, which is the limit", remedy=remedy)
    if not data:
        raise FileEmpty(f"{path} is empty", remedy=remedy)
    return data
