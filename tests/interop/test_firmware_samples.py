"""The committed sample firmware is sane Cortex-M7 code for the slot it is linked to, in both of its formats.

That it is what its sources give is checked with the cross compiler: `make -C firmware_samples check`.
"""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import bincopy
import pytest

from ess_can.resources import sample_path
from tests.interop.stm32h743 import DTCM, DTCM_SIZE, LOAD_ADDRESS

VERSIONS = ("1.0.0", "1.1.0")
IMAGES = [(name, version) for name in ("bmu", "comm_gateway") for version in VERSIONS]
SLOT_SIZE = 7 * 128 * 1024
HEADER_SIZE = 0x200
VECTORS = 16 + 150
UNUSED_EXCEPTIONS = {7, 8, 9, 10, 13}


def image(name: str, version: str) -> bytes:
    return sample_path(f"{name}-{version}.bin").read_bytes()


def hex_path(name: str, version: str) -> Path:
    return sample_path(f"{name}-{version}.hex")


@pytest.mark.parametrize(("name", "version"), IMAGES)
def test_vector_table(name: str, version: str) -> None:
    data = image(name, version)
    stack, *vectors = struct.unpack_from(f"<{VECTORS}I", data)
    assert DTCM < stack <= DTCM + DTCM_SIZE
    assert stack % 8 == 0
    used = {number: vector for number, vector in enumerate(vectors, start=1) if number not in UNUSED_EXCEPTIONS}
    for number, vector in used.items():
        assert vector & 1, f"vector {number} is not Thumb code"
        assert LOAD_ADDRESS + 4 * VECTORS <= vector - 1 < LOAD_ADDRESS + len(data), f"vector {number} leaves the image"
    assert {vectors[number - 1] for number in UNUSED_EXCEPTIONS} == {0}


@pytest.mark.parametrize(("name", "version"), IMAGES)
def test_hex_and_bin_are_the_same_bytes_at_the_slot(name: str, version: str) -> None:
    firmware = bincopy.BinFile(str(hex_path(name, version)))
    assert len(firmware.segments) == 1
    assert firmware.minimum_address == LOAD_ADDRESS
    assert firmware.as_binary() == image(name, version)
    assert firmware.execution_start_address is not None
    assert firmware.execution_start_address | 1 == struct.unpack_from("<I", image(name, version), 4)[0]


@pytest.mark.parametrize(("name", "version"), IMAGES)
def test_identity_follows_the_vectors(name: str, version: str) -> None:
    data = image(name, version)
    assert data[4 * VECTORS : 4 * VECTORS + 32].rstrip(b"\0") == f"ess-{name} {version}".encode()


@pytest.mark.parametrize("version", VERSIONS)
def test_sizes(version: str) -> None:
    bmu, gateway = image("bmu", version), image("comm_gateway", version)
    assert 256 * 1024 <= len(bmu) <= SLOT_SIZE - HEADER_SIZE
    assert 40 * 1024 <= len(gateway) <= 64 * 1024
    assert len(lzma.compress(bmu)) > len(bmu) // 3  # content, not padding


@pytest.mark.parametrize("name", ["bmu", "comm_gateway"])
def test_releases_differ_in_more_than_their_version(name: str) -> None:
    old, new = (image(name, version) for version in VERSIONS)
    assert sum(a != b for a, b in zip(old, new, strict=False)) > len(old) // 10


def test_nothing_of_the_building_machine_is_inside() -> None:
    for name, version in IMAGES:
        data = image(name, version)
        assert not any(trace in data for trace in (b"/home", b"/work", b"/tmp", b"GCC:", b".c\0"))
