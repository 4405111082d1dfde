"""`ess-can inventory`: who is there, and what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ess_can.cli.bus_options import BusOptions, bus_options, isotp_option
from ess_can.cli.errors import handle_errors
from ess_can.cli.image_text import print_json
from ess_can.cli.station_options import StationOptions, station_options

if TYPE_CHECKING:
    from ess_can.gateway.node_client import NodeIdentity
    from ess_can.gateway.station_master import StationMaster
    from ess_can.identity import NodeAddress


@click.command()
@bus_options
@isotp_option
@station_options
@click.option("--sim", is_flag=True, help="Ask the embedded simulated plant.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_errors
def inventory(
    bus: BusOptions,
    isotp: str,
    station: StationOptions,
    sim: bool,
    as_json: bool,
) -> None:
    """Ask every node for its identifiers.  Changes nothing."""
    from ess_can.cli.visit import visit

    identities = visit(bus, station, _ask_everybody, sim=sim, isotp=isotp)
    if as_json:
        print_json(
            {
                "result": "ok",
                "exit_code": 0,
                "error": None,
                "nodes": [_document(address, identity) for address, identity in identities],
            }
        )
        return
    click.echo(
        f"{'node':<14}{'serial':<14}{'hardware':<10}{'version':<10}{'bank':<6}{'image':<11}{'boots':>6}{'counter':>9}"
    )
    for address, identity in identities:
        state = identity.boot_state
        click.echo(
            f"{address!s:<14}{identity.serial:<14}{identity.hardware_id:<#10x}{state.version!s:<10}{state.bank:<6}"
            f"{_standing(identity):<11}{state.boot_counter:>6}{identity.security_counter:>9}"
        )


def _standing(identity: NodeIdentity) -> str:
    from ess_can.signals.messages import ImageState

    return ImageState(identity.boot_state.standing).name.lower()


async def _ask_everybody(master: StationMaster) -> list[tuple[NodeAddress, NodeIdentity]]:
    from ess_can.gateway.plan import listen, require_askable

    await listen(master)
    require_askable(master)
    return [(address, await master.client(address).identify()) for address in sorted(master.view.nodes)]


def _document(address: NodeAddress, identity: NodeIdentity) -> dict[str, object]:
    state = identity.boot_state
    return {
        "name": str(address),
        "type": identity.node_type.name.lower(),
        "serial": identity.serial,
        "hardware_id": identity.hardware_id,
        "version": str(state.version),
        "bank": state.bank,
        "image": _standing(identity),
        "boot_counter": state.boot_counter,
        "security_counter": identity.security_counter,
        "resume_offset": identity.resume_state.verified_offset,
        "dbc_sha256": identity.dbc_sha256.hex(),
    }
