from __future__ import annotations

import os
from pathlib import Path

import pytest

from ess_can.errors import FileEmpty, FileTooLarge, FileUnreadable
from ess_can.image.files import read_limited


def test_a_file_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"


def test_one_byte_too_many(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"123456")
    with pytest.raises(FileTooLarge, match="5 bytes"):
        read_limited(path, 5)


def test_a_huge_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(FileTooLarge):
        read_limited(path, 64 << 20)


def test_a_file_that_lies_about_its_size_is_cut_off() -> None:
    # Files in /proc tell size 0 and have content.
    with pytest.raises(FileTooLarge):
        read_limited(Path("/proc/self/maps"), 10)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(FileEmpty):
        read_limited(path, 10)


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="directory"):
        read_limited(tmp_path, 10)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(FileUnreadable, match="not a regular file"):
        read_limited(path, 10)


@pytest.mark.parametrize("name", ["missing", "nul\0byte", "x" * 5000])
def test_no_such_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileUnreadable):
        read_limited(tmp_path / name, 10)
