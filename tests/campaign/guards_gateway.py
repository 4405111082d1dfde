"""Guards of the gateway: sleep, what is an answer, and the order in which nodes are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Final

import ess_can.gateway.plan as plan
import ess_can.gateway.settle as settle
from ess_can.bus.clock import Cycle, pause
from ess_can.bus.guarded_bus import GuardedBus
from ess_can.bus.port import Sent
from ess_can.bus.station import StationLink
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.plants import SMALLEST
from ess_can.campaign.releases import make_plant
from ess_can.campaign.station import SETTLED_S, Station
from ess_can.can.frame import CanFrame
from ess_can.cli.embedded import simulated_setup
from ess_can.cli.inventory import _ask_everybody
from ess_can.errors import EssCanError, VerificationFailed
from ess_can.gateway.config import BusLimits
from ess_can.gateway.interlock import Interlock
from ess_can.gateway.isolation import Isolation
from ess_can.gateway.node_client import NodeClient, NodeIdentity
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import BmsAlarms, EmsUpgradeNotice, PcsStatus, UpgradePhase
from ess_can.sim.loop import run_virtual
from ess_can.uds.target import Nrc
from tests.campaign.guard import Act, Guard, Run, around, by, says, upgrade
from tests.campaign.guards_policy import BMU1, TWO_RACKS, lost
from tests.campaign.guards_proof import LONG, REVOKED, WORK

BMU2: Final = NodeAddress(NodeType.BMU, 2)
IN_TURN: Final = replace(TWO_RACKS, bus=BusLimits(nodes_at_once=1))


# --- sleep ----------------------------------------------------------------------------------------------------


def _sleeps(station: Station) -> None:
    station.slept_s += 10.0


def _never_sleeps(original: Callable[..., object]) -> object:
    def make(master: StationMaster, *args: object, **told: object) -> object:
        return original(master, *args, **{**told, "slept_s": lambda: 0.0})

    return make


_SLEEPLESS: Final = around(StationMaster, "__init__", _never_sleeps)

_STARVED: Final = upgrade(f"gateway:starved=1@{WORK}", site=LONG)


def _unguarded(bus: GuardedBus, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
    bus._bus.send(frame, on_sent, bulk=bulk)


SLEEP: Final = (
    Guard(
        "interlock, no frame before a look",
        "gateway.interlock:Interlock.may_go_on",
        "a stream that goes on where it stood when the program runs again, before anybody looked at the proof",
        by(Interlock, "may_go_on", lambda _: True),
        _STARVED,
        Invariant.PERMIT,
    ),
    Guard(
        "bus, asks before each frame of a stream",
        "bus.guarded_bus:GuardedBus.send",
        "a message whose rest is sent although what allowed it has ended",
        by(GuardedBus, "send", _unguarded),
        _STARVED,
        Invariant.PERMIT,
    ),
    Guard(
        "interlock, sleep",
        "gateway.interlock:Interlock._look",
        "taking what was proved before the computer slept for a fresh proof",
        _SLEEPLESS,
        upgrade(Act("the computer sleeps for 10 s, and its clock with it", WORK, _sleeps), tells=REVOKED, site=LONG),
        f"tells nothing of {REVOKED}",
    ),
    Guard(
        "interlock, the computer's own word on its sleep",
        "gateway.run:GatewaySetup.slept_s",
        "a sleep that is only noticed by clocks that may have stood still, too",
        _SLEEPLESS,
        upgrade(f"gateway:suspended=10@{WORK}", tells="this machine slept for 10.0 s", site=LONG),
        "tells nothing of this machine slept for 10.0 s",
    ),
)


# --- what is an answer ----------------------------------------------------------------------------------------


def _other_gateway_asked() -> str:
    async def ask() -> str:
        plant = make_plant(SMALLEST.plant)
        plant.start()
        await pause(SETTLED_S)
        other = StationLink(plant.wire.controller("another gateway"), plant.codec)
        notice = EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 1, 0.0, 0x1234)
        Cycle(0.5, lambda _at: other.send(notice)).start()
        try:
            async with simulated_setup(plant).master(plant.gateway_controller()) as master:
                await _ask_everybody(master)
        except EssCanError as error:
            return "" if error.name == "OTHER_GATEWAY" else f"it ends with {error.name}"
        finally:
            plant.stop()
        return "it asks nodes that somebody else is programming"

    return run_virtual(ask())


def _takes_any_crc(original: Callable[..., object]) -> object:
    async def verify(client: NodeClient, crc32: int) -> int:
        try:
            await original(client, crc32)  # type: ignore[misc]
        except VerificationFailed as error:
            if "does not hold" not in str(error):
                raise
        return crc32

    return verify


def _other_crc(station: Station) -> None:
    def alter(answer: bytes) -> bytes:
        return answer[:-1] + bytes([answer[-1] ^ 1]) if answer[:4] == b"\x71\x01\xfd\x10" else answer

    station.plant.nodes[BMU1].alter_answer = alter


def _anybody(original: Callable[..., object]) -> object:
    async def identify(node: NodeUpgrade) -> NodeIdentity:
        return await plan.identify(node._master, node.address)

    return identify


ANSWERS: Final = (
    Guard(
        "isolation, an answer comes after its order",
        "gateway.isolation:Isolation._is_answer",
        "taking what was said before an order for what came of it",
        by(Isolation, "_is_answer", lambda *_: True),
        upgrade(
            says("fire", BmsAlarms, f"{WORK}~0.3", fire=True),
            lost(PcsStatus, "PCS_Status", "HOLD_OPEN+0"),
            ends="HELD_OPEN & not proved open and locked",
            site=LONG,
        ),
        "not HELD_OPEN & not proved open and locked",
    ),
    Guard(
        "nobody else's nodes are asked",
        "gateway.plan:require_askable",
        "disturbing somebody else's upgrade with questions",
        by(plan, "require_askable", lambda _: None),
        Run("an inventory while another gateway upgrades", _other_gateway_asked),
        "it asks nodes that somebody else is programming",
    ),
    Guard(
        "node, the CRC that it read back",
        "gateway.node_client:NodeClient.verify",
        "activating what a node read back otherwise than it was sent",
        around(NodeClient, "verify", _takes_any_crc),
        upgrade(Act("bmu1 reads another CRC back", "0", _other_crc), ends="FAILED VERIFICATION_FAILED"),
        "not FAILED VERIFICATION_FAILED",
    ),
    Guard(
        "identity, again before work begins",
        "gateway.node_upgrade:NodeUpgrade._identify_again",
        "programming a board that took the place of the one that was checked",
        around(NodeUpgrade, "_identify_again", _anybody),
        upgrade("node:bmu1:impostor@RAMP_DOWN+0~60", ends="WRONG_TARGET"),
        "not WRONG_TARGET",
    ),
)


# --- the order in which nodes are changed ---------------------------------------------------------------------


def _activates_at_once(original: Callable[..., object]) -> object:
    async def program(node: NodeUpgrade, at_once: int = 1) -> None:
        await original(node, at_once)  # type: ignore[misc]
        await node.activate_on_trial()

    return program


def _believes_it_verified(original: Callable[..., object]) -> object:
    async def hang_up(node: NodeUpgrade) -> None:
        verified = node._verified
        await original(node)  # type: ignore[misc]
        node._verified = verified

    return hang_up


def _confirms_not(station: Station) -> None:
    def confirm(now: float) -> Nrc | None:
        return Nrc.CONDITIONS_NOT_CORRECT

    station.plant.nodes[BMU2].memory.confirm = confirm  # type: ignore[method-assign]


def _never_confirmed(original: Callable[..., object]) -> object:
    async def is_confirmed(_node: NodeUpgrade) -> bool:
        return False

    return is_confirmed


def _any_time(original: Callable[..., object]) -> object:
    def refusal(view: object, config: object, now: float, _since: float, armed: object, *, closing: bool) -> object:
        return original(view, config, now, -inf, armed, closing=closing)

    return refusal


ORDER: Final = (
    Guard(
        "upgrade, every node verified before any is activated",
        "gateway.upgrade:Upgrade.run",
        "a station of which a part boots a release that the rest does not have",
        around(NodeUpgrade, "program", _activates_at_once),
        upgrade("node:bmu2:refuses=49@PROGRAM+0~20", ends="FAILED", site=IN_TURN),
        "not FAILED",
    ),
    Guard(
        "upgrade, verified in this session",
        "gateway.node_upgrade:NodeUpgrade.hang_up",
        "activating what was verified before the node restarted",
        around(NodeUpgrade, "hang_up", _believes_it_verified),
        upgrade("node:bmu1:reset@TRIAL_BOOT+0", ends="DONE"),
        "not DONE",
    ),
    Guard(
        "upgrade, mixed versions held open",
        "gateway.settle:Settlement._roll_back",
        "restarting nodes that are confirmed, and that will not go back",
        around(NodeUpgrade, "is_confirmed", _never_confirmed),
        upgrade(Act("bmu2 does not confirm", "CONFIRM+0", _confirms_not), ends="HELD_OPEN & mixed", site=TWO_RACKS),
        "not HELD_OPEN & mixed",
    ),
    Guard(
        "reconnect, by what nodes say now",
        "gateway.policy:reconnect_refusal",
        "closing on what a node said that has fallen silent",
        around(settle, "reconnect_refusal", _any_time),
        upgrade("node:comm_gateway:power@RECONNECT+0~60", ends="HELD_OPEN & comm_gateway"),
        "ends DONE",
    ),
)

GUARDS: Final = (*SLEEP, *ANSWERS, *ORDER)
