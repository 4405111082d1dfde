"""slcan over a pseudo terminal: how many frames a second python-can takes from a serial adapter, and an upgrade by it.

Run it as `python -m benchmarks.slcan_pty` from the project's folder.

The adapter is emulated here (`tests/support/lawicel.py`); who reads it is another process.  A pseudo terminal is faster
than any serial line: the figures are those of python-can and of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ess_can import resources
from ess_can.bus.clock import now, pause, until
from ess_can.bus.port import Receive, Sent
from ess_can.bus.python_can import open_bus
from ess_can.can.frame import CanFrame
from ess_can.cli.embedded import make_plant
from ess_can.errors import BusError
from ess_can.signals.dbc import StationCodec
from ess_can.sim.plant import PlantSpec
from tests.support.lawicel import Lawicel

FRAME = CanFrame(0x515, bytes(range(8)))
BITRATE = 500_000


@dataclass
class Source:
    """A bus from which frames come as fast as the adapter passes them on, and to which they go at no cost."""

    fd: bool = False
    receivers: list[Receive] = field(default_factory=list)

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Nothing."""

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        """As `Bus.subscribe`."""
        self.receivers.append(receive)
        return self.receivers.clear

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """Nothing waits."""
        return []

    def adopt(self, can_id: int) -> None:
        """Nothing."""

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Nothing to report."""
        return lambda: None

    def restart(self) -> bool:
        """It is never off."""
        return False

    def detach(self) -> None:
        """Fall silent."""
        self.receivers.clear()


async def _run(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode()


async def received(frames: int) -> float:
    """Frames a second that another process receives."""
    source = Source()
    adapter = Lawicel(lambda _bitrate: source)
    reader = asyncio.ensure_future(_run("-m", "benchmarks.slcan_pty", "--read", adapter.path, "--frames", str(frames)))
    await until(lambda: bool(source.receivers), 30.0)
    await pause(0.2)
    while not reader.done():
        for receive in source.receivers:
            for _ in range(50):
                receive(FRAME, now())
        await pause(0.0005)
    adapter.pull()
    return frames / float(await reader)


async def read(path: str, frames: int) -> float:
    """The other process: the seconds from the first frame to the last."""
    bus = open_bus("slcan", path, bitrate=BITRATE, bus_kwargs={"sleep_after_open": 0})
    times: list[float] = []
    bus.subscribe(None, lambda _frame, at: times.append(at))
    bus.start()
    while len(times) <= frames:
        await pause(0.01)
    bus.close()
    return times[frames] - times[0]


async def upgraded(release: str) -> str:
    """A whole upgrade by `ess-can`; its transfer as text."""
    plant = make_plant(PlantSpec(running=False, speed=20.0), StationCodec.load())
    adapter = Lawicel(lambda bitrate: plant.wire.controller("adapter", depth=16, bitrate=bitrate))
    plant.start()
    out = await _run(
        *("-m", "ess_can", "upgrade", str(resources.sample_path(release)), "--racks", "2", "--bench", "--json"),
        *("-i", "slcan", "-c", adapter.path, "-b", str(BITRATE), "--bus-kwargs", "sleep_after_open=0"),
    )
    adapter.pull()
    plant.stop()
    document = json.loads(out)
    if document["exit_code"]:
        return f"failed: {document['error']['message']}"
    (node, *_) = document["nodes"]
    rate, share = node["bytes"] / node["transfer_s"] / 1000, 100 * node["wire_efficiency"]
    return f"{rate:.1f} kB/s, {share:.0f} % of the wire's limit, {node['bytes']} bytes, {adapter.lost} frames lost"


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--release", default="comm_gateway-1.1.0.essup")
    parser.add_argument("--read", metavar="PATH", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        sys.stdout.write(str(asyncio.run(read(options.read, options.frames))))
        return
    sys.stdout.write(f"received  {asyncio.run(received(options.frames)):,.0f} frames/s\n")
    sys.stdout.write(f"upgrade   {asyncio.run(upgraded(options.release))}\n")


if __name__ == "__main__":
    main()
