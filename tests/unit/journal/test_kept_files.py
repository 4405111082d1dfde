from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ess_can.errors import FileUnreadable, JournalCorrupt, JournalUnwritable
from ess_can.journal import kept_files
from ess_can.journal.kept_files import DiskFiles, KeptBytes, KeptFiles, MemoryFiles, size_of, sync_directory
from tests.unit.journal.rig import FILE, SHA256

LARGE = bytes(range(0, 256, 2)) * 1500


def fails(number: int) -> Callable[..., int]:
    def call(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=["on disk", "in memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> KeptFiles:
    return DiskFiles(tmp_path / "files") if request.param == "on disk" else MemoryFiles()


class Changing:
    """A content that somebody else writes to while it is copied."""

    def __init__(self) -> None:
        self.data = bytearray(LARGE)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        piece = bytes(self.data[offset : offset + size])
        self.data[-1] |= 1
        return piece


def test_what_is_kept_is_what_was_checked(files: KeptFiles) -> None:
    files.keep("1", FILE, SHA256)
    files.keep("2", KeptBytes(FILE), SHA256)
    files.keep("1", FILE, SHA256)  # again, after a crash
    kept = [files.open(name, SHA256) for name in ("1", "2")]
    files.keep_only({"2"})
    assert [one.read(0, one.size) for one in kept] == [FILE, FILE]  # for as long as it is used
    assert kept[0].read(5, 0) == kept[0].read(len(FILE) + 5, 3) == b""
    with pytest.raises(JournalCorrupt):
        files.open("1", SHA256)
    files.open("2", SHA256)


def test_a_file_that_is_replaced_during_the_copy_is_not_kept(files: KeptFiles, tmp_path: Path) -> None:
    content = Changing()
    with pytest.raises(FileUnreadable, match="changed after it was checked"):
        files.keep("1", content, hashlib.sha256(LARGE).digest())
    with pytest.raises(JournalCorrupt):
        files.open("1", SHA256)
    assert list(tmp_path.rglob("1*")) == []


def test_another_hash_is_another_file(files: KeptFiles) -> None:
    files.keep("1", FILE, SHA256)
    with pytest.raises(JournalCorrupt):
        files.open("1", bytes(32))


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(FILE)
    assert size_of(tmp_path / "it") == size_of(FILE) == size_of(KeptBytes(FILE)) == len(FILE)
    with pytest.raises(FileUnreadable):
        size_of(tmp_path / "missing")


def test_a_source_that_cannot_be_read(files: KeptFiles, tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="cannot read"):
        files.keep("1", tmp_path, SHA256)
    with pytest.raises(JournalCorrupt):
        files.open("1", SHA256)


@pytest.mark.parametrize("damage", [FILE[:-1], FILE + b"!", b"", b"\1" + FILE[1:]])
def test_a_damaged_copy_is_not_used(tmp_path: Path, damage: bytes) -> None:
    files = DiskFiles(tmp_path)
    files.keep("1", FILE, SHA256)
    (tmp_path / "1.essup").write_bytes(damage)
    with pytest.raises(JournalCorrupt, match="not the one that the upgrade began with"):
        files.open("1", SHA256)


def test_bytes_first_then_the_name_then_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = DiskFiles(tmp_path)
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "bytes")
        sync(handle)

    def renamed(path: Path, to: Path) -> Path:
        done.append("name")
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    files.keep("1", FILE, SHA256)
    assert done == ["bytes", "name", "directory"]


def test_one_that_is_cut_while_it_is_used(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    files.keep("1", FILE, SHA256)
    kept = files.open("1", SHA256)
    os.truncate(tmp_path / "1.essup", 100)
    with pytest.raises(JournalCorrupt, match="90 bytes at 10 where there were 200"):
        kept.read(10, 200)


@pytest.mark.parametrize("call", ["fsync", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_copy_that_does_not_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    files = DiskFiles(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails(number))
        with pytest.raises(JournalUnwritable, match=os.strerror(number)):
            files.keep("1", FILE, SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = DiskFiles(tmp_path)
    files.keep("1", FILE, SHA256)
    kept = files.open("1", SHA256)
    monkeypatch.setattr(os, "read", fails(errno.EIO))
    with pytest.raises(JournalUnwritable):
        kept.read(0, 1)
    with pytest.raises(JournalUnwritable):
        files.open("1", SHA256)


def test_one_that_cannot_be_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = DiskFiles(tmp_path)
    files.keep("1", FILE, SHA256)
    monkeypatch.setattr(Path, "unlink", fails(errno.EROFS))
    files.keep_only(set())
    files.open("1", SHA256)


def test_a_system_without_such_a_thing_syncs_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="error"):
        sync_directory(tmp_path)
    monkeypatch.setattr(kept_files, "_SYNCS_DIRECTORIES", False)
    sync_directory(tmp_path)
