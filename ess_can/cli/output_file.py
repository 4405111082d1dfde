"""Writing a command's result to a file, which is not overwritten by accident."""

from __future__ import annotations

import os
from pathlib import Path

from ess_can.errors import UsageError


def write_file(path: Path, data: bytes, *, overwrite: bool = False, mode: int = 0o644) -> None:
    """Write a new file with `mode`; an existing one only if `overwrite`.  Raises UsageError."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | (os.O_TRUNC if overwrite else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UsageError(f"{path} exists", remedy="Choose another name, or overwrite it with --overwrite.") from error
    except OSError as error:
        raise UsageError(
            f"cannot write {path}", why=error.strerror or str(error), remedy="Give a path that can be written."
        ) from error
