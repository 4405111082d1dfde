"""`ess-can status`: what the plant says, and whether it may be upgraded now."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.bus_options import BusOptions, bus_options
from ess_can.cli.errors import describe, handle_errors
from ess_can.cli.image_text import print_json
from ess_can.cli.journal_option import journal_directory, journal_option
from ess_can.cli.station_options import StationOptions, station_options

if TYPE_CHECKING:
    from ess_can.errors import EssCanError
    from ess_can.gateway.plant_view import PlantView
    from ess_can.gateway.station_master import StationMaster


@dataclass(frozen=True, slots=True)
class _Status:
    view: PlantView
    racks: tuple[int, ...]
    refusals: list[EssCanError]
    resumes: bool


@click.command()
@bus_options
@station_options
@journal_option
@click.option("--sim", is_flag=True, help="Look at the embedded simulated plant.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_errors
def status(
    bus: BusOptions,
    station: StationOptions,
    journal: Path | None,
    sim: bool,
    as_json: bool,
) -> None:
    """Listen to the plant without sending a frame, and say what the journal has of an upgrade that did not end well.

    The exit code is 0 if an upgrade could start now, or be gone on with, else that of the gravest reason against it.
    """
    from ess_can.cli.last_upgrade import journal_says
    from ess_can.cli.upgrade_job import was_typed
    from ess_can.cli.visit import visit

    last, journal_error = None, None
    if not sim or was_typed("journal"):
        last, journal_error = journal_says(journal_directory(journal), journal)
    if last is not None and not as_json:  # whatever the bus has to say
        for line in last.lines():
            click.echo(line)
    found = visit(bus, station, partial(_look, last is not None and last.is_under_way), sim=sim)
    if journal_error is not None:  # no record, no upgrade: that is what `upgrade` says first
        found.refusals.insert(0, journal_error)
    exit_code = found.refusals[0].exit_code if found.refusals else 0
    if as_json:
        refusals = [describe(error) | {"exit_code": error.exit_code} for error in found.refusals]
        print_json(
            {
                "result": "refused" if refusals else "ok",
                "exit_code": exit_code,
                "error": describe(found.refusals[0]) if refusals else None,
                "allowed": not refusals,
                "refusals": refusals,
                **_document(found),
                "upgrade": None if last is None else last.document(),
            }
        )
    else:
        _print(found)
    raise click.exceptions.Exit(exit_code)


async def _look(resumes: bool, master: StationMaster) -> _Status:
    from ess_can.bus.clock import now
    from ess_can.gateway.plan import listen
    from ess_can.gateway.policy import Start, refusals

    start = Start.RESUMED if resumes else Start.FRESH
    await listen(master, start)
    found = refusals(master.view, master.config, master.link.codec.fingerprint, now(), start)
    return _Status(master.view, master.config.racks, found, resumes)


def _document(found: _Status) -> dict[str, object]:
    pcs = found.view.pcs
    return {
        "pcs": None
        if pcs is None
        else {
            "state": pcs.value.state.name.lower(),
            "contactors": pcs.value.contactors.name.lower(),
            "dc_current_a": pcs.value.dc_current_a,
            "lock_acknowledged": pcs.value.lock_acknowledged,
            "remote_control": pcs.value.remote_control,
            "grid_service_active": pcs.value.grid_service_active,
            "fault_code": pcs.value.fault_code,
        },
        "racks": [_rack_document(found.view, rack) for rack in found.racks],
        "nodes": [
            {"name": str(address), "version": str(info.value.version), "image": info.value.image_state.name.lower()}
            for address, info in sorted(found.view.nodes.items())
        ],
    }


def _rack_document(view: PlantView, rack: int) -> dict[str, object]:
    seen = view.rack(rack)
    hv, state, cells = seen.hv, seen.state, seen.cells
    return {
        "rack": rack,
        "state": None if state is None else state.value.state.name.lower(),
        "soc_percent": None if state is None else state.value.soc_percent,
        "string_voltage_v": None if state is None else state.value.string_voltage_v,
        "aux_voltage_v": None if state is None else state.value.aux_voltage_v,
        "hv_off": None if hv is None else hv.value.hv_off,
        "link_voltage_v": None if hv is None else hv.value.link_voltage_v,
        "current_a": None if hv is None else hv.value.current_a,
        "cell_voltage_min_v": None if cells is None else cells.value.cell_voltage_min_v,
        "cell_voltage_max_v": None if cells is None else cells.value.cell_voltage_max_v,
    }


def _print(found: _Status) -> None:
    pcs = found.view.pcs
    if pcs is None:
        click.echo("PCS           not heard")
    else:
        click.echo(
            f"PCS           {pcs.value.state.name.lower()}, contactors {pcs.value.contactors.name.lower()}, "
            f"{_value(pcs.value.dc_current_a, 'A')}{', locked' if pcs.value.lock_acknowledged else ''}"
        )
    for rack in found.racks:
        values = _rack_document(found.view, rack)
        click.echo(
            f"rack {rack}        {values['state'] or 'state unknown'}, charged {_value(values['soc_percent'], '%')}, "
            f"string {_value(values['string_voltage_v'], 'V')}, link {_value(values['link_voltage_v'], 'V')}, "
            f"{_value(values['current_a'], 'A')}, supply {_value(values['aux_voltage_v'], 'V')}"
        )
    for address, info in sorted(found.view.nodes.items()):
        click.echo(f"{address!s:<14}runs {info.value.version} ({info.value.image_state.name.lower()})")
    if not found.refusals:
        click.echo("The upgrade could be gone on with now." if found.resumes else "An upgrade could start now.")
    for error in found.refusals:
        click.echo(f"refused {error.name}: {error}", err=True)
        click.echo(f"what to do: {error.remedy}", err=True)


def _value(number: object, unit: str) -> str:
    return f"{number:.1f} {unit}" if isinstance(number, float | int) else f"unknown {unit}"
