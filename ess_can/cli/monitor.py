"""`ess-can monitor`: a live view of the plant, by listening alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ess_can.cli.bus_options import BusOptions, bus_options
from ess_can.cli.errors import handle_errors
from ess_can.cli.number_types import LONGEST_S, Finite
from ess_can.cli.station_options import StationOptions, station_options

if TYPE_CHECKING:
    from ess_can.bus.port import Bus
    from ess_can.can.timing import BitTiming
    from ess_can.cli.monitor_screen import Screen
    from ess_can.gateway.station_snapshot import Snapshot
    from ess_can.signals.dbc import StationCodec

_DEFAULT_DURATION_S = 3.0
"""Where nobody watches: with --json, and in simulation, whose time is over at once."""

_SECONDS = Finite(min=0.1, max=LONGEST_S)


@click.command()
@bus_options
@station_options
@click.option(
    "--duration",
    type=_SECONDS,
    metavar="SECONDS",
    help="Stop after this time; else Ctrl-C ends it.",
)
@click.option(
    "--every",
    type=_SECONDS,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often lines are printed when the output is not a terminal.",
)
@click.option("--sim", is_flag=True, help="Look at the embedded simulated plant, in virtual time.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, after --duration (default 3).")
@handle_errors
def monitor(
    bus: BusOptions, station: StationOptions, duration: float | None, every: float, sim: bool, as_json: bool
) -> None:
    """Show the plant live, without sending a frame, until Ctrl-C.

    States, the evidence that high voltage is off and its age, end-to-end verdicts, bus load, versions and banks.  The
    exit code is 0 if the plant was heard.
    """
    from ess_can.cli.monitor_screen import Screen, print_document

    if duration is None and (as_json or sim):
        duration = _DEFAULT_DURATION_S
    bus = bus if sim else bus.resolved()
    timing, rate_source = _bit_timing(bus)
    where = "simulated plant" if sim else " ".join(filter(None, (bus.interface, bus.channel)))
    screen = Screen(where, rate_source, every_s=every, silent=as_json, live=not sim)
    snapshot = _watch(bus, station, timing, duration, screen, sim=sim)
    error = snapshot.silence() if screen.lost is None else screen.lost
    if as_json:
        print_document(snapshot, error)
        raise click.exceptions.Exit(0 if error is None else error.exit_code)
    if error is not None:
        raise error


def _bit_timing(bus: BusOptions) -> tuple[BitTiming, str]:
    """What the bus load is reckoned with, and where it is from."""
    from ess_can.bus.link_facts import read_link
    from ess_can.can.timing import BitTiming

    timing = bus.bit_timing()
    if bus.bitrate is not None:
        return timing, "by -b"
    link = read_link(bus.channel) if bus.interface == "socketcan" and bus.channel else None
    if link is not None and link.bitrate is not None:
        return BitTiming(link.bitrate, link.data_bitrate or timing.data_bitrate), "as set"
    return timing, "assumed"


def _watch(
    bus: BusOptions, station: StationOptions, timing: BitTiming, duration: float | None, screen: Screen, *, sim: bool
) -> Snapshot:
    """Listen for `duration` seconds, or until Ctrl-C; gives what was known at the end."""
    if sim:
        from ess_can.cli.visit import visit

        return visit(
            bus,
            station,
            lambda master: _listen(master.link.bus, master.link.codec, station, timing, duration, screen),
            sim=True,
        )
    codec = station.codec()

    async def on_bus() -> Snapshot:
        async with bus.opened() as port:
            return await _listen(port, codec, station, timing, duration, screen)

    with suppress(KeyboardInterrupt):
        return asyncio.run(on_bus())
    if screen.last is None:
        raise KeyboardInterrupt
    return screen.last


async def _listen(
    port: Bus,
    codec: StationCodec,
    station: StationOptions,
    timing: BitTiming,
    duration: float | None,
    screen: Screen,
) -> Snapshot:
    from ess_can.bus.clock import now, until
    from ess_can.bus.station import StationLink
    from ess_can.errors import AdapterLost, BusError
    from ess_can.gateway.station_monitor import StationMonitor

    expected = station.expected() if station.racks is not None else ()
    hearing = StationMonitor(codec, timing, now(), expected=expected)

    def on_error(error: BusError) -> None:
        if isinstance(error, AdapterLost):  # whatever else happens to a bus, one can listen on
            screen.lost = error

    unwatch = port.watch(on_error)
    detach = hearing.attach(StationLink(port, codec), now)
    screen.start(lambda: hearing.snapshot(now()))
    try:
        await until(lambda: screen.lost is not None, float("inf") if duration is None else duration)
    finally:
        last = screen.end()
        detach()
        unwatch()
    return last
