"""What `upgrade` and `resume` share: the options that say how to reach a station, and the work itself."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ess_can.cli.bus_options import BusOptions, bus_options, isotp_option
from ess_can.cli.load_options import LoadOptions, load_options
from ess_can.cli.slot_option import slot_option
from ess_can.cli.station_options import (
    StationOptions,
    afterwards_from,
    gateway_config,
    load_access,
    station_options,
)
from ess_can.cli.stop_signals import stopped_by_signals
from ess_can.errors import UsageError

if TYPE_CHECKING:
    from datetime import date

    from ess_can.gateway.config import GatewayConfig
    from ess_can.gateway.progress import OnProgress
    from ess_can.gateway.report import Report
    from ess_can.gateway.run import GatewaySetup
    from ess_can.image.content import ImageContent
    from ess_can.journal.journal import Journal
    from ess_can.trust.verify import VerifiedUpgrade
    from ess_can.uds.access import CmacAccess

R = TypeVar("R")
_PATH = click.Path(path_type=Path)

_NOT_RECORDED: Final = frozenset({"file", "journal", "dry_run", "as_json", "roll_back", "trace"})
"""What concerns one attempt only.  Of a secret only the path of its file is an option."""


@dataclass(frozen=True, slots=True)
class UpgradeJob:
    """How to reach a station, whom to trust, and how to leave the plant: as the command line says it."""

    bus: BusOptions
    isotp: str
    load: LoadOptions
    station: StationOptions
    trusted_keys: tuple[Path, ...]
    firmware_keys: tuple[Path, ...]
    access_secret: Path | None
    bench: bool
    sim: bool
    seed: int
    slot_kib: int
    limits_file: Path | None
    reconnect: bool
    hold_open: bool

    def open(self, source: Path | ImageContent, today: date) -> VerifiedUpgrade:
        """Check an upgrade file before anything else.  Raises the errors of an upgrade file."""
        from ess_can.trust.keys import KeyRing
        from ess_can.trust.verify import open_upgrade_file

        test_keys = self.sim or self.bench
        releases, firmware = KeyRing.load(self.trusted_keys), KeyRing.load(self.firmware_keys or self.trusted_keys)
        if test_keys:
            from ess_can.cli.embedded import test_firmware_keys, test_release_keys

            releases = KeyRing((*releases.keys, *test_release_keys().keys))
            firmware = KeyRing((*firmware.keys, *test_firmware_keys().keys))
        return open_upgrade_file(
            source,
            releases,
            firmware_keyring=firmware,
            allow_test_keys=test_keys,
            slot_size=self.slot_kib * 1024,
            today=today,
        )

    def run(
        self,
        release: VerifiedUpgrade | None,
        journal: Journal,
        progress: OnProgress,
        *,
        options: str = "",
        dry_run: bool = False,
        roll_back: bool = False,
    ) -> tuple[Report, str | None]:
        """Upgrade the station, or with `roll_back` give up what is unfinished; the report, and a simulation's trace
        hash.  Raises what keeps it from beginning.
        """
        if self.sim:
            return self._simulated(release, journal, progress, options, dry_run=dry_run, roll_back=roll_back)
        setup = self._setup()

        async def on_bus() -> Report:
            from ess_can.gateway.run import roll_back_station, upgrade_station

            with stopped_by_signals() as report_is_there:
                async with self.bus.opened() as bus:
                    if roll_back or release is None:
                        report = await roll_back_station(bus, release, setup, journal=journal, on_progress=progress)
                    else:
                        report = await upgrade_station(
                            bus, release, setup, journal=journal, options=options, on_progress=progress, dry_run=dry_run
                        )
                    report_is_there()
                    return report

        return asyncio.run(on_bus()), None

    def _simulated(
        self,
        release: VerifiedUpgrade | None,
        journal: Journal,
        progress: OnProgress,
        options: str,
        *,
        dry_run: bool,
        roll_back: bool,
    ) -> tuple[Report, str | None]:
        from ess_can.cli.embedded import flash_for, plant_spec, upgrade_simulated_plant
        from ess_can.trust.keys import KeyRing

        bus, racks = self.bus, self.station.racks or 2
        if bus.named or self.station.dbc or self.access_secret:
            raise UsageError(
                "--sim upgrades the embedded plant: it takes no interface, channel, timing, DBC or access secret",
                remedy="Leave those out, or leave --sim out to upgrade the station on that bus.",
            )
        spec = plant_spec(bus.bitrate, bus.fd, bus.data_bitrate, racks, self.seed)
        run = upgrade_simulated_plant(
            release,
            replace(spec, flash=flash_for(self.slot_kib)),
            progress,
            config=self._config(racks),
            dry_run=dry_run,
            firmware_keys=KeyRing.load(self.firmware_keys or self.trusted_keys),
            trace=bus.trace,
            journal=journal,
            options=options,
            roll_back=roll_back,
        )
        return run.report, run.trace_hash

    def _config(self, racks: int | None) -> GatewayConfig:
        afterwards = afterwards_from(self.reconnect, self.hold_open)
        return self.load.applied_to(gateway_config(racks, self.station.comm_gateway, afterwards, self.limits_file))

    def _setup(self) -> GatewaySetup:
        from ess_can.gateway.run import GatewaySetup

        config = self._config(self.station.racks)
        limit = config.bus.load
        timing = self.bus.bit_timing() if limit is None else self.bus.bit_timing_for(limit)
        access = _test_access() if self.bench and self.access_secret is None else load_access(self.access_secret)
        return GatewaySetup(
            self.station.codec(),
            config,
            access,
            timing,
            isotp=self.bus.isotp(),
            transport=self.bus.transport(self.isotp, paced=limit is not None),
        )


def upgrade_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the flags to a command, which gets them as one argument `job`."""

    @functools.wraps(command)
    def with_job(
        *,
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
        limits_file: Path | None,
        reconnect: bool,
        hold_open: bool,
        **others: Any,
    ) -> R:
        job = UpgradeJob(
            bus,
            isotp,
            load,
            station,
            trusted_keys,
            firmware_keys,
            access_secret,
            bench,
            sim,
            seed,
            slot_kib,
            limits_file,
            # What is typed now counts against what was recorded.
            reconnect and not (was_typed("hold_open") and not was_typed("reconnect")),
            hold_open and not (was_typed("reconnect") and not was_typed("hold_open")),
        )
        return command(job=job, **others)

    wrapped: Callable[..., R] = with_job
    for option in reversed(
        (
            bus_options,
            isotp_option,
            load_options,
            station_options,
            click.option(
                "--trusted-key", "trusted_keys", type=_PATH, multiple=True, help="PEM public key of a release signer."
            ),
            click.option(
                "--firmware-key",
                "firmware_keys",
                type=_PATH,
                multiple=True,
                help="PEM public key of an image signer; the release keys unless given.",
            ),
            click.option(
                "--access-secret",
                type=_PATH,
                envvar="ESS_CAN_ACCESS_SECRET",
                show_envvar=True,
                help="File with the secret of service 27, 32 hexadecimal digits.",
            ),
            click.option("--bench", is_flag=True, help="On a bench: accept the published test keys and test secret."),
            click.option("--sim", is_flag=True, help="Upgrade the embedded simulated plant, in virtual time."),
            click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated plant."),
            slot_option,
            click.option("--config", "limits_file", type=_PATH, help="TOML file with thresholds and time limits."),
            click.option("--reconnect", is_flag=True, help="Close high voltage afterwards, even if it was found open."),
            click.option("--hold-open", is_flag=True, help="Leave high voltage open and locked after an upgrade."),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


def was_typed(name: str) -> bool:
    """Whether this option of the running command stands on its command line."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def recorded_options(context: click.Context) -> str:
    """The command line's options as JSON text for the journal: paths absolute, nothing that was not said."""
    said = {
        name: _recordable(value)
        for name, value in context.params.items()
        if name not in _NOT_RECORDED and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    return json.dumps(said)


def _recordable(value: object) -> object:
    if isinstance(value, Path):
        return str(value.absolute())
    return [_recordable(each) for each in value] if isinstance(value, tuple) else value


def _test_access() -> CmacAccess:
    from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
    from ess_can.uds.access import CmacAccess

    return CmacAccess(TEST_ONLY_ACCESS_SECRET)
