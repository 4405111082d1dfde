"""`ess-can sim`: the simulated plant, or a part of it, on a CAN bus in real time."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from ess_can.cli.bus_news import BusNews
from ess_can.cli.bus_options import BusOptions, bus_options
from ess_can.cli.errors import handle_errors
from ess_can.cli.image_text import print_json
from ess_can.cli.number_types import LONGEST_S, Finite
from ess_can.cli.sim_campaign import campaign
from ess_can.cli.sim_replay import replay
from ess_can.cli.station_options import load_codec
from ess_can.errors import AdapterLost

if TYPE_CHECKING:
    from ess_can.campaign.monitors import Violation
    from ess_can.errors import BusError
    from ess_can.identity import NodeAddress, Version
    from ess_can.signals.dbc import StationCodec
    from ess_can.sim.plant import Part, PlantSpec

R = TypeVar("R")

_BLOCK_SIZE = 32  # a virtual bus takes frames faster than any wire: many at once get lost, or delay the safety frames


@dataclass(frozen=True, slots=True)
class _SimOptions:
    racks: int
    state: Path | None
    speed: float
    st_min: int
    flash_kib: int
    seed: int
    duration: float | None
    real_bus: bool
    as_json: bool
    monitors: bool


@dataclass(slots=True)
class _Summary:
    """What is told when the simulation ends."""

    frames: int = 0
    lost: int = 0
    versions: dict[NodeAddress, Version] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()


def _sim_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the simulator's flags to a command, which gets them as one argument `options`."""

    @functools.wraps(command)
    def with_options(
        *,
        bus: BusOptions,
        racks: int,
        state: Path | None,
        speed: float,
        st_min: int,
        flash_kib: int,
        seed: int,
        duration: float | None,
        real_bus: bool,
        as_json: bool,
        monitors: bool = False,
    ) -> R:
        options = _SimOptions(racks, state, speed, st_min, flash_kib, seed, duration, real_bus, as_json, monitors)
        return command(bus, options)

    wrapped: Callable[..., R] = handle_errors(with_options)
    for option in reversed(
        (
            click.option(
                "--racks", type=click.IntRange(min=1), default=2, show_default=True, help="Racks of the plant."
            ),
            click.option(
                "--state",
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="Keep all nodes' memories in files in this folder: killed and started again, they boot what they "
                "would boot.",
            ),
            click.option(
                "--speed",
                type=Finite(min=0, min_open=True),
                default=1.0,
                show_default=True,
                help="Divides the times to erase and program flash and to boot, and nothing else.",
            ),
            click.option(
                "--st-min",
                type=click.IntRange(0, 127),
                metavar="MS",
                default=0,
                show_default=True,
                help="Pause between the frames of a message that the nodes ask for (ISO-TP's STmin): for a computer "
                "on which a stream at full speed costs the plant its deadlines.",
            ),
            click.option(
                "--flash-kib",
                type=click.IntRange(1, 65536),
                default=896,
                show_default=True,
                metavar="KIB",
                help="Image slots of at least this size.",
            ),
            click.option(
                "--seed", type=int, default=1, show_default=True, help="Everything that is random follows from it."
            ),
            click.option(
                "--duration",
                type=Finite(min=0, max=LONGEST_S),
                metavar="SECONDS",
                help="Stop after this time; run until Ctrl-C unless given.",
            ),
            click.option("--real-bus", is_flag=True, help="Allow a bus that may have real devices on it."),
            click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, at the end."),
        )
    ):
        wrapped = option(wrapped)
    return bus_options(wrapped)


@click.group()
def sim() -> None:
    """Run the simulated plant on a CAN bus, until Ctrl-C; or many upgrades under faults, on no bus at all.

    Its parts may run as processes of their own: `sim bms` and `sim pcs` together are a `sim plant`.  The simulator
    refuses a bus that may have real devices on it unless --real-bus is given.
    """


sim.add_command(campaign)
sim.add_command(replay)


@sim.command()
@click.option(
    "--monitors",
    is_flag=True,
    help="Watch the rules of safety: a violation is printed, and the exit code is 120 at the end.",
)
@_sim_options
def plant(bus: BusOptions, options: _SimOptions) -> None:
    """Run the whole plant: the racks' BMUs, the comm gateway and the PCS."""
    from ess_can.sim.plant import Part

    _simulate(bus, options, "Simulated plant with", frozenset(Part))


@sim.command()
@_sim_options
def bms(bus: BusOptions, options: _SimOptions) -> None:
    """Run the BMUs and the comm gateway only."""
    from ess_can.sim.plant import Part

    _simulate(bus, options, "Simulated BMS of", frozenset({Part.BMS}))


@sim.command()
@_sim_options
def pcs(bus: BusOptions, options: _SimOptions) -> None:
    """Run the PCS only."""
    from ess_can.sim.plant import Part

    _simulate(bus, options, "Simulated PCS for", frozenset({Part.PCS}))


def _simulate(bus: BusOptions, options: _SimOptions, what: str, parts: frozenset[Part]) -> None:
    from ess_can.cli.embedded import flash_for, plant_spec, rack_count
    from ess_can.cli.sim_watch import error_of
    from ess_can.cli.virtual_only import require_virtual

    bus = bus.resolved()  # what is checked is what is opened
    if not options.real_bus:
        require_virtual(bus)
    spec = plant_spec(bus.bitrate, bus.fd, bus.data_bitrate, options.racks, options.seed)
    spec = replace(
        spec,
        isotp=replace(spec.isotp, block_size=_BLOCK_SIZE, st_min=options.st_min),
        parts=parts,
        speed=options.speed,
        flash=flash_for(options.flash_kib),
    )
    codec = load_codec(racks=options.racks)
    where = " ".join(filter(None, (bus.interface or "the configured interface", bus.channel)))
    click.echo(f"{what} {rack_count(options.racks)} on {where}; Ctrl-C ends it.", err=True)
    summary = _Summary()
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_run(bus, options, spec, codec, summary))
    error = error_of(summary.violations)
    exit_code = 0 if error is None else error.exit_code
    if options.as_json:
        print_json(
            {
                "result": "ok" if error is None else "error",
                "exit_code": exit_code,
                "error": None if error is None else error.describe(),
                "frames": summary.frames,
                "lost": summary.lost,
                "nodes": [{"name": str(node), "version": str(version)} for node, version in summary.versions.items()],
                "violations": [str(violation) for violation in summary.violations] if options.monitors else None,
            }
        )
    elif error is not None:
        _say(f"error {error.name}: {error}")
        _say(f"what to do: {error.remedy}")
    raise click.exceptions.Exit(exit_code)


async def _run(bus: BusOptions, options: _SimOptions, spec: PlantSpec, codec: StationCodec, summary: _Summary) -> None:
    """Run the plant; `summary` is filled in when it ends, by a signal or not."""
    from ess_can.bus.clock import Guard, now
    from ess_can.cli.embedded import make_plant
    from ess_can.cli.sim_watch import Watch
    from ess_can.sim.bridge import Bridge
    from ess_can.sim.presence import require_alone, sent_identifiers
    from ess_can.sim.state_files import StateFiles

    _end_by_sigterm()
    lost = Guard()
    news = BusNews(_say)

    def on_error(error: BusError) -> None:
        """A plant goes on when its bus fails, as a real one does; only without an adapter there is nothing to do."""
        if isinstance(error, AdapterLost):
            lost.trip(error)
        else:
            news.on_error(error, now())

    with ExitStack() as stack:
        state = None
        if options.state is not None:
            state = StateFiles(options.state, sorted(part.value for part in spec.parts))
            stack.callback(state.close)
        async with bus.opened() as port:
            port.watch(on_error)
            async with lost:
                await require_alone(port, sent_identifiers(spec, codec))
            plant = make_plant(spec, codec, state=state)
            bridge = Bridge(plant.wire, port)
            bridge.on_traffic = news.on_frame
            watch = Watch(plant, _say) if options.monitors else None
            plant.start()
            _say("The plant runs.")
            try:
                async with lost:
                    await _wait(options.duration)
            finally:
                summary.versions = plant.versions()
                summary.violations = () if watch is None else watch.finish()
                plant.stop()
                bridge.close()
                summary.frames, summary.lost = plant.wire.transmissions, bridge.lost
                _say(f"The plant ended: {plant.wire.transmissions} frames, {bridge.lost} lost.")


def _say(line: str) -> None:
    click.echo(line, err=True)


async def _wait(duration: float | None) -> None:
    """Let `duration` seconds pass, or wait for ever."""
    from ess_can.bus.clock import pause

    while duration is None or duration > 0:
        step = 3600.0 if duration is None else duration
        await pause(step)
        duration = None if duration is None else duration - step


def _end_by_sigterm() -> None:
    """Have SIGTERM end the running task as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        with suppress(NotImplementedError):  # Windows has no such signal
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
