"""Guards of the upgrade itself: isolation, the watch over it, the trial, and how the plant is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import ess_can.gateway.settle as settle
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.plants import SMALLEST
from ess_can.errors import EssCanError
from ess_can.gateway.isolation import Isolation
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.phases import Phase
from ess_can.gateway.plant_view import PlantView
from ess_can.gateway.upgrade import Upgrade
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    BmsHvStatus,
    BmsState,
    ContactorState,
    ImageState,
    Message,
    PcsState,
    PcsStatus,
)
from ess_can.sim.pcs import PcsSpec
from ess_can.uds.target import Did
from tests.campaign.guard import Guard, Off, Value, around, both, by, saying, says, upgrade
from tests.campaign.guards_identity import altered
from tests.campaign.guards_policy import BMU1, lost, without
from tests.campaign.guards_proof import LONG, MAY_RETURN, STAYS_OFF
from tests.campaign.guards_reconnect import RULES, may_close

LOADED: Final = replace(SMALLEST, plant=replace(SMALLEST.plant, pcs=PcsSpec(local_setpoint_kw=-200.0)))
"""More current flows than a contactor can break."""
COMM_ONLY: Final = replace(SMALLEST, release=(NodeType.COMM_GATEWAY,))


# --- isolation ----------------------------------------------------------------------------------------------

ISOLATION: Final = (
    Guard(
        "isolation, PCS at rest before OPEN",
        "gateway.isolation:Isolation._pcs_stopped",
        "opening contactors while the PCS's current flows",
        by(Isolation, "_pcs_stopped", lambda _: True),
        upgrade("plant:rack-current-stuck:1@RAMP_DOWN+0", "plant:ramp-ignored@RAMP_DOWN+0", site=LOADED),
        Invariant.BREAK_CURRENT,
    ),
    Guard(
        "isolation, racks see no current before OPEN",
        "gateway.isolation:Isolation._rack_currents_off",
        "opening contactors on the word of one sensor",
        by(Isolation, "_rack_currents_off", lambda _: True),
        upgrade("plant:pcs-current-stuck@RAMP_DOWN+0", "plant:ramp-ignored@RAMP_DOWN+0", site=LOADED),
        Invariant.BREAK_CURRENT,
    ),
    Guard(
        "isolation, no OPEN under load",
        "gateway.isolation:Isolation._require_no_load",
        "opening contactors above the current that they can break",
        by(Isolation, "_require_no_load", lambda _: None),
        upgrade("plant:ramp-ignored@RAMP_DOWN+0", site=LOADED),
        Invariant.BREAK_CURRENT,
    ),
    Guard(
        "isolation, contactors seen open",
        "gateway.isolation:Isolation._all_open",
        "going on with a contactor that did not open",
        by(Isolation, "_all_open", lambda _: True),
        upgrade(
            says("contactor moving", BmsHvStatus, "OPEN_CONTACTORS+0", main_plus=ContactorState.MOVING),
            ends="HELD_OPEN & CONTACTORS_NOT_OPENING",
        ),
        "not HELD_OPEN & CONTACTORS_NOT_OPENING",
    ),
    Guard(
        "isolation, welds seen",
        "gateway.isolation:Isolation._refuse_weld",
        "work on a plant that cannot be isolated",
        both(by(Isolation, "_refuse_weld", lambda *_: None), by(PlantWatch, "_on_rack", lambda *_: None)),
        upgrade(says("a weld flag", BmsHvStatus, "OPEN_CONTACTORS+0~0.6", weld_plus=True), ends="HELD_OPEN"),
        "not HELD_OPEN",
        "the watch",
    ),
    Guard(
        "isolation, discharge",
        "gateway.isolation:Isolation.wait_for_discharge",
        "taking open contactors for a dead link",
        by(Isolation, "wait_for_discharge", lambda _: _nothing()),
        upgrade("plant:link-charged@0", ends="HELD_OPEN", tells=""),
        "HV_OFF_NOT_PROVED",
    ),
)


async def _nothing() -> None:
    """Nothing is waited for."""


# --- the watch ------------------------------------------------------------------------------------------------


def _unseen(handler: str, **good: object) -> Off:
    """The watch takes these fields for good."""

    def make(original: Callable[..., object]) -> object:
        def on_message(watch: PlantWatch, received: object) -> None:
            message = replace(received.message, **good)  # type: ignore[attr-defined]
            original(watch, type(received)(message, received.index, received.at, received.verdict))  # type: ignore[attr-defined,call-arg]

        return on_message

    return around(PlantWatch, handler, make)


def _watched(what: str, handler: str, kind: type[Message], name: str, bad: Value, good: object) -> Guard:
    return Guard(
        f"watch, {what}",
        f"gateway.watch:PlantWatch.{handler}",
        "going on, and reconnecting, after this was seen once",
        _unseen(handler, **{name: good}),
        upgrade(saying(what, kind, "PROGRAM+0.2~0.3", {name: bad}), ends="HELD_OPEN", site=LONG),
        "not HELD_OPEN",
    )


def _watch() -> Iterator[Guard]:
    yield _watched("emergency stop of the PCS", "_on_pcs", PcsStatus, "emergency_stop", True, False)
    yield _watched("PCS in fault", "_on_pcs", PcsStatus, "state", PcsState.FAULT, PcsState.STANDBY)
    yield _watched("emergency stop of a rack", "_on_rack", BmsHvStatus, "emergency_stop", True, False)
    yield _watched("interlock loop of a rack", "_on_rack", BmsHvStatus, "hvil_closed", False, True)
    yield _watched("fire alarm", "_on_alarms", BmsAlarms, "fire", True, False)
    yield _watched("insulation alarm", "_on_alarms", BmsAlarms, "insulation", True, False)
    yield _watched("weld alarm", "_on_alarms", BmsAlarms, "weld", True, False)
    yield Guard(
        "watch, weld flag",
        "gateway.watch:PlantWatch._on_rack",
        "closing on a contactor that welded",
        both(_unseen("_on_rack", weld_plus=False), may_close("CONTACTOR_WELDED")),
        upgrade(says("a weld flag", BmsHvStatus, "RECONNECT+0.3~0.2", weld_plus=True), ends="HELD_OPEN"),
        "not HELD_OPEN",
        RULES,
    )
    yield Guard(
        "watch, another gateway",
        "gateway.watch:PlantWatch._on_foreign_notice",
        "two gateways at one plant",
        by(PlantWatch, "_on_foreign_notice", lambda *_: None),
        upgrade("bus:second-gateway@PROGRAM+0.2~0.3", ends="HELD_OPEN OTHER_GATEWAY", site=LONG),
        "not HELD_OPEN OTHER_GATEWAY",
    )
    yield Guard(
        "watch, foreign orders",
        "gateway.watch:PlantWatch._on_foreign",
        "going on while somebody else sends our orders",
        both(by(PlantWatch, "_on_foreign", lambda *_: None), without("ID_CONFLICT"), may_close("ID_CONFLICT")),
        upgrade("bus:foreign@PROGRAM+0.2~0.3", ends="HELD_OPEN ID_CONFLICT", site=LONG),
        "not HELD_OPEN ID_CONFLICT",
        RULES,
    )


# --- trial and confirmation -------------------------------------------------------------------------------------


def _sees_nothing(original: Callable[..., object]) -> object:
    async def see_it_run(node: NodeUpgrade, state: ImageState, within_s: float, *, reverted: bool = False) -> None:
        from ess_can.bus.clock import now, pause

        await pause(1.5)
        node.runs_since = now()

    return see_it_run


def _no_check(original: Callable[..., object]) -> object:
    async def prepare(node: NodeUpgrade) -> None:
        client = await node._unlock()
        await client.authenticate(node._master.access)

    return prepare


def _no_limit(original: Callable[..., object]) -> object:
    async def confirm(upgrade: Upgrade) -> None:
        upgrade._trial_began_at = 1e9
        await original(upgrade)  # type: ignore[misc]

    return confirm


def _no_leftovers(original: Callable[..., object]) -> object:
    async def nothing(upgrade: Upgrade) -> None:
        if upgrade._replan is not None:
            upgrade._take_up(upgrade._plan)

    return nothing


def _not_rolled_back(original: Callable[..., object]) -> object:
    async def roll_back(_settlement: object, cause: EssCanError) -> EssCanError:
        return cause

    return roll_back


def _rolled_back_whatever_comes(original: Callable[..., object]) -> object:
    async def roll_back(settlement: settle.Settlement, cause: EssCanError) -> EssCanError | None:
        settlement._log.enter(Phase.ROLL_BACK)
        return await settlement._take_back(cause)

    return roll_back


TRIAL: Final = (
    Guard(
        "trial, seen to run",
        "gateway.node_upgrade:NodeUpgrade.see_it_run",
        "confirming an image that nobody saw running",
        around(NodeUpgrade, "see_it_run", _sees_nothing),
        upgrade("firmware:comm_gateway:hangs", ends="ROLLED_BACK & does not run", site=COMM_ONLY),
        "not ROLLED_BACK & does not run",
    ),
    Guard(
        "trial, still on trial when confirmed",
        "gateway.node_upgrade:NodeUpgrade.prepare_to_confirm",
        "asking a node that left its trial to confirm, after others did",
        around(NodeUpgrade, "prepare_to_confirm", _no_check),
        upgrade("node:bmu1:reset@TRIAL_BOOT+1.7", ends="ROLLED_BACK & left its trial"),
        "not ROLLED_BACK & left its trial",
    ),
    Guard(
        "trial, identifiers agree",
        "gateway.node_upgrade:NodeUpgrade.see_it_run",
        "going by one word of a node that contradicts itself",
        around(NodeUpgrade, "see_it_run", _sees_nothing),
        upgrade(
            altered(Did.BOOT_STATE, bytes((1, 1, 0, 0, 0, 2, 9, 9)), "TRIAL_BOOT+0.5", BMU1),
            ends="HELD_OPEN",
        ),
        "not HELD_OPEN",
    ),
    Guard(
        "trial, plausible measurements",
        "gateway.plant_view:PlantView.require_plausible",
        "confirming firmware that measures wrongly",
        by(PlantView, "require_plausible", lambda *_: None),
        upgrade("firmware:bmu1:wrong-scale", ends="ROLLED_BACK ROLLED_BACK"),
        "ends DONE",
    ),
    Guard(
        "trial, says all",
        "gateway.plant_view:PlantView.require_plausible",
        "confirming firmware that does not send all its messages",
        by(PlantView, "require_plausible", lambda *_: None),
        upgrade(lost(BmsState, "BMS_State", "TRIAL_BOOT+0.1~5"), ends="ROLLED_BACK ROLLED_BACK"),
        "ends DONE",
    ),
    Guard(
        "trial, limit",
        "gateway.upgrade:Upgrade._confirm_together",
        "confirming some nodes while others give their trial up",
        around(Upgrade, "_confirm_together", _no_limit),
        upgrade(
            "plant:hv-status-bad:1@TRIAL_BOOT+1.5~24",
            "node:bmu1:slow=0.1@CONFIRM+0~1",
            "plant:hv-status-bad:1@CONFIRM+0~25",
            ends="ROLLED_BACK & took too long",
        ),
        "ends DONE",
    ),
    Guard(
        "trial, rolled back",
        "gateway.settle:Settlement._roll_back",
        "leaving a node on firmware that failed its trial",
        around(settle.Settlement, "_roll_back", _not_rolled_back),
        upgrade("firmware:bmu1:wrong-scale", ends="ROLLED_BACK ROLLED_BACK"),
        "not ROLLED_BACK",
    ),
    Guard(
        "trial, no node restarts under high voltage",
        "gateway.isolation:Isolation.signs_of_closed",
        "contactors that drop under load because their BMU restarts",
        both(by(Isolation, "signs_of_closed", lambda _: ""), MAY_RETURN),
        upgrade(
            "gateway:interrupted@TRIAL_BOOT+1.5",
            says("main+ closed", BmsHvStatus, "TRIAL_BOOT+1.2~3", main_plus=ContactorState.CLOSED),
            ends="HELD_OPEN",
        ),
        "not HELD_OPEN",
        STAYS_OFF,
    ),
    Guard(
        "trial, high voltage stays off without a permit",
        "gateway.interlock:Interlock._require_off",
        "confirming, and reconnecting, although somebody closed a rack by hand meanwhile",
        MAY_RETURN,
        upgrade("plant:closed-by-hand:1@TRIAL_BOOT+1.2~0.1", ends="HELD_OPEN & HV_CLOSED"),
        "not HELD_OPEN & HV_CLOSED",
    ),
    Guard(
        "rollback, ended by an emergency",
        "gateway.settle:Settlement._roll_back",
        "restarting nodes, and waiting for them, after an emergency stop",
        around(settle.Settlement, "_roll_back", _rolled_back_whatever_comes),
        upgrade(
            "firmware:bmu1:wrong-scale",
            "node:bmu1:slow=0.4@ROLL_BACK+0~2",
            "plant:emergency-stop:1@ROLL_BACK+0",
            ends="HELD_OPEN & EMERGENCY_STOP & perhaps still on trial",
        ),
        "not HELD_OPEN & EMERGENCY_STOP & perhaps still on trial",
    ),
)


GUARDS: Final = (*ISOLATION, *_watch(), *TRIAL)
