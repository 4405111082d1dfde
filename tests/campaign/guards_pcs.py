"""Guards of the PCS: what keeps it safe when the orders are wrong, or nobody orders any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.errors import UsageError
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode, PcsState, UpgradePhase
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.pcs import Pcs
from ess_can.sim.pcs_memory import NoPcsMemory, RecordedPcsMemory
from tests.campaign.by_hand import HEAVY, WAITING, by_hand, unlocked
from tests.campaign.guard import Guard, Off, Run, around, both, by, require
from tests.unit.campaign.monitor_rig import ONE_RACK, Rig


async def _silent_before_the_pcs(rig: Rig) -> None:
    await rig.fall_silent_while_closing(0.02)


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


# --- what it remembers ------------------------------------------------------------------------------------------


async def _restarts_locked(rig: Rig) -> None:
    await rig.isolate()
    rig.notice(UpgradePhase.PROGRAMMING)
    await pause(0.1)
    rig.fall_silent()
    rig.plant.pcs.restart(rig.now)
    await pause(1.0)


async def _restarts_pressed(rig: Rig) -> None:
    pcs = rig.plant.pcs
    pcs.press_emergency_stop(rig.now)
    await pause(0.2)
    pcs.restart(rig.now)
    await pause(1.0)
    require(pcs.state is PcsState.EMERGENCY_STOP, "a restart ends an emergency stop")


async def _cleared_by_nobody(rig: Rig) -> None:
    pcs = rig.plant.pcs
    pcs.press_emergency_stop(rig.now)
    with suppress(UsageError):
        pcs.clear("  ", rig.now)
    require(pcs.state is PcsState.EMERGENCY_STOP, "nobody clears an emergency stop")


async def _cleared_locked(rig: Rig) -> None:
    await rig.isolate()
    rig.notice(UpgradePhase.PROGRAMMING)
    pcs = rig.plant.pcs
    pcs.press_emergency_stop(rig.now)
    pcs.clear("A. Technician", rig.now)
    require(pcs.locked, "clearing a stop unlocks the PCS")


def _forgets_lock(original: Callable[..., object]) -> object:
    return lambda memory, kept: original(memory, replace(kept, locked=False))


def _forgets_button(original: Callable[..., object]) -> object:
    return lambda memory, kept: original(memory, replace(kept, emergency_stop=False))


def _anybody_clears(original: Callable[..., object]) -> object:
    return lambda pcs, by, now: original(pcs, by.strip() or "nobody", now)


def _clear_unlocks(original: Callable[..., object]) -> object:
    def clear(pcs: Pcs, by: str, now: float) -> None:
        original(pcs, by, now)
        pcs.locked = False

    return clear


# --- its contactors, and its link ---------------------------------------------------------------------------------


async def _open_under_load(rig: Rig) -> None:
    await rig.read_all()
    rig.command(PcsCommandCode.OPEN)
    await pause(4.0)
    contactor = rig.plant.circuit.pcs_contactor
    require(not contactor.broken_a, "the PCS opens under load")
    require(not contactor.closed, "the PCS does not open at all")


async def _sensor_lies(rig: Rig) -> None:
    pcs = rig.plant.pcs
    pcs.faults = replace(pcs.faults, current_sensor_stuck=True)
    await _open_under_load(rig)


async def _link_gone(rig: Rig) -> None:
    rig.plant.hardware[0].hvil_closed = False
    await pause(1.0)
    require(rig.plant.pcs.state is PcsState.FAULT, "the PCS runs on a link that is gone")


async def _welded(rig: Rig) -> None:
    rig.plant.circuit.pcs_contactor.fault = ContactorFault.WELDED
    await rig.read_all()
    rig.command(PcsCommandCode.ZERO_POWER)
    await pause(1.0)
    rig.command(PcsCommandCode.OPEN)
    await pause(1.0)
    require(rig.plant.pcs.state is PcsState.FAULT, "the PCS does not see that its contactor stays closed")


async def _acknowledges(rig: Rig) -> None:
    await rig.read_all()
    rig.command(PcsCommandCode.LOCK)
    pcs, contactor = rig.plant.pcs, rig.plant.circuit.pcs_contactor
    for _ in range(100):
        require(not (pcs.lock_acknowledged and contactor.closed), "the PCS says that it is locked, and is closed")
        await pause(0.01)


def _opens_at_once(original: Callable[..., object]) -> object:
    def stand_by(pcs: Pcs, now: float) -> None:
        if pcs._order in (PcsCommandCode.OPEN, PcsCommandCode.LOCK) and pcs._at_zero():
            pcs._drive(False, now)
        original(pcs, now)

    return stand_by


def _pcs(name: str, where: str, prevents: str, off: Off, run: Run, seen: Invariant | str, behind: str = "") -> Guard:
    return Guard(f"PCS, {name}", f"sim.pcs{where}", prevents, off, run, seen, behind)


_ALL: Final = frozenset(Invariant)
_REMEMBERS: Final = replace(ONE_RACK, pcs_keeps_lock=True)
_BY_SENSOR: Final = around(Pcs, "_stand_by", _opens_at_once)

MORE: Final = (
    _pcs(
        "lock survives a restart",
        "_memory:RecordedPcsMemory",
        "a PCS that loses its lock with its power, in the middle of an upgrade",
        around(RecordedPcsMemory, "save", _forgets_lock),
        by_hand("a PCS with a memory restarts while it is locked", _restarts_locked, spec=_REMEMBERS),
        Invariant.LOCK,
    ),
    _pcs(
        "emergency stop survives a restart",
        "_memory:NoPcsMemory",
        "an emergency stop that ends with a loss of power",
        around(NoPcsMemory, "save", _forgets_button),
        by_hand("a PCS restarts in its emergency stop", _restarts_pressed, allowed=_ALL),
        "a restart ends an emergency stop",
    ),
    _pcs(
        "a name is needed to clear",
        ":Pcs.clear",
        "clearing an emergency of which nobody knows who did it",
        around(Pcs, "clear", _anybody_clears),
        by_hand("an emergency stop is cleared by nobody", _cleared_by_nobody, allowed=_ALL),
        "nobody clears an emergency stop",
    ),
    _pcs(
        "clearing leaves the lock",
        ":Pcs.clear",
        "a plant that may close in the middle of an upgrade because somebody cleared a fault",
        around(Pcs, "clear", _clear_unlocks),
        by_hand("an emergency stop is cleared in the middle of an upgrade", _cleared_locked, allowed=_ALL),
        "clearing a stop unlocks the PCS",
    ),
    _pcs(
        "opens at zero current only",
        ":Pcs._stand_by",
        "opening by order under load",
        both(by(Pcs, "_at_zero", lambda _: True), _BY_SENSOR),
        by_hand("an order to open under load, to the PCS", _open_under_load, spec=HEAVY, allowed=_ALL),
        "the PCS opens under load",
        "its own set-point",
    ),
    _pcs(
        "opens by its set-point, too",
        ":Pcs._stand_by",
        "opening under load on the word of a sensor that is stuck",
        _BY_SENSOR,
        by_hand("an order to open under load, and a stuck current sensor", _sensor_lies, spec=HEAVY, allowed=_ALL),
        "the PCS opens under load",
    ),
    _pcs(
        "DC-link trip",
        ":Pcs._link_usable",
        "a bridge that works on a link without a battery",
        by(Pcs, "_link_usable", lambda _: True),
        by_hand("the racks open under a PCS that runs", _link_gone, allowed=_ALL),
        "the PCS runs on a link that is gone",
    ),
    _pcs(
        "contactor follows",
        ":Pcs._watch_contactor",
        "a welded contactor that nobody notices",
        by(Pcs, "_watch_contactor", lambda *_: None),
        by_hand("the PCS's contactor does not open", _welded, allowed=_ALL),
        "the PCS does not see that its contactor stays closed",
    ),
    _pcs(
        "acknowledges what is proved",
        ":Pcs.lock_acknowledged",
        "a lock that is acknowledged before the PCS is open and at rest",
        by(Pcs, "lock_acknowledged", property(lambda pcs: pcs.locked)),
        by_hand("a PCS that runs is locked", _acknowledges, allowed=_ALL),
        "the PCS says that it is locked, and is closed",
    ),
)

GUARDS: Final = (
    *MORE,
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
