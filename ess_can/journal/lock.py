"""One writer: a lock that dies with its process."""

from __future__ import annotations

import os
from pathlib import Path

from ess_can.errors import Locked
from ess_can.file_lock import lock_file


class ProcessLock:
    """A locked file that names its process.  Raises Locked if another process has locked it, and OSError."""

    def __init__(self, path: Path) -> None:
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            if not lock_file(self._handle):
                raise Locked(f"another ess-can works with the journal {path.parent}", why=_owner(self._handle))
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"{os.getpid()}\n".encode("ascii"))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _owner(handle: int) -> str:
    try:
        pid = os.read(handle, 20).strip().decode("ascii", "replace")
    except OSError:
        pid = ""
    return f"process {pid}" if pid.isdigit() else "the process did not say its number"
