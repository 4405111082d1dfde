"""Resident memory of the gateway process: small enough for an edge gateway.

`python -m benchmarks.gateway_memory` measures a whole upgrade; this holds everything of it but the transfer.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gateway_memory import GATEWAY, LIMIT_MIB, ROOM_KIB, large_release
from tests.unit.cli.run import python


def test_a_gateway_that_has_loaded_and_checked_a_release_of_a_mebibyte(tmp_path: Path) -> None:
    release = large_release(tmp_path, 1024)
    assert release.stat().st_size > 1024 * 1024
    trace = str(tmp_path / "run.blf")
    bus = ("-i", "virtual", "-c", "nobody is there", "--racks", "1", "--bench", "--json", "--trace", trace)
    ended = python(["-c", GATEWAY, "upgrade", str(release), *bus, "--slot-kib", str(1024 + ROOM_KIB)])
    assert json.loads(ended.stdout)["error"]["name"] == "BUS_SILENT", ended.stderr
    peak_mib = int(ended.stderr) / 1024
    assert 16 < peak_mib < LIMIT_MIB
