"""Bounds on what hostile input may cost: memory, by the system's own limit, and work, counted in calls."""

from __future__ import annotations

import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

MEMORY = 64 * 1024 * 1024
"""Bytes of address space above what the process has already."""


class RunawayError(BaseException):
    """More calls than the input can be worth.  Not an Exception: nothing may swallow it."""


@contextmanager
def calls_at_most(limit: int) -> Iterator[None]:
    """Raise RunawayError in whoever makes more than `limit` calls: a hang that needs no clock to be seen."""
    left = limit

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        if event in ("call", "c_call"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise RunawayError(f"more than {limit} calls")

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def within_memory(work: Callable[[], None], memory: int = MEMORY) -> None:
    """Do it in a process of its own that cannot have more memory.  Raises AssertionError with what went wrong there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
            limit = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            work()
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    assert status == 0, told or f"the process ended with status {status}"
