"""Peak resident memory of the gateway process, of a whole upgrade with a small image and of one with a large image.

The gateway is `ess-can upgrade` in a process of its own, the plant is in another one, and between them are CAN FD
frames over udp_multicast, in real time: `python -m benchmarks.gateway_memory` from the project's folder takes some
minutes, with `--quick` one.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.plant_process import own_bus, plant
from ess_can.identity import NodeType, Version
from ess_can.image.node_image import build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.sim.plant import BMU_HARDWARE_ID
from ess_can.trust.keys import SigningKey

LIMIT_MIB = 80
LIMIT_RATIO = 1.2
FULL_KIB = (1024, 16 * 1024)
QUICK_KIB = (128, 1024)
ROOM_KIB = 4
"""For the image's header and trailer."""
_LONGEST_S = 1800.0
KEYS = Path(__file__).parent.parent / "firmware_samples" / "keys"
# The peak is that of the whole life of the process; ru_maxrss would be that of who started it, too.
GATEWAY = """
import atexit, sys
def peak():
    lines = open("/proc/self/status").read().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(peak)
from ess_can.cli.main import main
main()
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One upgrade: peak memory in MiB, the image's size in bytes, its transfer in seconds."""

    peak_mib: float
    size: int
    transfer_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two upgrades that differ in the size of the image."""

    small: Figure
    large: Figure

    @property
    def ratio(self) -> float:
        """Peak memory with the large image over that with the small one."""
        return self.large.peak_mib / self.small.peak_mib


def large_release(folder: Path, kib: int) -> Path:
    """An upgrade file with one image of `kib` KiB for a BMU, signed with the test keys."""
    signer = SigningKey.load(KEYS / "TEST-ONLY-firmware.pem")
    image = build_node_image(
        random.Random(1).randbytes(kib * 1024),  # noqa: S311 - the same every time
        version=Version(2, 0, 0),
        node_type=NodeType.BMU,
        hardware_ids=(BMU_HARDWARE_ID,),
        security_counter=2,
        signer=signer,
    )
    content = build_upgrade_file(
        [Content(image, ())],
        release_name="Large",
        release_version=Version(2, 0, 0),
        created=date(2026, 1, 1),
        expires=None,
        signer=SigningKey.load(KEYS / "TEST-ONLY-release.pem"),
        slot_size=(kib + ROOM_KIB) * 1024,
    )
    path = folder / "large.essup"
    path.write_bytes(content)
    return path


def measure(kib: int) -> Figure:
    """One upgrade of one node with an image of `kib` KiB.  Raises RuntimeError if it fails."""
    bus = own_bus("--fd", "--bitrate", "1000000", "--data-bitrate", "8000000")
    slot_kib = str(kib + ROOM_KIB)
    with (
        tempfile.TemporaryDirectory() as folder,
        plant(bus, "--racks", "1", "--speed", "100", "--flash-kib", slot_kib),
    ):
        release = large_release(Path(folder), kib)
        options = ("--racks", "1", "--bench", "--json", "--slot-kib", slot_kib)
        command = (sys.executable, "-c", GATEWAY, "upgrade", str(release), *bus, *options)
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    document = json.loads(done.stdout)
    if done.returncode:
        phases = ", ".join(phase["name"] for phase in document["phases"])
        raise RuntimeError(f"{document['error']['message']} (phases: {phases}; nodes: {document['nodes']})")
    (node,) = document["nodes"]
    return Figure(int(done.stderr) / 1024, node["bytes"], node["transfer_s"])


def compare(small_kib: int, large_kib: int) -> Comparison:
    """An upgrade with each of two sizes of image.  Raises RuntimeError if one fails."""
    return Comparison(measure(small_kib), measure(large_kib))


def main() -> None:
    """Measure, and fail beyond a limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="with smaller images")
    found = compare(*(QUICK_KIB if parser.parse_args().quick else FULL_KIB))
    for figure in (found.small, found.large):
        sys.stdout.write(
            f"{figure.size:10,} bytes   {figure.peak_mib:5.1f} MiB resident at most (limit {LIMIT_MIB})   "
            f"transfer {figure.transfer_s:.1f} s\n"
        )
    sys.stdout.write(f"ratio {found.ratio:.3f} (limit {LIMIT_RATIO})\n")
    sys.exit(found.ratio > LIMIT_RATIO or found.large.peak_mib > LIMIT_MIB)


if __name__ == "__main__":
    main()
