"""Node images against MCUboot's own tool, both ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ess_can.errors import EssCanError, ImageInvalid, SignatureMissing
from ess_can.identity import NodeType, Version
from ess_can.trust.verify import verify_node_image
from tests.firmware_images import FIRMWARE, RING, STRANGER, small_image

PAYLOAD = bytes(range(256)) * 5 + b"odd"


def imgtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imgtool.main", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def sign(folder: Path, *more: str, key: bool = True) -> bytes:
    """What imgtool makes of PAYLOAD; `more` comes after the usual options and may override them."""
    (folder / "payload.bin").write_bytes(PAYLOAD)
    (folder / "key.pem").write_bytes(FIRMWARE.pem())
    usual = ["--header-size", "0x200", "--pad-header", "--slot-size", "0xE0000", "--version", "1.2.3+4"]
    usual += ["--security-counter", "7", "--custom-tlv", "0x00A0", "0x02", "--custom-tlv", "0x00A1", "0x11"]
    keyed = ["--key", str(folder / "key.pem")] if key else []
    result = imgtool("sign", *usual, *keyed, *more, folder / "payload.bin", folder / "out.bin")
    assert result.returncode == 0, result.stderr
    return (folder / "out.bin").read_bytes()


def ours() -> bytes:
    return small_image(payload=PAYLOAD, version=Version(1, 2, 3, 4), security_counter=7)


def test_imgtool_makes_the_same_bytes(tmp_path: Path) -> None:
    assert sign(tmp_path) == ours()


def test_we_accept_imgtools(tmp_path: Path) -> None:
    facts = verify_node_image(sign(tmp_path), RING).facts
    assert (facts.version, facts.security_counter) == (Version(1, 2, 3, 4), 7)
    assert (facts.node_type, facts.hardware_ids) == (NodeType.BMU, (0x11,))


def test_imgtool_accepts_ours(tmp_path: Path) -> None:
    for name, key in (("good", FIRMWARE), ("stranger", STRANGER)):
        (tmp_path / f"{name}.pem").write_bytes(key.public.pem())
    (tmp_path / "image.bin").write_bytes(ours())
    good = imgtool("verify", "--key", tmp_path / "good.pem", tmp_path / "image.bin")
    assert good.returncode == 0
    assert "Image version: 1.2.3+4" in good.stdout
    assert imgtool("verify", "--key", tmp_path / "stranger.pem", tmp_path / "image.bin").returncode != 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--pad"], ImageInvalid),  # a trailer behind the TLVs, which nothing covers
        (["--sha", "512"], ImageInvalid),
        (["--pure"], ImageInvalid),
        (["--public-key-format", "full"], ImageInvalid),
        (["--header-size", "0x400"], ImageInvalid),
        (["--endian", "big"], ImageInvalid),
        (["--load-addr", "0x20000000"], ImageInvalid),
        (["--rom-fixed", "0x08020000"], ImageInvalid),
        (["--non-bootable"], ImageInvalid),
        (["--compression", "lzma2"], ImageInvalid),
        (["--boot-record", "app"], ImageInvalid),
        (["--dependencies", "(1, 1.0.0)"], ImageInvalid),
        (["--custom-tlv", "0x00A2", "0x01"], ImageInvalid),
    ],
)
def test_what_our_nodes_do_not_do_is_refused(tmp_path: Path, options: list[str], error: type[EssCanError]) -> None:
    image = sign(tmp_path, *options)
    with pytest.raises(error):
        verify_node_image(image, RING)


def test_an_unsigned_image_of_imgtool_is_unsigned(tmp_path: Path) -> None:
    with pytest.raises(SignatureMissing):
        verify_node_image(sign(tmp_path, key=False), RING)
