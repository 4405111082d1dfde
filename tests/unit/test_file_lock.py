from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ess_can import file_lock
from ess_can.file_lock import lock_file

Open = Callable[[], int]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens one file, time and again."""
    handles: list[int] = []

    def open_it() -> int:
        handles.append(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
        return handles[-1]

    yield open_it
    for handle in handles:
        os.close(handle)


def test_who_comes_second_does_not_get_it(opened: Open) -> None:
    assert lock_file(opened())
    assert not lock_file(opened())


def test_it_is_free_again_once_the_file_is_closed(tmp_path: Path) -> None:
    for _ in range(2):
        handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
        assert lock_file(handle)
        os.close(handle)


def test_what_is_no_file_is_an_error_not_a_lock() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        lock_file(2**20)


def test_where_files_are_locked_by_the_byte(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: set[int] = set()

    class FakeMsvcrt(ModuleType):
        LK_NBLCK = 2

        @staticmethod
        def locking(handle: int, mode: int, size: int) -> None:
            inode = os.fstat(handle).st_ino
            if (mode, size) != (2, 1) or inode in locked:
                raise PermissionError(13, "Permission denied")
            locked.add(inode)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", FakeMsvcrt("msvcrt"))
    there = runpy.run_path(str(file_lock.__file__))["lock_file"]
    assert there(opened())
    assert not there(opened())
