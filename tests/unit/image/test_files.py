from __future__ import annotations

import errno
import gc
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from ess_can.errors import FileEmpty, FileTooLarge, FileUnreadable, TemporaryFileFailed
from ess_can.image.content import PIECE_SIZE
from ess_can.image.files import PrivateCopy, copy_limited, read_limited

Reader = Callable[[Path, int], bytes]


def copied(path: Path, limit: int) -> bytes:
    copy = copy_limited(path, limit)
    return copy.read(0, copy.size)


@pytest.mark.parametrize("reader", [read_limited, copied])
class TestBothWays:
    @pytest.mark.parametrize("size", [1, 5, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE])
    def test_a_file_within_the_limit(self, tmp_path: Path, reader: Reader, size: int) -> None:
        path = tmp_path / "file"
        data = (b"12345" * size)[:size]
        path.write_bytes(data)
        assert reader(path, size) == data
        assert reader(path, size + 1) == data

    @pytest.mark.parametrize("limit", [5, PIECE_SIZE - 1, PIECE_SIZE])
    def test_one_byte_too_many(self, tmp_path: Path, reader: Reader, limit: int) -> None:
        path = tmp_path / "file"
        path.write_bytes(bytes(limit + 1))
        with pytest.raises(FileTooLarge, match=f"{limit} bytes"):
            reader(path, limit)

    def test_a_huge_sparse_file_is_not_read(self, tmp_path: Path, reader: Reader) -> None:
        path = tmp_path / "file"
        with path.open("wb") as file:
            file.truncate(5 << 30)
        with pytest.raises(FileTooLarge):
            reader(path, 64 << 20)

    def test_a_file_that_lies_about_its_size_is_cut_off(self, reader: Reader) -> None:
        # Files in /proc tell size 0 and have content.
        with pytest.raises(FileTooLarge):
            reader(Path("/proc/self/maps"), 10)

    def test_empty(self, tmp_path: Path, reader: Reader) -> None:
        path = tmp_path / "file"
        path.touch()
        with pytest.raises(FileEmpty):
            reader(path, 10)

    def test_a_directory(self, tmp_path: Path, reader: Reader) -> None:
        with pytest.raises(FileUnreadable, match="directory"):
            reader(tmp_path, 10)

    def test_a_named_pipe_is_not_waited_for(self, tmp_path: Path, reader: Reader) -> None:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        with pytest.raises(FileUnreadable, match="not a regular file"):
            reader(path, 10)

    @pytest.mark.parametrize("name", ["missing", "nul\0byte", "x" * 5000])
    def test_no_such_path(self, tmp_path: Path, reader: Reader, name: str) -> None:
        with pytest.raises(FileUnreadable):
            reader(tmp_path / name, 10)


def test_a_copy_stays_as_it_is_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    copy = copy_limited(path, 10)
    with path.open("r+b") as file:
        file.write(b"xxx")
    assert copy.read(0, 5) == b"12345"
    path.unlink()
    assert copy.read(1, 100) == b"2345"
    assert copy.read(5, 1) == b""
    assert copy.size == 5


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_copy_has_no_name_and_goes_when_it_is_not_used_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = open_files()
    copy = PrivateCopy([b"12345"])
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a ResourceWarning would fail the test
        del copy
        gc.collect()
    assert open_files() == before


def open_full() -> IO[bytes]:
    return Path("/dev/full").open("r+b")  # its buffer can be filled; writing it out finds no space left


def test_no_space_left_for_the_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in (5, 3 * PIECE_SIZE):  # noticed at the end, and on the way
        path.write_bytes(bytes(size))
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "TemporaryFile", lambda prefix: open_full())
            with pytest.raises(TemporaryFileFailed, match="cannot be written: No space left") as caught:
                copy_limited(path, 1 << 20)
        assert "TMPDIR" in caught.value.remedy
        assert caught.value.exit_code == 6


def test_nowhere_to_make_the_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(TemporaryFileFailed, match="cannot be made"):
        PrivateCopy([b"12345"])


def test_what_is_wrong_with_the_file_is_not_blamed_on_the_copy(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable):
        copy_limited(tmp_path / "missing", 10)


def test_a_copy_that_lost_its_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[IO[bytes]] = []
    original = tempfile.TemporaryFile

    def make(prefix: str) -> IO[bytes]:
        made.append(original(prefix=prefix))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    copy = PrivateCopy([bytes(100)])
    made[0].truncate(60)
    assert copy.read(0, 60) == bytes(60)
    with pytest.raises(TemporaryFileFailed, match="59 bytes at 1 where 60"):
        copy.read(1, 60)


def test_a_copy_that_cannot_be_read_any_more_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: Broken())
    copy = PrivateCopy([b"12345"])
    with pytest.raises(TemporaryFileFailed, match="cannot be read: Input/output error"):
        copy.read(0, 5)
