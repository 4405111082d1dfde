"""Resident memory of the gateway process during an upgrade of 1 MiB: CAN FD over udp_multicast, the plant elsewhere.

Run it as `python -m benchmarks.gateway_memory` from the project's folder.
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
ROOM_KIB = 4
"""For the image's header and trailer."""
_KEYS = Path(__file__).parent.parent / "firmware_samples" / "keys"
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
    """One measurement: memory in MiB, the images' size in bytes, their transfers in seconds."""

    peak_mib: float
    size: int
    transfer_s: float


def large_release(folder: Path, kib: int) -> Path:
    """An upgrade file with one image of `kib` KiB for a BMU, signed with the test keys."""
    signer = SigningKey.load(_KEYS / "TEST-ONLY-firmware.pem")
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
        signer=SigningKey.load(_KEYS / "TEST-ONLY-release.pem"),
        slot_size=(kib + ROOM_KIB) * 1024,
    )
    path = folder / "large.essup"
    path.write_bytes(content)
    return path


def measure(kib: int) -> Figure:
    """One upgrade.  Raises RuntimeError if it fails."""
    bus = own_bus("--fd")
    slot_kib = str(kib + ROOM_KIB)
    with (
        tempfile.TemporaryDirectory() as folder,
        plant(bus, "--racks", "1", "--speed", "100", "--flash-kib", slot_kib),
    ):
        release = large_release(Path(folder), kib)
        options = ("--racks", "1", "--bench", "--json", "--slot-kib", slot_kib)
        command = (sys.executable, "-c", GATEWAY, "upgrade", str(release), *bus, *options)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    document = json.loads(done.stdout)
    if done.returncode:
        raise RuntimeError(document["error"]["message"])
    nodes = document["nodes"]
    return Figure(
        int(done.stderr) / 1024, sum(node["bytes"] for node in nodes), sum(node["transfer_s"] for node in nodes)
    )


def main() -> None:
    """Measure, and fail beyond the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kib", type=int, default=1024)
    figure = measure(parser.parse_args().kib)
    sys.stdout.write(
        f"{figure.peak_mib:.1f} MiB resident at most (limit {LIMIT_MIB}), "
        f"{figure.size} bytes in {figure.transfer_s:.1f} s\n"
    )
    sys.exit(figure.peak_mib > LIMIT_MIB)


if __name__ == "__main__":
    main()
