"""Output that nobody reads any more: a pipe into ``head``, a terminal that was closed, a full disk."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

OUTPUT_CLOSED: Final = 141
"""Exit code of a command without any other failure whose output was closed: 128 + SIGPIPE, as shells tell it."""


def abandon_closed_output() -> bool:
    """Let what is still printed to a closed output go nowhere, the interpreter's last flush too; whether one is closed.

    To be called once a write failed: the system tells what is closed, or what the write left in the buffer does.
    """
    closed = [_abandon_if_closed(stream) for stream in (sys.stdout, sys.stderr)]
    return any(closed)


def _abandon_if_closed(stream: TextIO) -> bool:
    if not _is_closed(stream):
        return False
    with suppress(OSError, ValueError):  # a stream without a descriptor cannot be turned
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return True


def _is_closed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return True
    if not hasattr(select, "poll"):
        return False
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return bool(poll.poll(0))  # nothing was asked for but errors
    return False


def printed(show: Callable[[], None]) -> bool:
    """Call `show`, which prints; whether all of it was printed.  A closed output stops nothing but the printing."""
    try:
        show()
    except OSError:
        abandon_closed_output()
        return False
    return True
