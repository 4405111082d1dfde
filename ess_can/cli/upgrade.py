"""`ess-can upgrade`: the job itself."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.bus_options import BusOptions, bus_options, isotp_option
from ess_can.cli.errors import handle_upgrade_errors
from ess_can.cli.load_options import LoadOptions, load_options
from ess_can.cli.slot_option import slot_option
from ess_can.cli.station_options import (
    StationOptions,
    afterwards_from,
    gateway_config,
    load_access,
    station_options,
)
from ess_can.errors import UsageError

if TYPE_CHECKING:
    from ess_can.gateway.progress import OnProgress
    from ess_can.gateway.report import Report
    from ess_can.gateway.run import GatewaySetup
    from ess_can.trust.verify import VerifiedUpgrade
    from ess_can.uds.access import CmacAccess

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("file", type=_PATH)
@bus_options
@isotp_option
@load_options
@station_options
@click.option("--trusted-key", "trusted_keys", type=_PATH, multiple=True, help="PEM public key of a release signer.")
@click.option(
    "--firmware-key",
    "firmware_keys",
    type=_PATH,
    multiple=True,
    help="PEM public key of an image signer; the release keys unless given.",
)
@click.option(
    "--access-secret",
    type=_PATH,
    envvar="ESS_CAN_ACCESS_SECRET",
    show_envvar=True,
    help="File with the secret of service 27, 32 hexadecimal digits.",
)
@click.option("--bench", is_flag=True, help="On a bench: accept the published test keys and test secret.")
@click.option("--sim", is_flag=True, help="Upgrade the embedded simulated plant, in virtual time.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated plant.")
@slot_option
@click.option("-n", "--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--config", "limits_file", type=_PATH, help="TOML file with thresholds and time limits.")
@click.option("--reconnect", is_flag=True, help="Close high voltage afterwards, even if it was found open.")
@click.option("--hold-open", is_flag=True, help="Leave high voltage open and locked after an upgrade.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_upgrade_errors
def upgrade(
    file: Path,
    bus: BusOptions,
    isotp: str,
    load: LoadOptions,
    station: StationOptions,
    trusted_keys: tuple[Path, ...],
    firmware_keys: tuple[Path, ...],
    access_secret: Path | None,
    bench: bool,
    sim: bool,
    seed: int,
    slot_kib: int,
    dry_run: bool,
    limits_file: Path | None,
    reconnect: bool,
    hold_open: bool,
    as_json: bool,
) -> None:
    """Upgrade every node of the station that FILE is for.

    High voltage is taken off first and put back afterwards.  Nothing skips the checks of high voltage, signature and
    compatibility.
    """
    from ess_can.cli.finish import finish
    from ess_can.cli.report_text import ProgressPrinter
    from ess_can.cli.stopwatch import Stopwatch

    stopwatch = Stopwatch()
    trace_hash = None
    afterwards = afterwards_from(reconnect, hold_open)
    release = _open(file, trusted_keys, firmware_keys, slot_kib * 1024, test_keys=sim or bench)
    if sim:
        from ess_can.cli.embedded import flash_for, plant_spec, upgrade_simulated_plant
        from ess_can.trust.keys import KeyRing

        if bus.named or station.dbc or access_secret:
            raise UsageError(
                "--sim upgrades the embedded plant: it takes no interface, channel, timing, DBC or access secret",
                remedy="Leave those out, or leave --sim out to upgrade the station on that bus.",
            )
        racks = station.racks or 2
        config = load.applied_to(gateway_config(racks, station.comm_gateway, afterwards, limits_file))
        spec = replace(plant_spec(bus.bitrate, bus.fd, bus.data_bitrate, racks, seed), flash=flash_for(slot_kib))
        keys = KeyRing.load(firmware_keys or trusted_keys)
        with ProgressPrinter(silent=as_json) as progress:
            run = upgrade_simulated_plant(
                release, spec, progress, config=config, dry_run=dry_run, firmware_keys=keys, trace=bus.trace
            )
        report, trace_hash = run.report, run.trace_hash
    else:
        from ess_can.gateway.run import GatewaySetup

        config = load.applied_to(gateway_config(station.racks, station.comm_gateway, afterwards, limits_file))
        limit = config.bus.load
        timing = bus.bit_timing() if limit is None else bus.bit_timing_for(limit)
        access = _test_access() if bench and access_secret is None else load_access(access_secret)
        setup = GatewaySetup(
            station.codec(),
            config,
            access,
            timing,
            isotp=bus.isotp(),
            transport=bus.transport(isotp, paced=limit is not None),
        )
        with ProgressPrinter(silent=as_json) as progress:
            report = asyncio.run(_on_bus(bus, release, setup, progress, dry_run=dry_run))
    finish(report, as_json=as_json, wall_time_s=stopwatch.elapsed_s(), trace_hash=trace_hash)


def _test_access() -> CmacAccess:
    from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
    from ess_can.uds.access import CmacAccess

    return CmacAccess(TEST_ONLY_ACCESS_SECRET)


def _open(
    file: Path, trusted_keys: tuple[Path, ...], firmware_keys: tuple[Path, ...], slot_size: int, *, test_keys: bool
) -> VerifiedUpgrade:
    """Check the file before anything else.  Raises the errors of an upgrade file."""
    from ess_can.cli.stopwatch import today
    from ess_can.trust.keys import KeyRing
    from ess_can.trust.verify import open_upgrade_file

    releases, firmware = KeyRing.load(trusted_keys), KeyRing.load(firmware_keys or trusted_keys)
    if test_keys:
        from ess_can.cli.embedded import test_firmware_keys, test_release_keys

        releases = KeyRing((*releases.keys, *test_release_keys().keys))
        firmware = KeyRing((*firmware.keys, *test_firmware_keys().keys))
    return open_upgrade_file(
        file,
        releases,
        firmware_keyring=firmware,
        allow_test_keys=test_keys,
        slot_size=slot_size,
        today=today(),
    )


def stop_on_signals() -> None:
    """Have Ctrl-C, the end of a service and of a terminal stop the upgrade: the plant is put back, however often."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP, and its loops no handlers
        if number is not None and task is not None:
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, task.cancel)


async def _on_bus(
    options: BusOptions, release: VerifiedUpgrade, setup: GatewaySetup, progress: OnProgress, *, dry_run: bool
) -> Report:
    from ess_can.gateway.run import upgrade_station

    stop_on_signals()
    async with options.opened() as bus:
        return await upgrade_station(bus, release, setup, on_progress=progress, dry_run=dry_run)
