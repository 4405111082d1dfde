"""The files of a simulated plant."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from ess_can.errors import FileUnreadable, UsageError
from ess_can.sim.flash import Flash
from ess_can.sim.flash_cells import FlashAction, FlashGeometry
from ess_can.sim.fram import FRAM_SIZE, Fram
from ess_can.sim.state_files import NodeStorage, StateFiles

GEOMETRY = FlashGeometry(sectors_per_bank=3, sector_size=64, unit_size=16)


def opened(folder: Path, geometry: FlashGeometry = GEOMETRY) -> NodeStorage:
    return StateFiles(folder, ()).node("bmu1", geometry)


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    first = opened(tmp_path / "deep" / "plant")
    assert first.fresh
    flash, fram = Flash(random.Random(1), cells=first.flash), Fram(random.Random(1), cells=first.fram)
    flash.factory_program(1, 0, b"firmware")
    first.memory.seal()
    fram.write(10, b"record")  # after the seal, too, and without any flush: as a process that is killed

    again = opened(tmp_path / "deep" / "plant")
    assert not again.fresh
    assert Flash(random.Random(1), cells=again.flash).read(1, 0, 8) == b"firmware"
    assert Flash(random.Random(1), cells=again.flash).is_blank(0, 0, GEOMETRY.bank_size)
    assert Fram(random.Random(1), cells=again.fram).read(10, 6) == b"record"
    assert len(again.fram) == FRAM_SIZE


def test_what_was_not_sealed_begins_anew(tmp_path: Path) -> None:
    first = opened(tmp_path)
    Flash(random.Random(1), cells=first.flash).factory_program(0, 0, b"half of it")
    again = opened(tmp_path)
    assert again.fresh
    assert Flash(random.Random(1), cells=again.flash).is_blank(0, 0, GEOMETRY.bank_size)
    again.memory.seal()
    assert [path.name for path in tmp_path.iterdir()] == ["bmu1.mem"]


def test_a_record_is_a_memory_without_flash(tmp_path: Path) -> None:
    record = StateFiles(tmp_path, ()).record("pcs")
    assert (record.fresh, bytes(record.content)) == (True, bytes(FRAM_SIZE))
    record.content[0] = 7
    record.seal()
    assert StateFiles(tmp_path, ()).record("pcs").content[0] == 7


def require_named(error: FileUnreadable, file: Path) -> None:
    """The remedy is about this one file, never about the whole folder: that may be anybody's home."""
    assert f"Remove the file {file}," in error.remedy
    assert "Remove the folder" not in error.remedy


def test_a_file_of_another_geometry_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).memory.seal()
    for other in (FlashGeometry(4, 64, 16), FlashGeometry(3, 64, 8)):
        with pytest.raises(FileUnreadable) as caught:
            opened(tmp_path, other)
        assert "another flash geometry" in caught.value.why
        require_named(caught.value, tmp_path / "bmu1.mem")


def test_a_file_of_another_node_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).memory.seal()
    (tmp_path / "bmu1.mem").rename(tmp_path / "bmu2.mem")
    with pytest.raises(FileUnreadable) as caught:
        StateFiles(tmp_path, ()).node("bmu2", GEOMETRY)
    assert caught.value.why == "it is another node's: that of bmu1, not of bmu2"
    require_named(caught.value, tmp_path / "bmu2.mem")


@pytest.mark.parametrize(("field", "why"), [(b"\x07\0\0\0", "another version"), (b"\0\0\0\x01", "byte order")])
def test_a_file_of_another_version_or_machine_is_refused(field: bytes, why: str, tmp_path: Path) -> None:
    opened(tmp_path).memory.seal()
    path = tmp_path / "bmu1.mem"
    content = path.read_bytes()
    path.write_bytes(content[:8] + (field if sys.byteorder == "little" else field[::-1]) + content[12:])
    with pytest.raises(FileUnreadable) as caught:
        opened(tmp_path)
    assert why in caught.value.why
    require_named(caught.value, path)


@pytest.mark.parametrize("content", [b"", b"ESSCANs", b"something else that is long enough to be one"])
def test_a_file_that_is_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bmu1.mem").write_bytes(content)
    with pytest.raises(FileUnreadable, match="not a memory"):
        opened(tmp_path)


@pytest.mark.parametrize(("change", "why"), [(-1, "cut off"), (-200, "cut off"), (3, "too long")])
def test_a_file_of_another_length_is_refused(change: int, why: str, tmp_path: Path) -> None:
    opened(tmp_path).memory.seal()
    path = tmp_path / "bmu1.mem"
    content = path.read_bytes()
    path.write_bytes((content + bytes(3))[: len(content) + change])
    with pytest.raises(FileUnreadable) as caught:
        opened(tmp_path)
    assert why in caught.value.why
    require_named(caught.value, path)


@pytest.mark.parametrize("length", [20, 64])
def test_a_file_that_ends_in_its_header_is_cut_off(length: int, tmp_path: Path) -> None:
    opened(tmp_path).memory.seal()
    path = tmp_path / "bmu1.mem"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FileUnreadable) as caught:
        opened(tmp_path)
    assert "cut off" in caught.value.why


def test_content_that_no_flash_ever_holds_is_refused(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    storage.memory.seal()
    storage.flash.banks[0].states[3] = 9
    with pytest.raises(FileUnreadable, match="unit states"):
        opened(tmp_path)
    storage.flash.banks[0].states[3] = 0
    storage.flash.banks[1].begin(FlashAction.ERASE, 1 << 20, 64)
    with pytest.raises(FileUnreadable, match="outside a bank"):
        opened(tmp_path)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FileUnreadable, match="cannot be used") as caught:
        StateFiles(tmp_path / "file", ("bms",))
    assert "emove" not in caught.value.remedy
    (tmp_path / "pcs.lock").mkdir()
    with pytest.raises(FileUnreadable) as caught:
        StateFiles(tmp_path, ("pcs",))
    assert str(tmp_path / "pcs.lock") in caught.value.what
    (tmp_path / "bmu1.mem").mkdir()
    with pytest.raises(FileUnreadable, match="cannot be used"):
        opened(tmp_path)


def test_two_simulators_share_a_folder_only_for_different_parts(tmp_path: Path) -> None:
    bms = StateFiles(tmp_path, ("bms",))
    pcs = StateFiles(tmp_path, ("pcs",))
    for parts in (("bms",), ("pcs",), ("bms", "pcs")):
        with pytest.raises(UsageError, match="another simulator"):
            StateFiles(tmp_path, parts)
    bms.close()
    with pytest.raises(UsageError):
        StateFiles(tmp_path, ("bms", "pcs"))
    StateFiles(tmp_path, ("bms",)).close()  # what was refused holds nothing
    pcs.close()
    StateFiles(tmp_path, ("bms", "pcs")).close()


def test_starts_are_counted(tmp_path: Path) -> None:
    counts = []
    for parts in (("bms", "pcs"), ("bms", "pcs"), ("bms",), ("bms", "pcs")):
        files = StateFiles(tmp_path, parts)
        counts.append(files.starts)
        files.close()
    assert counts == [0, 1, 2, 3]
