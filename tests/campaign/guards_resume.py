"""Guards of resuming: what an upgrade left that did not end is read from the plant, and taken back first."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

import ess_can.gateway.run as run
import ess_can.gateway.settle as settle
import ess_can.gateway.upgrade as upgrade
from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.operator import disconnect
from ess_can.campaign.plants import NEW, NEXT, SMALLEST
from ess_can.campaign.releases import release
from ess_can.campaign.station import Station
from ess_can.gateway.armed_trials import ArmedTrials
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.node_revert import ask_to_revert
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Leftover, Plan
from ess_can.gateway.plant_view import Connection, PlantView
from ess_can.gateway.progress import Event, PhaseEntered
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.resume import Earlier
from ess_can.gateway.settle import Settlement
from ess_can.gateway.station_master import StationMaster
from ess_can.gateway.upgrade import Upgrade
from ess_can.identity import NodeAddress, NodeType
from ess_can.sim.boot_records import ImageId
from ess_can.sim.wire import WireFault
from ess_can.uds.target import Nrc
from tests.campaign.guard import Act, Course, Guard, Off, Run, Start, around, both, by, course
from tests.campaign.guards_policy import BMU1, COMM_GATEWAY
from tests.campaign.guards_proof import LONG, WORK

Attempt = Callable[[Start], Awaitable[None]]
_AFTER_S: Final = 2.0
_BOOTED_S: Final = 3.0


def roll_back(station: Station) -> None:
    """Somebody has what is unfinished given up."""
    station.start_resume(roll_back=True)


async def resumed(_station: Station, attempt: Attempt) -> str:
    """Somebody starts the gateway again, to go on."""
    await pause(_AFTER_S)
    await attempt(Station.start_resume)
    return ""


def _resuming(*faults: str, ends: str = "DONE", long: bool = False) -> Course:
    return Course(faults, ends, LONG if long else SMALLEST, then=resumed)


async def _next_boot(station: Station) -> str:
    """What bmu1 runs after another restart."""
    node = station.plant.nodes[BMU1]
    node.reset(station.plant.wire.loop.time())
    await pause(_BOOTED_S)
    return str(node.memory.version)


async def _given_up(station: Station, attempt: Attempt) -> str:
    await pause(_AFTER_S)
    await attempt(roll_back)
    boots = await _next_boot(station)
    return "" if boots == "1.0.0" else f"its next boot runs {boots}, which was given up"


def _interrupt(station: Station) -> None:
    if station.process.task is not None:
        station.process.task.cancel()


async def _deaf_and_interrupted(station: Station, attempt: Attempt) -> str:
    """As contactors are to open Ctrl-C is pressed, and bmu1 hears no request any more."""
    request_id = station.plant.codec.diagnostic_ids(BMU1)[0]

    def on_event(event: Event) -> None:
        if isinstance(event, PhaseEntered) and event.phase is Phase.OPEN_CONTACTORS:
            station.on_transmission(lambda _index, frame: WireFault.LOSE if frame.can_id == request_id else None)
            station.later(0.0, partial(_interrupt, station))

    await pause(_AFTER_S)
    station.on_event.append(on_event)
    await attempt(Station.start_resume)
    return ""


async def _supersede(_station: Station, attempt: Attempt) -> None:
    """Another release is brought in, for the comm gateway only."""
    await pause(_AFTER_S)
    other = release((NodeType.COMM_GATEWAY,), NEXT, SMALLEST.payload_bytes)
    await attempt(lambda station: station.start_upgrade(other))


async def _superseded(station: Station, attempt: Attempt) -> str:
    await _supersede(station, attempt)
    boots = await _next_boot(station)
    return "" if boots == "1.0.0" else f"its next boot runs {boots}, which was given up"


async def _replaced(_station: Station, attempt: Attempt) -> str:
    await pause(_AFTER_S)
    other = release(LONG.release, NEXT, LONG.payload_bytes)
    await attempt(lambda station: station.start_upgrade(other))
    return ""


async def _opened_meanwhile(station: Station, attempt: Attempt) -> str:
    await pause(_AFTER_S)
    await disconnect(station.plant)
    station.plant.pcs.locked = False  # by a switch on site
    await resumed(station, attempt)
    return "it closes what somebody opened" if station.plant.circuit.pcs_contactor.closed else ""


async def _disk_fails(station: Station, attempt: Attempt) -> str:
    """Once it is resumed nothing can be recorded: so nothing is ordered."""
    resumed = station.disk.writes + 2  # and found

    def fail(entry: int) -> None:
        if entry >= resumed:
            raise sqlite3.OperationalError("disk I/O error")

    station.disk.before.append(fail)
    await pause(_AFTER_S)
    await attempt(Station.start_resume)
    return ""


async def _rots(station: Station, attempt: Attempt) -> str:
    flash = station.plant.nodes[BMU1].flash
    flash.inject_bit_rot(1, flash.geometry.slot_offset + 700, 1)
    return await resumed(station, attempt)


def _dies_with_activation(station: Station) -> None:
    """As soon as bmu1's boot record has the new image on trial, and before it restarts."""
    node = station.plant.nodes[BMU1]
    activate = node.bootloader.activate_on_trial

    def once(image: ImageId, tries: int) -> None:
        activate(image, tries)
        station.later(0.0, station.kill_gateway)

    node.bootloader.activate_on_trial = once  # type: ignore[method-assign]


def keeps_activation(station: Station) -> None:
    """Whatever bmu1 is asked, it does not give up what it activated."""

    def revert(now: float) -> Nrc | None:
        return Nrc.CONDITIONS_NOT_CORRECT

    station.plant.nodes[BMU1].memory.revert = revert  # type: ignore[method-assign]


async def _rolled_back(_station: Station, attempt: Attempt) -> str:
    await pause(_AFTER_S)
    await attempt(roll_back)
    return ""


async def _superseded_in_vain(station: Station, attempt: Attempt) -> str:
    await _supersede(station, attempt)
    runs = station.plant.nodes[COMM_GATEWAY].memory.version
    return "" if str(runs) == "1.0.0" else f"it upgrades others beside a node that keeps {NEW}"


KILLED_ACTIVATED: Final = Act("the gateway dies as bmu1 activates its image", "0", _dies_with_activation)
_KEPT: Final = Act("bmu1 does not give up what it activated", "0", keeps_activation)


# --- how they are switched off ------------------------------------------------------------------------------------


def _nothing_taken_back(original: Callable[..., object]) -> object:
    async def nothing(upgrade: Upgrade) -> None:
        """Leftovers stay."""

    return nothing


def _remembers_plan(original: Callable[..., object]) -> object:
    """The plan of the first attempt counts for all."""
    plans: list[Plan] = []

    async def make_plan(*args: object) -> Plan:
        if not plans:
            plans.append(await original(*args))  # type: ignore[misc]
        return plans[0]

    return make_plan


def _activated_nothing(original: Callable[..., object]) -> object:
    def of(journal: object) -> Earlier | None:
        earlier = original(journal)
        return replace(earlier, activated=False) if isinstance(earlier, Earlier) else None

    return of


def _believes_given_up(original: Callable[..., object]) -> object:
    async def ask(master: StationMaster, address: NodeAddress, *args: object, **told: object) -> object:
        master.armed.ended(address)
        return await original(master, address, *args, **told)  # type: ignore[misc]

    return ask


def _only_asks(original: Callable[..., object]) -> object:
    async def take_back(master: StationMaster, leftover: Leftover, log: UpgradeLog) -> None:
        await ask_to_revert(master, leftover.address, log, restart=leftover.on_trial)

    return take_back


def _believes_held(original: Callable[..., object]) -> object:
    async def write(node: NodeUpgrade, client: object, offset: int, at_once: int) -> None:
        if offset == node._plan.image.size:
            node._verified = True
        else:
            await original(node, client, offset, at_once)  # type: ignore[misc]

    return write


def _left_alone(original: Callable[..., object]) -> object:
    async def put_back(settlement: Settlement, found: Connection, error: object) -> None:
        if settlement._master.orders.running:
            await original(settlement, found, error)  # type: ignore[misc]
        else:
            settlement._log.enter(Phase.RECONNECT)

    return put_back


SAYS_NOTHING: Final = by(ArmedTrials, "told", lambda *_: None)
"""What a node says of its own activation counts for nothing."""


def _as_it_is(_earlier: Earlier, view: PlantView, config: GatewayConfig, at: float) -> Connection:
    return view.connection(config.racks, at - 1.5)


def _as_before(earlier: Earlier, *_: object) -> Connection:
    return Connection(earlier.record.found)


def _guard(name: str, where: str, prevents: str, off: Off, run: Run, seen: Invariant | str) -> Guard:
    return Guard(f"resume, {name}", where, prevents, off, run, seen)


GUARDS: Final = (
    _guard(
        "leftovers first",
        "gateway.upgrade:Upgrade._take_back_leftovers",
        "going on beside an image on trial that a dead gateway left",
        around(Upgrade, "_take_back_leftovers", _nothing_taken_back),
        course(_resuming("gateway:kill@TRIAL_BOOT+1.5"), "an upgrade that is killed in its trial, and resumed"),
        "not DONE",
    ),
    _guard(
        "reads the plant first",
        "gateway.run:_Attempt._make_plan",
        "acting on a plant by what the journal, or another attempt, knew of it",
        around(run, "make_plan", _remembers_plan),
        course(_resuming(f"gateway:kill@{WORK}", long=True), "an upgrade that is killed, and resumed"),
        Invariant.READ_FIRST,
    ),
    _guard(
        "held image verified",
        "gateway.node_upgrade:NodeUpgrade._write",
        "activating what was complete before the gateway died, and rotted since",
        around(NodeUpgrade, "_write", _believes_held),
        course(
            Course(("gateway:kill@TRIAL_BOOT+0",), "DONE", then=_rots),
            "an upgrade that is killed before it activates what a node holds, which rots until it is resumed",
        ),
        "not DONE",
    ),
    _guard(
        "how the plant was found at first",
        "gateway.resume:Earlier.found",
        "a plant that is left open because its upgrade died once",
        by(Earlier, "found", _as_it_is),
        course(
            _resuming(f"gateway:kill@{WORK}", long=True), "an upgrade of a connected plant that is killed, and resumed"
        ),
        Invariant.SUCCESS,
    ),
    _guard(
        "how the superseded upgrade found it",
        "gateway.resume:Earlier.found",
        "a plant that is left open because its next upgrade is of another release",
        by(Earlier, "found", _as_it_is),
        course(
            Course((f"gateway:kill@{WORK}",), "DONE", LONG, then=_replaced),
            "an upgrade of a connected plant that is killed, and superseded by another",
        ),
        Invariant.SUCCESS,
    ),
    _guard(
        "what somebody did since",
        "gateway.resume:Earlier.found",
        "closing what a person opened while no gateway ran",
        by(Earlier, "found", _as_before),
        course(
            Course(("gateway:kill@PROGRAM+0",), "DONE", then=_opened_meanwhile),
            "an upgrade that is killed, and resumed after somebody took the plant over and opened it",
        ),
        "it closes what somebody opened",
    ),
    _guard(
        "an activation is given up, too",
        "gateway.resume:plan_to_give_up",
        "a node that boots at its next restart what was given up",
        both(around(Earlier, "of", _activated_nothing), SAYS_NOTHING),
        course(
            Course((KILLED_ACTIVATED,), "ROLLED_BACK", then=_given_up),
            "an upgrade that is killed when an image is activated, and given up",
        ),
        "its next boot runs 1.1.0",
    ),
    _guard(
        "an activation holds high voltage off",
        "gateway.armed_trials:ArmedTrials.nodes",
        "closing high voltage on a rack whose BMU boots another image at its next restart",
        by(ArmedTrials, "nodes", property(lambda _: ())),
        course(
            Course((KILLED_ACTIVATED, _KEPT), "HELD_OPEN & TRIAL_BOOT_FAILED", then=_rolled_back),
            "an upgrade that is killed when an image is activated, and given up, and bmu1 keeps it",
        ),
        Invariant.LOCK,
    ),
    _guard(
        "an activation that was not given up",
        "gateway.node_revert:take_back",
        "going on with a node that boots at its next restart what an earlier attempt activated",
        around(upgrade, "take_back", _only_asks),
        course(
            Course((KILLED_ACTIVATED, _KEPT), "HELD_OPEN & may still boot", then=_superseded_in_vain),
            "an upgrade that is killed when an image is activated, and superseded by another, and bmu1 keeps it",
        ),
        "it upgrades others beside a node that keeps 1.1.0",
    ),
    _guard(
        "only an answer proves that an activation was given up",
        "gateway.node_revert:ask_to_revert",
        "taking a node that cannot be asked for one that gave its activation up",
        around(settle, "ask_to_revert", _believes_given_up),
        course(
            Course((KILLED_ACTIVATED,), "HELD_OPEN & TRIAL_BOOT_FAILED", then=_deaf_and_interrupted),
            "an upgrade that is killed when an image is activated, resumed, interrupted, and cut off from bmu1",
        ),
        Invariant.LOCK,
    ),
    _guard(
        "what another release activated",
        "gateway.resume:leftovers_of",
        "a node that boots at its next restart what another release replaced",
        by(run, "leftovers_of", lambda _earlier, _master, plan: plan),
        course(
            Course((KILLED_ACTIVATED,), "DONE", then=_superseded),
            "an upgrade that is killed when an image is activated, and superseded by another",
        ),
        "its next boot runs 1.1.0",
    ),
    _guard(
        "says how the plant stands",
        "gateway.settle:Settlement._put_back",
        "a plant that stays locked, and of which nobody is told so",
        around(Settlement, "_put_back", _left_alone),
        course(
            Course(("gateway:kill@PROGRAM+0",), "HELD_OPEN & as an earlier upgrade left it", then=_disk_fails),
            "an upgrade that is killed, and resumed with a disk that fails",
        ),
        "not HELD_OPEN & as an earlier upgrade left it",
    ),
)
