"""`ess-can sim`: the simulated plant on a CAN bus, in real time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ess_can.cli.bus_options import BusOptions, bus_options
from ess_can.cli.errors import handle_errors
from ess_can.cli.image_text import print_json
from ess_can.errors import UsageError

if TYPE_CHECKING:
    from ess_can.sim.plant import PlantSpec

_VIRTUAL = ("virtual", "udp_multicast")
_BLOCK_SIZE = 128  # a virtual bus takes frames faster than any wire: without flow control they get lost in its buffers


@click.command()
@bus_options
@click.option("--racks", type=click.IntRange(1, 4), default=2, show_default=True, help="Racks of the plant.")
@click.option("--seed", type=int, default=1, show_default=True, help="Everything that is random follows from it.")
@click.option("--duration", type=float, metavar="SECONDS", help="Stop after this time; run until Ctrl-C unless given.")
@click.option("--real-bus", is_flag=True, help="Allow a bus that may have real devices on it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, at the end.")
@handle_errors
def sim(
    bus: BusOptions,
    racks: int,
    seed: int,
    duration: float | None,
    real_bus: bool,
    as_json: bool,
) -> None:
    """Run the simulated plant on a CAN bus, until Ctrl-C.

    The simulator refuses a bus that may have real devices on it unless --real-bus is given.
    """
    from ess_can.cli.embedded import plant_spec, rack_count

    if not real_bus and bus.interface not in _VIRTUAL and not (bus.channel or "").startswith(("vcan", "vxcan")):
        raise UsageError(
            "the simulator runs on virtual buses only",
            why=f"interface {bus.interface or 'from python-can configuration'} may have real devices on it",
            remedy="Use -i udp_multicast or -i socketcan -c vcan0; on a bench with nothing else, add --real-bus.",
        )
    spec = plant_spec(bus.bitrate, bus.fd, bus.data_bitrate, racks, seed)
    spec = replace(spec, isotp=replace(spec.isotp, block_size=_BLOCK_SIZE))
    where = " ".join(filter(None, (bus.interface or "the configured interface", bus.channel)))
    click.echo(f"Simulated plant with {rack_count(racks)} on {where}; Ctrl-C ends it.", err=True)
    summary: dict[str, object] = {}
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(bus, spec, duration, summary))
    if as_json:
        print_json({"result": "ok", "exit_code": 0, "error": None, **summary})


async def _run(options: BusOptions, spec: PlantSpec, duration: float | None, summary: dict[str, object]) -> None:
    """Run the plant; `summary` is filled in when it ends, by Ctrl-C or not."""
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
        click.echo("The plant runs.", err=True)
        try:
            async with lost:
                while duration is None or duration > 0:
                    step = 3600.0 if duration is None else duration
                    await pause(step)
                    duration = None if duration is None else duration - step
        finally:
            versions = [{"name": str(node), "version": str(version)} for node, version in plant.versions().items()]
            summary.update(frames=plant.wire.transmissions, lost=bridge.lost, nodes=versions)
            plant.stop()
            bridge.close()
    finally:
        bus.close()
