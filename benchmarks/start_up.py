"""W12: how long the command takes until it has said what it was asked."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time  # noqa: TID251 - a benchmark reads the clock
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway_memory import ROOM_KIB, large_release
from ess_can import resources

ROOT = Path(__file__).parent.parent
HELP_BOUND_S, VERIFY_BOUND_S = 0.15, 0.4


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds of wall time from the start of the process to its end: the least of some runs, and all of them."""

    command: str
    runs_s: tuple[float, ...]

    @property
    def best_s(self) -> float:
        """What the machine was least busy with."""
        return min(self.runs_s)


def measure(runs: int = 7) -> tuple[StartUp, StartUp]:
    """`ess-can --help`, and `ess-can image verify` of an image of 1 MiB.  Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        release = str(large_release(Path(folder), 1024))
        keys: tuple[str, ...] = ("--trusted-key", str(resources.test_key_path("TEST-ONLY-release.pub.pem")))
        keys += ("--firmware-key", str(resources.test_key_path("TEST-ONLY-firmware.pub.pem")))
        slot = ("--slot-kib", str(1024 + ROOM_KIB))
        verify = ("image", "verify", release, "--allow-test-keys", *slot, *keys)
        return _timed("ess-can --help", ("--help",), runs), _timed("ess-can image verify", verify, runs)


def _timed(name: str, arguments: tuple[str, ...], runs: int) -> StartUp:
    command = (sys.executable, "-m", "ess_can", *arguments)
    times = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return StartUp(name, tuple(times[1:]))  # the first one brings the files into memory
