"""`ess-can doctor`: one pass over everything that can be wrong, each with its remedy."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.bus_options import BusOptions, bus_options
from ess_can.cli.errors import describe, handle_errors
from ess_can.cli.image_text import print_json
from ess_can.cli.station_options import StationOptions, station_options
from ess_can.errors import EssCanError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ess_can.bus.link_facts import LinkFacts
    from ess_can.gateway.doctor import Diagnosis, Finding
    from ess_can.gateway.doctor_plant import Probe
    from ess_can.gateway.station_master import StationMaster
    from ess_can.gateway.station_snapshot import Snapshot
    from ess_can.identity import NodeAddress
    from ess_can.signals.dbc import StationCodec

_SILENT_S = 1.0
_LISTEN_MIN_S = 1.5
"""Node_Info comes twice a second, and another gateway speaks more often than that."""
_LISTEN_S = 3.0


@click.command()
@bus_options
@station_options
@click.option("--transmit", is_flag=True, help="Also ask one node who it is, to see whether what we send arrives.")
@click.option("--list", "list_only", is_flag=True, help="Only list the CAN interfaces that this machine has.")
@click.option("--sim", is_flag=True, help="Look at the embedded simulated plant in place of an interface.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_errors
def doctor(bus: BusOptions, station: StationOptions, transmit: bool, list_only: bool, sim: bool, as_json: bool) -> None:
    """Look at machine, interface, bus and plant, and say what is wrong and what to do about it.

    Nothing is sent unless --transmit is given, and nothing is changed.  The exit code is 0 if there is no problem, else
    that of the gravest.
    """
    if list_only:
        _list_interfaces(as_json=as_json)
        return
    found = _examine(bus, station, transmit=transmit, sim=sim)
    when_well = f"ess-can status{_arguments(bus, station, sim=sim)}"
    exit_code = 0 if found.error is None else found.error.exit_code
    if as_json:
        _print_document(found, found.next_command(when_well))
    else:
        _print(found, found.next_step(when_well))
    raise click.exceptions.Exit(exit_code)


# --- looking --------------------------------------------------------------------------------------


def _examine(bus: BusOptions, station: StationOptions, *, transmit: bool, sim: bool) -> Diagnosis:
    from ess_can.bus.interfaces import named_bus
    from ess_can.bus.machine_facts import read_machine
    from ess_can.cli.stopwatch import today
    from ess_can.gateway.doctor import Group, Outcome, diagnosis, not_applicable
    from ess_can.gateway.doctor_machine import judge_dbc, judge_machine, judge_name

    loaded = _load(station)
    if sim:
        machine = read_machine(None, None, _folder(bus))
        findings = [
            *judge_machine(machine, None, today()),
            judge_dbc(loaded),
            not_applicable(Group.INTERFACE, "named", "the simulated plant needs none"),
        ]
        if not isinstance(loaded, EssCanError):
            findings += _simulated(bus, station, loaded, transmit=transmit)
        return diagnosis(findings)

    named = named_bus(bus.interface, bus.channel, bus.bitrate)
    interface = None if named.interface is None else named.interface.value
    channel = "" if named.channel is None else named.channel.value
    bus = replace(bus.resolved(), bitrate=bus.bitrate)
    machine = read_machine(interface, channel, _folder(bus))
    findings = [*judge_machine(machine, interface, today()), judge_dbc(loaded), judge_name(named)]
    link: LinkFacts | None = None
    if interface is not None:
        bitrate = bus.bitrate or _number(None if named.bitrate is None else named.bitrate.value)
        bus = replace(bus, bitrate=bitrate)
        link, about_it = _look_at_interface(bus, interface, channel, machine.in_container, no_can=machine.no_can)
        findings += about_it
    if any(one.outcome is Outcome.PROBLEM for one in findings) or isinstance(loaded, EssCanError):
        findings.append(not_applicable(Group.BUS, "traffic", "not listened to: mend what is above first"))
        return diagnosis(findings)
    findings += asyncio.run(_on_bus(bus, station, loaded, link, transmit=transmit))
    return diagnosis(findings)


def _load(station: StationOptions) -> StationCodec | EssCanError:
    try:
        return station.codec()
    except EssCanError as error:
        return error


def _folder(bus: BusOptions) -> Path:
    return Path.cwd() if bus.trace is None else bus.trace.resolve().parent


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _look_at_interface(
    bus: BusOptions, interface: str, channel: str, in_container: bool, *, no_can: str
) -> tuple[LinkFacts | None, list[Finding]]:
    from ess_can.bus.link_facts import read_link
    from ess_can.bus.machine_facts import read_serial_port
    from ess_can.bus.python_can import confirms_frames
    from ess_can.gateway.doctor_interface import judge_adapter, judge_link

    if interface == "socketcan":
        if no_can:
            return None, []
        link = read_link(channel) if channel else None
        bitrate = bus.bit_timing().bitrate
        return link, list(judge_link(link, channel, bitrate=bitrate, fd=bus.fd, in_container=in_container))
    serial = read_serial_port(channel) if interface == "slcan" and channel.startswith("/") else None
    return None, list(judge_adapter(interface, serial, confirms=confirms_frames(interface)))


@dataclass(frozen=True, slots=True)
class _Heard:
    snapshot: Snapshot
    probe: Probe | None
    why_no_probe: str


def _simulated(bus: BusOptions, station: StationOptions, codec: StationCodec, *, transmit: bool) -> Iterator[Finding]:
    from ess_can.cli.visit import visit

    heard = visit(bus, station, lambda master: _look(master, bus, station, transmit=transmit), sim=True)
    yield from _judge(heard, station, codec, None, None)


async def _on_bus(
    bus: BusOptions, station: StationOptions, codec: StationCodec, link: LinkFacts | None, *, transmit: bool
) -> list[Finding]:
    from contextlib import AsyncExitStack

    from ess_can.bus.link_facts import read_link
    from ess_can.gateway.config import GatewayConfig
    from ess_can.gateway.doctor_interface import judge_opening
    from ess_can.gateway.run import GatewaySetup
    from ess_can.uds.access import NoAccess

    expected = station.expected() if station.racks is not None else codec.nodes()
    setup = GatewaySetup(codec, GatewayConfig(expected), NoAccess(), bus.bit_timing(), isotp=bus.isotp())
    async with AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(bus.opened())
        except EssCanError as error:
            return [judge_opening(error)]
        master = await stack.enter_async_context(setup.master(port))
        heard = await _look(master, bus, station, transmit=transmit)
    after = None if link is None else read_link(link.name)
    if heard.probe is not None and link is not None and after is not None:
        left = after.counts.tx_frames > link.counts.tx_frames
        heard = replace(heard, probe=replace(heard.probe, left=left))
    return [judge_opening(None), *_judge(heard, station, codec, link, after)]


def _judge(
    heard: _Heard, station: StationOptions, codec: StationCodec, before: LinkFacts | None, after: LinkFacts | None
) -> Iterator[Finding]:
    from ess_can.gateway.doctor_plant import judge_bus, judge_plant, judge_probe

    expected = station.expected() if station.racks is not None else ()
    yield from judge_bus(heard.snapshot, before, after)
    yield from judge_plant(heard.snapshot, expected, codec.fingerprint)
    yield judge_probe(heard.probe, heard.why_no_probe)


async def _look(master: StationMaster, bus: BusOptions, station: StationOptions, *, transmit: bool) -> _Heard:
    """Listen for as long as it takes to hear everybody, within bounds; then ask one node, if that is wanted."""
    from ess_can.bus.clock import now, until
    from ess_can.bus.station import StationLink
    from ess_can.gateway.plan import require_askable
    from ess_can.gateway.station_monitor import StationMonitor
    from ess_can.signals.messages import UpgradePhase

    codec, port = master.link.codec, master.link.bus
    expected = station.expected() if station.racks is not None else ()
    began_at = now()
    hearing = StationMonitor(codec, bus.bit_timing(), began_at, expected=expected)
    detach = hearing.attach(StationLink(port, codec), now)

    def everything() -> bool:
        snapshot = hearing.snapshot(now())
        if not snapshot.traffic.frames:
            return snapshot.listened_s >= _SILENT_S
        complete = snapshot.pcs is not None and all(node.info is not None for node in snapshot.nodes)
        return snapshot.listened_s >= _LISTEN_MIN_S and complete

    try:
        await until(everything, _LISTEN_S)
        snapshot = hearing.snapshot(now())
    finally:
        detach()
    answering = [node.address for node in snapshot.nodes if node.info is not None]
    notice = snapshot.notice
    if not transmit:
        return _Heard(snapshot, None, "nothing was sent; with --transmit one node is asked who it is")
    if not snapshot.plant_heard or not answering:
        return _Heard(snapshot, None, "nothing was sent: no node is heard that could be asked")
    if notice is not None and not notice.stale and notice.message.phase is not UpgradePhase.NONE:
        return _Heard(snapshot, None, "nothing was sent: another gateway is at work")
    try:
        require_askable(master)
    except EssCanError as refusal:
        return _Heard(snapshot, None, f"nothing was sent: {refusal}")
    return _Heard(snapshot, await _probe(master, answering[0]), "")


async def _probe(master: StationMaster, node: NodeAddress) -> Probe:
    from ess_can.bus.clock import now
    from ess_can.gateway.doctor_plant import Probe

    began_at = now()
    try:
        identity = await master.client(node).identify()
    except EssCanError as error:
        return Probe(node, error=error)
    return Probe(node, str(identity.version), now() - began_at)


# --- telling --------------------------------------------------------------------------------------

_TICKS = {"ok": "\N{CHECK MARK}", "warning": "!", "problem": "\N{BALLOT X}", "not applicable": "-"}
_ASCII_TICKS = {"ok": "ok", "warning": "!!", "problem": "XX", "not applicable": "--"}
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def _print(found: Diagnosis, step: str) -> None:
    ticks = _ticks(sys.stdout.encoding or "ascii")
    group = None
    for one in found.findings:
        if one.group is not group:
            group = one.group
            click.secho(group.value, bold=True)
        tick = click.style(ticks[one.outcome.value], fg=_COLOURS.get(one.outcome.value))
        click.echo(f"  {tick} {one.name:<14} {one.seen}")
        indent = " " * (len(ticks["ok"]) + 18)
        if one.remedy:
            click.echo(f"{indent}what to do: {one.remedy}")
        if one.command:
            click.echo(f"{indent}type: {one.command}")
    click.echo(f"{found.summary} Next: {step}")


def _ticks(encoding: str) -> dict[str, str]:
    try:
        "".join(_TICKS.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII_TICKS
    return _TICKS


def _print_document(found: Diagnosis, command: str) -> None:
    error = found.error
    print_json(
        {
            "result": "ok" if error is None else "error",
            "exit_code": 0 if error is None else error.exit_code,
            "error": None if error is None else describe(error),
            "summary": found.summary,
            "next_command": command or None,
            "findings": [
                {
                    "group": one.group.value,
                    "name": one.name,
                    "outcome": one.outcome.value,
                    "seen": one.seen,
                    "remedy": one.remedy or None,
                    "command": one.command or None,
                    "error": None if one.error is None else one.error.name,
                    "exit_code": 0 if one.error is None else one.error.exit_code,
                }
                for one in found.findings
            ],
        }
    )


def _list_interfaces(*, as_json: bool) -> None:
    from ess_can.bus.interfaces import interfaces

    found = interfaces()
    if as_json:
        listed = [{"interface": one.interface, "channel": one.channel, "note": one.note or None} for one in found]
        print_json({"result": "ok", "exit_code": 0, "error": None, "interfaces": listed})
        return
    for one in found:
        click.echo(f"-i {one.interface} -c {one.channel}{f'   {one.note}' if one.note else ''}")


def _arguments(bus: BusOptions, station: StationOptions, *, sim: bool) -> str:
    """The command line's own words for bus and station, to be typed again."""
    words = ["--sim"] if sim else []
    for flag, value in (("-i", bus.interface), ("-c", bus.channel), ("-b", bus.bitrate)):
        words += [] if value is None else [flag, str(value)]
    words += ["--fd"] if bus.fd else []
    words += [] if bus.data_bitrate is None else ["--data-bitrate", str(bus.data_bitrate)]
    for flag, texts in (("--timing", bus.timing), ("--bus-kwargs", bus.bus_kwargs)):
        for text in texts:
            words += [flag, text]
    if station.racks is not None:
        words += ["--racks", str(station.racks)]
    elif not sim:
        words += ["--racks", "N"]
    words += [] if station.comm_gateway else ["--no-comm-gateway"]
    words += [] if station.dbc is None else ["--dbc", str(station.dbc)]
    return "".join(f" {shlex.quote(word)}" for word in words)
