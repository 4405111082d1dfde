"""Reading a file within a limit, with one typed error for each way to fail."""

from __future__ import annotations

import stat
from pathlib import Path

from ess_can.errors import FileEmpty, FileTooLarge, FileUnreadable


def read_limited(path: Path, limit: int) -> bytes:
    """All bytes of the regular file at `path`.

    Raises FileUnreadable (missing, a directory, a device, no permission), FileEmpty, FileTooLarge (over `limit` bytes).
    """
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise FileUnreadable(f"cannot read {path}", why="it is a directory")
        if not stat.S_ISREG(state.st_mode):
            raise FileUnreadable(f"cannot read {path}", why="it is not a regular file")
        size = state.st_size
        data = b""
        if size <= limit:
            with path.open("rb") as file:
                data = file.read(limit + 1)  # one more than allowed: the file may have grown meanwhile
            size = len(data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileUnreadable(f"cannot read {path}", why=reason) from error
    if size > limit:
        raise FileTooLarge(f"{path} is too large", why=f"more than {limit} bytes, which is the limit")
    if not data:
        raise FileEmpty(f"{path} is empty")
    return data
