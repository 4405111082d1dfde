"""Errors of files: damaged or strange upgrade files on a disk, opened as `ess-can upgrade` opens them; and others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

from ess_can import resources
from ess_can.cli.trace_file import trace_file
from ess_can.errors import (
    FileEmpty,
    FileTooLarge,
    FileTruncated,
    FileUnreadable,
    ImageCorrupt,
    ImageInvalid,
    ManifestInvalid,
    NotAnUpgradeFile,
    SignatureInvalid,
    SignatureMissing,
    TemporaryFileFailed,
    TestKeyRefused,
    TraceUnwritable,
    TrailingBytes,
    UnknownKey,
    UpgradeFileExpired,
)
from ess_can.image.manifest import encode_manifest
from ess_can.image.upgrade_file import MAX_FILE_SIZE, assemble
from ess_can.sim.loop import run_virtual
from ess_can.trust.verify import open_upgrade_file
from tests.campaign.reached import Reached
from tests.firmware_images import RELEASE, RING, STRANGER, small_image, small_upgrade

_GOOD = small_upgrade()
_YESTERDAY, _TODAY = date(2026, 12, 30), date(2026, 12, 31)


def _opened(path: Path) -> object:
    return open_upgrade_file(path, RING, today=_TODAY)


def _file(content: Callable[[], bytes]) -> Callable[[Path], object]:
    """Open a file with this content."""

    def reach(directory: Path) -> object:
        path = directory / "release.essup"
        path.write_bytes(content())
        return _opened(path)

    return reach


def _too_large(directory: Path) -> object:
    path = directory / "release.essup"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_SIZE + 1)
    return _opened(path)


def _manifest_damaged() -> bytes:
    """One letter of the release's name, after it was signed."""
    return _GOOD.replace(b"Test release", b"Best release")


def _rule_broken() -> bytes:
    """Signed, but no manifest."""
    return assemble(b"{}", [small_image()], RELEASE)


def _image_damaged() -> bytes:
    return _GOOD[:-1] + bytes((_GOOD[-1] ^ 1,))


def _no_image() -> bytes:
    """The publisher signed something that is no image: its checksums hold."""
    manifest = open_upgrade_file(_GOOD, RING).manifest
    content = b"no image at all"
    entry = replace(manifest.images[0], size=len(content), sha256=sha256(content).digest(), crc32=crc32(content))
    return assemble(encode_manifest(replace(manifest, images=(entry,))), [content], RELEASE)


def _no_room_for_the_copy(directory: Path) -> object:
    path = directory / "release.essup"
    path.write_bytes(_GOOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(directory / "not there"))
        return _opened(path)


def _bench_release(_directory: Path) -> object:
    return _opened(resources.sample_path("bmu-1.1.0.essup"))


def _trace_nowhere(directory: Path) -> object:
    async def begin() -> None:
        with trace_file(directory / "not there" / "trace.asc", 0.0):
            raise AssertionError("a trace that cannot be written was begun")

    return run_virtual(begin())


REACHED = (
    Reached(FileUnreadable, _opened),
    Reached(FileEmpty, _file(lambda: b"")),
    Reached(FileTooLarge, _too_large),
    Reached(NotAnUpgradeFile, _file(lambda: b"PK\x03\x04" + bytes(100))),
    Reached(FileTruncated, _file(lambda: _GOOD[:-1])),
    Reached(TrailingBytes, _file(lambda: _GOOD + b"\n")),
    Reached(ManifestInvalid, _file(_rule_broken)),
    Reached(SignatureInvalid, _file(_manifest_damaged)),
    Reached(SignatureMissing, _file(lambda: small_upgrade(signer=None))),
    Reached(UnknownKey, _file(lambda: small_upgrade(signer=STRANGER))),
    Reached(TestKeyRefused, _bench_release),
    Reached(UpgradeFileExpired, _file(lambda: small_upgrade(expires=_YESTERDAY))),
    Reached(ImageCorrupt, _file(_image_damaged)),
    Reached(ImageInvalid, _file(_no_image)),
    Reached(TemporaryFileFailed, _no_room_for_the_copy),
    Reached(TraceUnwritable, _trace_nowhere),
)
