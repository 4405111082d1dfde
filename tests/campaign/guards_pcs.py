"""Guards of the PCS: what keeps it safe when the orders are wrong, or nobody orders any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode, PcsState, UpgradePhase
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.pcs import Pcs
from tests.campaign.by_hand import WAITING, by_hand, unlocked
from tests.campaign.guard import Guard, around, by, require
from tests.unit.campaign.monitor_rig import Rig


async def _silent_before_the_pcs(rig: Rig) -> None:
    await rig.isolate()
    rig.command(PcsCommandCode.UNLOCK)
    await pause(0.3)
    rig.command(PcsCommandCode.CLOSE)
    await pause(0.02)
    rig.fall_silent()
    await pause(3.0)


async def _close_locked(rig: Rig) -> None:
    await rig.isolate()
    rig.notice(UpgradePhase.PROGRAMMING)
    await pause(0.1)
    rig.command(PcsCommandCode.CLOSE)
    await pause(1.0)


async def _silent_locked(rig: Rig) -> None:
    await rig.isolate()
    rig.notice(UpgradePhase.PROGRAMMING)
    await pause(0.1)
    rig.fall_silent()
    await pause(1.0)


async def _pressed(rig: Rig) -> None:
    rig.plant.pcs.press_emergency_stop(rig.now)
    await pause(1.0)
    rig.command(PcsCommandCode.UNLOCK)
    await pause(0.3)
    rig.command(PcsCommandCode.CLOSE)
    await pause(1.0)
    require(rig.plant.pcs.state is PcsState.EMERGENCY_STOP, "an emergency stop ends by itself")


async def _pcs_precharged(rig: Rig) -> None:
    await unlocked(rig)
    rig.plant.circuit.racks[0].precharge.fault = ContactorFault.STUCK_OPEN
    await _only_pcs(rig)


async def _only_pcs(rig: Rig) -> None:
    rig.command(PcsCommandCode.CLOSE)
    await pause(1.5)
    require(not rig.plant.circuit.pcs_contactor.closed, "the PCS closes on a link that no rack holds")


def _unlocks(original: Callable[..., object]) -> object:
    def receive(pcs: Pcs, command: EmsPcsCommand, now: float) -> None:
        if command.command is PcsCommandCode.CLOSE:
            pcs.locked = False
        original(pcs, command, now)

    return receive


def _unlocks_without_heartbeat(original: Callable[..., object]) -> object:
    def watch(pcs: Pcs, now: float) -> None:
        original(pcs, now)
        if pcs.heartbeat_lost:
            pcs.locked = False

    return watch


def _clears_itself(original: Callable[..., object]) -> object:
    def receive(pcs: Pcs, command: EmsPcsCommand, now: float) -> None:
        if command.command is PcsCommandCode.UNLOCK:
            pcs.clear("nobody", now)
        original(pcs, command, now)

    return receive


GUARDS: Final = (
    Guard(
        "PCS, heartbeat",
        "sim.pcs:Pcs._watch_heartbeat",
        "closing after the orders have fallen silent",
        by(Pcs, "_watch_heartbeat", lambda *_: None),
        by_hand("the orders fall silent while the PCS closes", _silent_before_the_pcs, spec=WAITING),
        Invariant.HEARTBEAT,
    ),
    Guard(
        "PCS, locked",
        "sim.pcs:Pcs.receive_command",
        "closing in the middle of an upgrade",
        around(Pcs, "receive_command", _unlocks),
        by_hand("an order to close in the middle of an upgrade", _close_locked),
        Invariant.LOCK,
    ),
    Guard(
        "PCS, lock without heartbeat",
        "sim.pcs:Pcs._watch_heartbeat",
        "a plant that closes because its upgrade died",
        around(Pcs, "_watch_heartbeat", _unlocks_without_heartbeat),
        by_hand("the orders fall silent in the middle of an upgrade", _silent_locked),
        Invariant.LOCK,
    ),
    Guard(
        "PCS, emergency stop stays",
        "sim.pcs:Pcs.clear",
        "a PCS that leaves its emergency stop by itself",
        around(Pcs, "receive_command", _clears_itself),
        by_hand("orders after an emergency stop", _pressed, allowed=frozenset(Invariant)),
        "an emergency stop ends by itself",
    ),
    Guard(
        "PCS, link held by a rack",
        "sim.pcs:Pcs._link_precharged",
        "closing onto an empty link",
        by(Pcs, "_link_precharged", lambda *_: True),
        by_hand("an order to close with a precharge that fails", _pcs_precharged),
        "the PCS closes on a link that no rack holds",
    ),
)
