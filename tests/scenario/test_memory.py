"""Resident memory of the gateway process: small enough for an edge gateway, and no larger with a larger image.

`python -m benchmarks.gateway_memory` measures whole upgrades; this holds everything of them but the transfer.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gateway_memory import GATEWAY, KEYS, LIMIT_MIB, LIMIT_RATIO, ROOM_KIB, large_release
from tests.unit.cli.run import python

SMALL_KIB, LARGE_KIB = 1024, 16 * 1024


def peak_mib(folder: Path, kib: int) -> float:
    """Of a gateway that has loaded and checked a release, and then finds nobody on the bus."""
    release = large_release(folder, kib)
    assert release.stat().st_size > kib * 1024
    trace = str(folder / "run.blf")
    bus = ("-i", "virtual", "-c", "nobody is there", "--racks", "1", "--bench", "--json", "--trace", trace)
    ended = python(["-c", GATEWAY, "upgrade", str(release), *bus, "--slot-kib", str(kib + ROOM_KIB)])
    assert json.loads(ended.stdout)["error"]["name"] == "BUS_SILENT", ended.stderr
    return int(ended.stderr) / 1024


def test_a_gateway_that_has_loaded_and_checked_a_release(tmp_path: Path) -> None:
    small, large = peak_mib(tmp_path, SMALL_KIB), peak_mib(tmp_path, LARGE_KIB)
    assert 16 < small < LIMIT_MIB
    assert large < LIMIT_RATIO * small
    assert large < small + 4  # in truth, next to nothing of the image is held


def test_verifying_a_file_takes_no_more_memory_for_a_larger_one(tmp_path: Path) -> None:
    def verify(kib: int) -> float:
        release = large_release(tmp_path, kib)
        keys = [f"--{use}-key={KEYS / f'TEST-ONLY-{name}.pub.pem'}" for use, name in USES]
        slot = ("--slot-kib", str(kib + ROOM_KIB))
        ended = python(["-c", GATEWAY, "image", "verify", str(release), *keys, *slot, "--allow-test-keys"])
        assert ended.returncode == 0, ended.stderr
        return int(ended.stderr) / 1024

    assert verify(LARGE_KIB) < verify(SMALL_KIB) + 4


USES = (("trusted", "release"), ("firmware", "firmware"))
