"""udp_multicast between two processes: frames a second and how many are lost, in a burst and in a whole upgrade.

Run it as `python -m benchmarks.udp_multicast` from the project's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import can

from benchmarks.plant_process import GROUP, free_port, own_bus, plant
from ess_can import resources
from ess_can.bus.clock import now, pause, until
from ess_can.bus.python_can import open_bus

CAN_ID = 0x515
_QUIET_S = 1.0


async def heard(port: int, frames: int) -> int:
    """The other process: how many of the burst's frames arrive."""
    bus = open_bus("udp_multicast", GROUP, bus_kwargs={"port": port})
    times: list[float] = []
    bus.subscribe({CAN_ID}, lambda _frame, at: times.append(at))
    bus.start()
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await until(lambda: len(times) == frames or (bool(times) and now() - times[-1] > _QUIET_S), 60.0)
    bus.close()
    return len(times)


async def burst(frames: int) -> str:
    """Send as fast as the interface takes it, to another process."""
    port = free_port()
    arguments = ("-m", "benchmarks.udp_multicast", "--hear", str(port), "--frames", str(frames))
    reader = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    if reader.stdout is None:
        raise RuntimeError("no output to read")
    await reader.stdout.readline()
    with can.Bus(GROUP, "udp_multicast", port=port) as bus:
        message = can.Message(arbitration_id=CAN_ID, is_extended_id=False, data=bytes(range(8)))
        began_at = now()
        for number in range(frames):
            bus.send(message)
            if number % 500 == 0:
                await pause(0)
        lasted_s = now() - began_at
    arrived = int(await reader.stdout.readline())
    await reader.wait()
    return f"{frames / lasted_s:,.0f} frames/s sent, {100 * (1 - arrived / frames):.1f} % lost"


def upgraded(release: str) -> str:
    """A whole upgrade by `ess-can`: its transfer, and the frames that one side sent and the other did not hear."""
    bus = own_bus()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "gateway.blf", Path(folder) / "plant.blf"
        with plant(bus, "--trace", str(theirs)):
            file = str(resources.sample_path(release))
            command = (sys.executable, "-m", "ess_can", "upgrade", file, *bus, "--racks", "2", "--bench", "--json")
            done = subprocess.run((*command, "--trace", str(ours)), capture_output=True, text=True, check=False)
        document = json.loads(done.stdout)
        if document["exit_code"]:
            return f"failed: {document['error']['message']}"
        sent = sum(not message.is_rx for message in can.BLFReader(str(ours)))
        # The plant's own frames are sent ones in its trace, so what it received came from the gateway.
        arrived = sum(message.is_rx for message in can.BLFReader(str(theirs)))
    (node, *_) = document["nodes"]
    rate = node["bytes"] / node["transfer_s"] / 1000
    lost = 100 * (1 - arrived / sent)
    return f"{rate:.1f} kB/s, {node['bytes']} bytes a node, {lost:.2f} % of {sent:,} frames of the gateway lost"


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--release", default="comm_gateway-1.1.0.essup")
    parser.add_argument("--hear", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hear:
        sys.stdout.write(f"{asyncio.run(heard(options.hear, options.frames))}\n")
        return
    sys.stdout.write(f"burst     {asyncio.run(burst(options.frames))}\n")
    sys.stdout.write(f"upgrade   {upgraded(options.release)}\n")


if __name__ == "__main__":
    main()
