"""How long a person waits for `ess-can --help`, and for `ess-can image verify` of an upgrade file of 1 MiB.

Run it as `python -m benchmarks.command_times` from the project's folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time  # noqa: TID251 - a benchmark reads the clock
from pathlib import Path

from benchmarks.gateway_memory import KEYS, ROOM_KIB, large_release

HELP_LIMIT_S = 0.15
VERIFY_LIMIT_S = 0.4
RUNS = 9


def help_s(runs: int = RUNS) -> float:
    """Wall time of `ess-can --help`, the shortest of `runs` processes, in seconds.  Raises CalledProcessError.

    The shortest: whatever else the machine does only adds to it.
    """
    return _shortest_s(["--help"], runs)


def verify_s(kib: int = 1024, runs: int = RUNS) -> float:
    """Wall time of `ess-can image verify` of a release with one image of `kib` KiB, likewise."""
    with tempfile.TemporaryDirectory() as folder:
        release = large_release(Path(folder), kib)
        keys = (
            *("--trusted-key", str(KEYS / "TEST-ONLY-release.pub.pem")),
            *("--firmware-key", str(KEYS / "TEST-ONLY-firmware.pub.pem")),
        )
        slot = ("--slot-kib", str(kib + ROOM_KIB))
        return _shortest_s(["image", "verify", str(release), *keys, *slot, "--allow-test-keys"], runs)


def _shortest_s(arguments: list[str], runs: int) -> float:
    times = []
    for _ in range(runs):
        began_at = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ess_can", *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - began_at)
    return min(times)


def main() -> None:
    """Measure, and fail beyond a limit."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = (("--help", help_s(), HELP_LIMIT_S), ("image verify, 1 MiB", verify_s(), VERIFY_LIMIT_S))
    for name, lasted_s, limit_s in found:
        sys.stdout.write(f"ess-can {name:20} {lasted_s:.3f} s (limit {limit_s:.2f})\n")
    sys.stdout.write(f"for comparison, 16 MiB       {verify_s(16 * 1024, 3):.3f} s\n")
    sys.exit(any(lasted_s > limit_s for _, lasted_s, limit_s in found))


if __name__ == "__main__":
    main()
