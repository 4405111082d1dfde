from __future__ import annotations

import pytest

from ess_can.identity import Version
from ess_can.uds.target import BootState, ResumeState

BOOT = BootState(bank=1, standing=2, boot_counter=0x01020304, version=Version(1, 2, 0x0304, 0x05060708))


def test_boot_state_is_fourteen_bytes_big_endian() -> None:
    assert BOOT.pack().hex() == "0102010203040102030405060708"
    assert BootState.unpack(BOOT.pack()) == BOOT


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
