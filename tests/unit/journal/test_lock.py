from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ess_can.errors import Locked
from ess_can.journal.lock import ProcessLock
from tests.unit.journal.rig import begin, opened, stored

HOLDER = """
import sys
from pathlib import Path
from tests.unit.journal.rig import begin, opened
journal = opened(Path(sys.argv[1]))
begin(journal)
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_second_is_told_who_has_it(tmp_path: Path) -> None:
    first = ProcessLock(tmp_path / "lock")
    with pytest.raises(Locked, match=f"process {os.getpid()}$"):
        ProcessLock(tmp_path / "lock")
    first.release()
    first.release()
    ProcessLock(tmp_path / "lock").release()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe"])
def test_one_that_does_not_say_its_number(tmp_path: Path, content: bytes) -> None:
    first = ProcessLock(tmp_path / "lock")
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(Locked, match="did not say"):
        ProcessLock(tmp_path / "lock")
    first.release()


def test_one_whose_number_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ProcessLock(tmp_path / "lock")

    def unreadable(_handle: int, _size: int) -> bytes:
        raise OSError("cannot be read")

    monkeypatch.setattr(os, "read", unreadable)
    with pytest.raises(Locked, match="did not say"):
        ProcessLock(tmp_path / "lock")
    first.release()


def test_an_old_longer_number_leaves_no_digits(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"12345678901234\n")
    held = ProcessLock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text("ascii") == f"{os.getpid()}\n"
    held.release()


def test_a_lock_dies_with_its_process_and_what_it_wrote_stays(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(Locked, match=f"process {holder.pid}"):
            opened(tmp_path)
        assert [entry.text for entry in stored(tmp_path)] == ["bmu 1.1.0"]  # who only looks needs no lock
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    journal = opened(tmp_path)
    assert journal.unfinished() is not None
    journal.resume("1")
    journal.end("done", "", "")
    begin(journal)
    journal.close()
