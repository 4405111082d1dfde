"""How fast: the kernel's ISO-TP and our core, the same work, the same kind at both ends.  Figures, no bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import now, pause, until
from ess_can.bus.kernel_isotp import Channel, IsoTpTransport, KernelIsoTp, UserIsoTp
from ess_can.bus.python_can import PythonCanBus, open_bus
from ess_can.errors import IsoTpError
from ess_can.isotp import IsoTpAddress, IsoTpParams
from tests.bench.kernel.links import CONTROLLERS, VCAN

LIMIT_S = 120.0
SIZE = 4095
CLASSIC = IsoTpParams()
PACED = replace(CLASSIC, block_size=3)  # QEMU's bus takes no time: more would overrun the controller's 64-byte FIFO
FD = replace(CLASSIC, tx_dl=64, fd=True, brs=True)


@pytest.mark.parametrize(
    ("channels", "params", "what"),
    [
        ((VCAN, VCAN), CLASSIC, "vcan, classic"),
        ((VCAN, VCAN), FD, "vcan, FD"),
        (CONTROLLERS, PACED, "kvaser_pci, block size 3"),
    ],
    ids=["classic", "fd", "kvaser"],
)
def test_speed(channels: tuple[str, str], params: IsoTpParams, what: str, figures: list[str]) -> None:
    async def measured(make: Callable[[str], IsoTpTransport], messages: int) -> float:
        buses: list[PythonCanBus] = []
        received: list[bytes] = []
        errors: list[IsoTpError] = []
        ends: list[Channel] = []
        for channel, address in zip(channels, (IsoTpAddress(0x710, 0x718), IsoTpAddress(0x718, 0x710)), strict=True):
            bus = open_bus("socketcan", channel, fd=params.fd)
            bus.start()
            buses.append(bus)
            ends.append(
                make(channel).open(
                    bus, address, params, on_message=lambda payload, _: received.append(payload), on_error=errors.append
                )
            )
        await pause(0.05)  # the buses' filters are set when the loop comes round
        began = now()
        for number in range(messages):
            await ends[0].send(bytes([number]) * SIZE)
        assert await until(lambda: len(received) == messages, LIMIT_S)
        elapsed = now() - began
        assert errors == []
        for end, bus in zip(ends, buses, strict=True):
            end.close()
            bus.close()
        return messages * SIZE / 1000 / elapsed

    kernel = asyncio.run(measured(KernelIsoTp, 20))
    user = asyncio.run(measured(lambda _: UserIsoTp(), 4))
    figures.append(f"ISO-TP in QEMU (TCG), {what}: kernel {kernel:.0f} kB/s, our core {user:.1f} kB/s")
