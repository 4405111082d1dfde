"""`ess-can sim`: the simulated plant on a CAN bus, in real time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ess_can.cli.bus_options import BusOptions, bus_options
from ess_can.cli.errors import handle_errors
from ess_can.errors import UsageError

if TYPE_CHECKING:
    from ess_can.sim.plant import PlantSpec

_VIRTUAL = ("virtual", "udp_multicast")


@click.command()
@bus_options
@click.option("--racks", type=click.IntRange(1, 4), default=2, show_default=True, help="Racks of the plant.")
@click.option("--seed", type=int, default=1, show_default=True, help="Everything that is random follows from it.")
@click.option("--duration", type=float, metavar="SECONDS", help="Stop after this time; run until Ctrl-C unless given.")
@click.option("--real-bus", is_flag=True, help="Allow a bus that may have real devices on it.")
@handle_errors
def sim(
    interface: str | None,
    channel: str | None,
    bitrate: int | None,
    fd: bool,
    data_bitrate: int | None,
    timing: tuple[str, ...],
    bus_kwargs: tuple[str, ...],
    racks: int,
    seed: int,
    duration: float | None,
    real_bus: bool,
) -> None:
    """Run the simulated plant on a CAN bus, until Ctrl-C.

    The simulator refuses a bus that may have real devices on it unless --real-bus is given.
    """
    from ess_can.cli.embedded import plant_spec

    if not real_bus and interface not in _VIRTUAL and not (channel or "").startswith(("vcan", "vxcan")):
        raise UsageError(
            "the simulator runs on virtual buses only",
            why=f"interface {interface or 'from python-can configuration'} may have real devices on it",
            remedy="Use -i udp_multicast or -i socketcan -c vcan0; on a bench with nothing else, add --real-bus.",
        )
    options = BusOptions(interface, channel, bitrate, fd, data_bitrate, timing, bus_kwargs)
    spec = plant_spec(bitrate, fd, data_bitrate, racks, seed)
    click.echo(f"Simulated plant with {racks} racks on {interface} {channel or ''}; Ctrl-C ends it.", err=True)
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(options, spec, duration))


async def _run(options: BusOptions, spec: PlantSpec, duration: float | None) -> None:
    from ess_can.bus.clock import Guard, pause
    from ess_can.cli.embedded import make_plant
    from ess_can.signals.dbc import StationCodec
    from ess_can.sim.bridge import Bridge

    bus = options.open()
    lost = Guard()
    try:
        bus.start()
        plant = make_plant(spec, StationCodec.load())
        bridge = Bridge(plant.wire, bus)
        bus.watch(lost.trip)
        plant.start()
        async with lost:
            while duration is None or duration > 0:
                step = 3600.0 if duration is None else duration
                await pause(step)
                duration = None if duration is None else duration - step
        plant.stop()
        bridge.close()
    finally:
        bus.close()
