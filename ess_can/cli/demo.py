"""`ess-can demo`: a whole upgrade on a simulated plant."""

from __future__ import annotations

from pathlib import Path

import click

from ess_can.cli.errors import handle_upgrade_errors


@click.command()
@click.option("--racks", type=click.IntRange(min=1), default=2, show_default=True, help="Racks of the plant.")
@click.option("-b", "--bitrate", type=click.IntRange(min=1), help="Nominal bit rate in bit/s; 500000 unless given.")
@click.option("--fd", is_flag=True, help="CAN FD.")
@click.option("--data-bitrate", type=click.IntRange(min=1), help="CAN FD data bit rate in bit/s; 2000000 unless given.")
@click.option("--seed", type=int, default=1, show_default=True, help="Everything that is random follows from it.")
@click.option("--trace", type=click.Path(path_type=Path), help="Write all frames to this file (.blf).")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_upgrade_errors
def demo(
    racks: int,
    bitrate: int | None,
    fd: bool,
    data_bitrate: int | None,
    seed: int,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Run a whole upgrade on a simulated plant: the racks' BMUs go from firmware 1.0.0 to 1.1.0.

    Everything is real but the wires: the frames, the interlock, the transfer, the flash, the boot.  Time is virtual.
    """
    from ess_can import resources
    from ess_can.cli.embedded import open_sample_upgrade, plant_spec, rack_count, upgrade_simulated_plant
    from ess_can.cli.finish import finish
    from ess_can.cli.report_text import ProgressPrinter
    from ess_can.cli.station_options import load_codec
    from ess_can.cli.stopwatch import Stopwatch

    stopwatch = Stopwatch()
    upgrade = open_sample_upgrade(resources.sample_path("bmu-1.1.0.essup"))
    codec = load_codec(racks=racks)
    spec = plant_spec(bitrate, fd, data_bitrate, racks, seed)
    if not as_json:
        bus = f"{spec.bit_timing.bitrate // 1000} kbit/s" + (" CAN FD" if fd else "")
        click.echo(
            f"Simulated plant: {rack_count(racks)} and a PCS at {bus}; release {upgrade.manifest.release_name!r}."
        )
    with ProgressPrinter(silent=as_json) as progress:
        run = upgrade_simulated_plant(upgrade, spec, progress, trace=trace, codec=codec)
    finish(run.report, as_json=as_json, wall_time_s=stopwatch.elapsed_s(), trace_hash=run.trace_hash)
