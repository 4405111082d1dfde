"""ISO-TP side by side with can-isotp, in one run: the same messages over python-can's `virtual` bus in one process.

Both sides segment, check, reassemble and compare every message.  Only the ratio means something: the figures are those
of the machine that runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time  # noqa: TID251 - a benchmark reads the clock
from collections.abc import Callable
from dataclasses import dataclass

import can
import isotp

from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.python_can import open_bus
from ess_can.isotp import Endpoint, Events, IsoTpAddress, IsoTpParams, MessageReceived

REQUEST, RESPONSE = 0x615, 0x515
SIZE = 4095
FRAMES_PER_MESSAGE = 1 + -(-(SIZE - 6) // 7) + 1  # first, consecutive, one flow control


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement."""

    name: str
    wall_s: float
    cpu_s: float
    messages: int

    def line(self) -> str:
        """For the table."""
        kbytes = self.messages * SIZE / 1000
        frames = self.messages * FRAMES_PER_MESSAGE
        mib = self.messages * SIZE / 2**20
        return f"{self.name:<44}{frames / self.wall_s:>12,.0f}{kbytes / self.wall_s:>12,.0f}{self.cpu_s / mib:>14.2f}"


def _measured(name: str, messages: int, work: Callable[[], None]) -> Figure:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Figure(name, wall, cpu, messages)


def _payload(number: int) -> bytes:
    return bytes((number + i) % 256 for i in range(SIZE))


def ours_over_virtual(messages: int) -> None:
    """Two channels on two `virtual` buses of python-can."""

    async def run() -> None:
        buses = [open_bus("virtual", "ours") for _ in range(2)]
        for bus in buses:
            bus.start()
        got: list[bytes] = []
        done = asyncio.Event()

        def received(payload: bytes, _at: float) -> None:
            got.append(payload)
            if len(got) == messages:
                done.set()

        params = IsoTpParams()
        sender = IsoTpChannel(
            buses[0], IsoTpAddress(REQUEST, RESPONSE), params, on_message=lambda *_: None, on_error=_raise
        )
        receiver = IsoTpChannel(buses[1], IsoTpAddress(RESPONSE, REQUEST), params, on_message=received, on_error=_raise)
        for number in range(messages):
            await sender.send(_payload(number))
        await done.wait()
        for channel in (sender, receiver):
            channel.close()
        for bus in buses:
            bus.close()
        _compare(got, messages)

    asyncio.run(run())


def ours_alone(messages: int) -> None:
    """Two cores back to back: segmentation and reassembly without any bus."""
    params = IsoTpParams()
    sender = Endpoint(IsoTpAddress(REQUEST, RESPONSE), params)
    receiver = Endpoint(IsoTpAddress(RESPONSE, REQUEST), params)
    got: list[bytes] = []

    def collect(events: Events) -> None:
        got.extend(event.payload for event in events if isinstance(event, MessageReceived))

    for number in range(messages):
        now = float(number)
        sender.send(_payload(number), now)
        while sender.sending:
            frame = sender.next_frame(now)
            if frame is not None:
                collect(receiver.receive(frame, now))
                sender.frame_sent(frame, now)
            while (answer := receiver.next_frame(now)) is not None:
                receiver.frame_sent(answer, now)
                sender.receive(answer, now)
    _compare(got, messages)


def can_isotp_over_virtual(messages: int) -> None:
    """can-isotp's own stack on two `virtual` buses, driven as its documentation does."""
    buses = [can.Bus(interface="virtual", channel="theirs") for _ in range(2)]
    notifiers = [can.Notifier(bus, []) for bus in buses]
    params = {"stmin": 0, "blocksize": 0, "tx_padding": 0xCC}
    ids = ((REQUEST, RESPONSE), (RESPONSE, REQUEST))
    stacks = [
        isotp.NotifierBasedCanStack(
            bus, notifier, address=isotp.Address(isotp.AddressingMode.Normal_11bits, txid=tx, rxid=rx), params=params
        )
        for bus, notifier, (tx, rx) in zip(buses, notifiers, ids, strict=True)
    ]
    for stack in stacks:
        stack.start()
    got: list[bytearray | None] = []
    reader = threading.Thread(
        target=lambda: got.extend(stacks[1].recv(block=True, timeout=60) for _ in range(messages))
    )
    reader.start()
    for number in range(messages):
        stacks[0].send(_payload(number), send_timeout=None)
        while stacks[0].transmitting():
            time.sleep(0.0005)
    reader.join()
    for stack in stacks:
        stack.stop()
    for notifier in notifiers:
        notifier.stop()
    for bus in buses:
        bus.shutdown()
    _compare([bytes(payload or b"") for payload in got], messages)


def _compare(got: list[bytes], messages: int) -> None:
    if got != [_payload(number) for number in range(messages)]:
        raise SystemExit("messages were lost or changed: no figure")


def _raise(error: Exception) -> None:
    raise error


def main() -> int:
    """Run all sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=60, help=f"messages of {SIZE} bytes a side")
    messages = parser.parse_args().messages
    figures = [
        _measured("can-isotp, python-can virtual", messages, lambda: can_isotp_over_virtual(messages)),
        _measured("ess-can, python-can virtual", messages, lambda: ours_over_virtual(messages)),
        _measured("ess-can, two cores back to back", messages, lambda: ours_alone(messages)),
    ]
    out = sys.stdout.write
    out(f"{'classic CAN, both ends in one process':<44}{'frames/s':>12}{'kB/s':>12}{'CPU-s/MiB':>14}\n")
    for figure in figures:
        out(figure.line() + "\n")
    out(f"ess-can / can-isotp over the same bus: {figures[0].wall_s / figures[1].wall_s:.2f} times as fast\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
