"""Guards of the gateway's numbers, and of what it sees of a plant that it opens and closes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ess_can.bus.port import Bus
from ess_can.bus.recovering_bus import RecoveringBus
from ess_can.campaign.monitors import Invariant
from ess_can.gateway.config import GatewayConfig, HvLimits, PolicyLimits, TimeLimits
from ess_can.gateway.isolation import Isolation
from ess_can.gateway.node_client import NodeIdentity
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import BmsAlarms, BmsHvStatus, ImageState, PcsStatus
from ess_can.uds.access import AccessGuard, AccessState, CmacAccess
from ess_can.uds.target import Did, Nrc
from tests.campaign.guard import Guard, around, by, refuses, require, says, script, upgrade
from tests.campaign.guards_identity import altered
from tests.campaign.guards_policy import BMU1
from tests.campaign.guards_proof import LONG, WORK


def _number(what: str, kind: type[object], prevents: str, make: Callable[[], object]) -> Guard:
    return Guard(
        f"configuration, {what}",
        f"gateway.config:{kind.__name__}.__post_init__",
        prevents,
        by(kind, "__post_init__", lambda _: None),
        script(f"a configuration with {what} that means nothing", lambda: refuses(what, make, "USAGE_ERROR")),
        "is not refused",
    )


NUMBERS: Final = (
    _number(
        "a limit of the proof", HvLimits, "a proof that proves nothing", lambda: HvLimits(link_voltage_off_v=500.0)
    ),
    _number(
        "a bus load", PolicyLimits, "orders and evidence that are late", lambda: PolicyLimits(bus_load_max_percent=99)
    ),
    _number("a deadline", TimeLimits, "a wait that never ends", lambda: TimeLimits(prove_off_s=float("inf"))),
    _number(
        "a list of nodes",
        GatewayConfig,
        "a proof without any rack",
        lambda: GatewayConfig((NodeAddress(NodeType.COMM_GATEWAY),)),
    ),
)


# --- a plant that is opened and closed ------------------------------------------------------------------------


def _trial_unseen(original: Callable[..., object]) -> object:
    async def identify(node: NodeUpgrade) -> object:
        identity = await original(node)  # type: ignore[misc]
        assert isinstance(identity, NodeIdentity)
        return replace(identity, boot_state=replace(identity.boot_state, standing=ImageState.CONFIRMED))

    return identify


def _restarts_for_ever(original: Callable[..., object]) -> object:
    def make(bus: RecoveringBus, inner: Bus) -> None:
        original(bus, inner, (0.1,) * 100)

    return make


_FIRE: Final = says("fire", BmsAlarms, f"{WORK}~0.3", fire=True)

PLANT: Final = (
    Guard(
        "isolation, the lock is acknowledged",
        "gateway.isolation:Isolation._is_locked",
        "saying that a plant is held safe whose PCS does not say that it is locked",
        by(Isolation, "_is_locked", lambda _: True),
        upgrade(
            _FIRE,
            says("not locked", PcsStatus, "HOLD_OPEN+0", lock_acknowledged=False),
            ends="HELD_OPEN & not proved open and locked",
            site=LONG,
        ),
        "not HELD_OPEN & not proved open and locked",
    ),
    Guard(
        "isolation, no weld when it is held open",
        "gateway.isolation:Isolation._refuse_weld",
        "saying that a rack is open whose contactor is welded",
        by(Isolation, "_refuse_weld", lambda _: None),
        upgrade(
            _FIRE,
            says("weld flag", BmsHvStatus, "HOLD_OPEN+0", weld_plus=True),
            ends="HELD_OPEN & not proved open and locked",
            site=LONG,
        ),
        "not HELD_OPEN & not proved open and locked",
    ),
    Guard(
        "reconnect, seen closed",
        "gateway.isolation:Isolation.is_connected",
        "success with a plant that did not close",
        by(Isolation, "is_connected", lambda _: True),
        upgrade("plant:precharge-fails:1@RECONNECT+0", ends="HELD_OPEN"),
        Invariant.SUCCESS,
    ),
    Guard(
        "upgrade, nothing on trial before it is programmed",
        "gateway.node_upgrade:NodeUpgrade.program",
        "erasing the only confirmed image of a node that runs a trial",
        around(NodeUpgrade, "_identify_again", _trial_unseen),
        upgrade(altered(Did.BOOT_STATE, bytes((0, 1)), "RAMP_DOWN+0", BMU1), ends="on trial"),
        "not on trial",
    ),
    Guard(
        "bus, a few restarts",
        "bus.recovering_bus:RecoveringBus._went_off",
        "work that goes on over a bus that fails again and again",
        around(RecoveringBus, "__init__", _restarts_for_ever),
        upgrade("bus:off=9@PROGRAM+0.2", ends="BUS_UNUSABLE", site=LONG),
        "not BUS_UNUSABLE",
    ),
)


# --- a node's challenges --------------------------------------------------------------------------------------


class _Forgetful:
    def load(self) -> AccessState:
        """Nothing was saved."""
        return AccessState()

    def save(self, state: AccessState) -> None:
        """Nothing is kept."""


def _dead_entropy() -> None:
    guard = AccessGuard(CmacAccess(bytes(16)), b"BMU-000001", bytes, _Forgetful(), 100.0)
    require(isinstance(guard.request_seed(100.0), Nrc), "a challenge of zeros is given")


def _any_challenge(original: Callable[..., object]) -> object:
    def request_seed(guard: AccessGuard, now: float) -> object:
        given = original(guard, now)
        return bytes(16) if given is Nrc.CONDITIONS_NOT_CORRECT else given

    return request_seed


GUARDS: Final = (
    *NUMBERS,
    *PLANT,
    Guard(
        "node, no challenge of zeros",
        "uds.access:AccessGuard.request_seed",
        "a challenge that anybody can foresee, or takes for being unlocked",
        around(AccessGuard, "request_seed", _any_challenge),
        script("a node whose random numbers are dead is asked for a challenge", _dead_entropy),
        "a challenge of zeros is given",
    ),
)
