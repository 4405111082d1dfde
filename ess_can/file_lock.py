"""Locking a file, so that one process at a time works with what it stands for; the lock dies with its process."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import msvcrt

    def lock_file(handle: int) -> bool:
        """Lock an open file until it is closed; false if it is locked already."""
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def lock_file(handle: int) -> bool:
        """Lock an open file until it is closed; false if it is locked already.  Raises OSError if it cannot be."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
