from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.identity import Version
from ess_can.sim.parts import FASTER_THAN_WIRE, PARTS, FlashPart
from ess_can.uds.target import BootState, FlashProfile, ResumeState

BOOT = BootState(bank=1, standing=2, boot_counter=0x01020304, version=Version(1, 2, 0x0304, 0x05060708))


def test_boot_state_is_fourteen_bytes_big_endian() -> None:
    assert BOOT.pack().hex() == "0102010203040102030405060708"
    assert BootState.unpack(BOOT.pack()) == BOOT


def test_an_armed_trial_is_told_beside_the_standing() -> None:
    armed = replace(BOOT, standing=0, armed=True)
    assert armed.pack().hex() == "0180010203040102030405060708"
    assert BootState.unpack(armed.pack()) == armed


def test_the_boot_counter_wraps_on_the_wire() -> None:
    assert BootState.unpack(BootState(0, 0, 1 << 32, Version(0, 0, 0)).pack()).boot_counter == 0


def test_resume_state_is_thirty_six_bytes() -> None:
    state = ResumeState(0x01020304, bytes(range(32)))
    assert state.pack() == bytes.fromhex("01020304") + bytes(range(32))
    assert ResumeState.unpack(state.pack()) == state


@pytest.mark.parametrize("length", [0, 13, 15, 35, 37])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes"):
        BootState.unpack(bytes(length))
    with pytest.raises(ValueError, match=f"{length} bytes"):
        ResumeState.unpack(bytes(length))


def test_flash_profile_is_seven_numbers() -> None:
    profile = FlashProfile(2048, 0.02202, 10.21125e-6, 65536, 4e6, 16384)
    assert (
        profile.pack().hex()
        == "00000800" + "00005604" + f"{10_456_320:08x}" + "00010000" + "003d0900" + "00004000" + "ffffffff"
    )
    assert replace(profile, dirty_bytes=4096).pack()[-4:] == bytes.fromhex("00001000")
    assert FlashProfile.unpack(replace(profile, dirty_bytes=0).pack()).dirty_bytes == 0
    again = FlashProfile.unpack(profile.pack())
    assert (again.sector_bytes, again.sector_erase_s) == (2048, 0.02202)
    assert (again.buffer_bytes, again.block_bytes) == (65536, 16384)
    assert again.program_s_per_byte == pytest.approx(10.21125e-6, rel=1e-6)
    assert FlashProfile.unpack(again.pack()) == again


@pytest.mark.parametrize("part", [*PARTS.values(), FASTER_THAN_WIRE], ids=lambda part: part.name)
def test_a_flash_profile_of_a_real_part_loses_nothing_that_matters(part: FlashPart) -> None:
    per_byte = part.timing.unit_program_s / part.geometry.unit_size
    erase_s = part.timing.sector_erase_s
    sent = FlashProfile(
        part.geometry.sector_size, erase_s, per_byte, part.buffer_bytes, part.hash_bytes_per_s, part.block_bytes
    )
    got = FlashProfile.unpack(sent.pack())
    assert (got.sector_bytes, got.sector_erase_s) == (sent.sector_bytes, erase_s)
    assert (got.buffer_bytes, got.block_bytes) == (sent.buffer_bytes, sent.block_bytes)
    assert got.program_s_per_byte == pytest.approx(per_byte, rel=1e-3)
    assert got.read_bytes_per_s == pytest.approx(part.hash_bytes_per_s)


def test_a_flash_profile_beyond_its_fields_says_the_most_it_can() -> None:
    assert (
        FlashProfile(1, 1e9, 1.0, 1, 1e12, 1).pack()
        == bytes((0, 0, 0, 1)) + b"\xff" * 8 + bytes((0, 0, 0, 1)) + b"\xff" * 4 + bytes((0, 0, 0, 1)) + b"\xff" * 4
    )


@pytest.mark.parametrize(
    "record",
    [
        "",
        "00" * 24,
        "00" * 29,
        "00" * 28,
        "00000001" * 3 + "00000000" + "00000001" * 3,
        "00000001" * 5 + "00000000" + "00000001",
    ],
)
def test_a_flash_profile_that_makes_no_sense(record: str) -> None:
    with pytest.raises(ValueError, match="flash profile"):
        FlashProfile.unpack(bytes.fromhex(record))
