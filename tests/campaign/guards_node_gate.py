"""Guards of a node: its own proof that high voltage is off, whatever its client says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import ess_can.uds.server as server
from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.signals.messages import PcsCommandCode
from ess_can.sim.comm_gateway import CommGatewayApplication
from ess_can.sim.flash_queue import FlashQueue
from ess_can.sim.hv_control import RackControl
from ess_can.sim.hv_evidence import PcsEvidence
from ess_can.sim.node import SimulatedNode
from ess_can.uds.rules import ROUTINES
from ess_can.uds.server import UdsServerSession
from ess_can.uds.target import Rid
from tests.campaign.attacks import ANSWERS, Script, attack, node_guard, refused
from tests.campaign.guard import Guard, Off, around, both, by
from tests.scenario.support import COMM_GATEWAY, Scene, fill_inactive_banks
from tests.scenario.test_direct_client import (
    CHECK,
    ERASE,
    EXTENDED,
    NEW_IMAGE,
    PROGRAMMING,
    Attacker,
    announce,
    begin_download,
    enter,
    isolate,
    send_all,
    send_and_verify,
)

# --- the node's own proof -----------------------------------------------------------------------------------


class _Allowing:
    """A node that says that it may be programmed."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)

    def programming_allowed(self, _now: float) -> bool:
        return True

    def reset_allowed(self, _now: float) -> bool:
        return True


def _ungated(service: str) -> Off:
    """One service does not ask whether high voltage is off."""

    def make(original: Callable[..., object]) -> object:
        def serve(session: UdsServerSession, request: object, now: float) -> object:
            target = session._target
            session._target = _Allowing(target)  # type: ignore[assignment]
            try:
                return original(session, request, now)
            finally:
                session._target = target

        return serve

    return around(UdsServerSession, service, make)


def ungated_routine(rid: Rid) -> Off:
    return by(server, "ROUTINES", {**ROUTINES, rid: replace(ROUTINES[rid], high_voltage_off=False)})


def _while_on(prepare: Callable[[Attacker], Awaitable[None]], request: str, refusal: str) -> Script:
    async def script(attacker: Attacker, scene: Scene) -> None:
        await isolate(scene)
        if prepare is not enter:
            await enter(attacker)
        await prepare(attacker)
        scene.plant.circuit.external_source_v = 700.0
        await scene.until(lambda: scene.monitors.hv_is_on, 1.0)
        await pause(0.3)
        await refused(attacker, request, refusal)

    return script


def _gate(what: str, off: Off, prepare: Callable[[Attacker], Awaitable[None]], request: str, refusal: str) -> Guard:
    return Guard(
        f"node's gate, {what}",
        "uds.server:UdsServerSession",
        f"{what} while the node itself does not see high voltage off",
        off,
        attack(f"{what} when high voltage came back", _while_on(prepare, request, refusal)),
        ANSWERS,
    )


_GATES: Final = (
    _gate("erase", ungated_routine(Rid.ERASE_MEMORY), enter, ERASE, "7f3122"),
    _gate(
        "download",
        _ungated("_request_download"),
        announce,
        "34004400000000" + len(NEW_IMAGE).to_bytes(4, "big").hex(),
        "7f3422",
    ),
    _gate("transfer", _ungated("_transfer_data"), begin_download, "3601" + "00" * 64, "7f3622"),
    _gate("exit", _ungated("_request_transfer_exit"), send_all, "37", "7f3722"),
    _gate("activation", ungated_routine(Rid.ACTIVATE_ON_TRIAL), send_and_verify, "3101fd11", "7f3122"),
    _gate("programming session", _ungated("_diagnostic_session_control"), enter, PROGRAMMING, "7f1022"),
)


async def _comes_back(attacker: Attacker, scene: Scene) -> None:
    fill_inactive_banks(scene.plant)  # there is a lot to erase
    await isolate(scene)
    await enter(attacker)
    await begin_download(attacker)
    scene.plant.circuit.external_source_v = 700.0
    await pause(0.5)


async def _closed(attacker: Attacker, _scene: Scene) -> None:
    await attacker.ask(EXTENDED)
    await refused(attacker, CHECK, "7f3122")


async def _unlocked_pcs(attacker: Attacker, scene: Scene) -> None:
    standing = await isolate(scene)
    standing.command = PcsCommandCode.UNLOCK
    await pause(0.5)
    await _closed(attacker, scene)


def _always(queue: FlashQueue, original: Callable[..., object], begin_at: float, now: float) -> None:
    queue._may_begin = lambda _now: True
    original(queue, begin_at, now)


_OPERATION: Final = around(FlashQueue, "_start_next", lambda was: lambda queue, at, now: _always(queue, was, at, now))


async def _restart(attacker: Attacker, _scene: Scene) -> None:
    await refused(attacker, "1101", "7f1122")


async def _closes(attacker: Attacker, scene: Scene) -> None:
    orders = await isolate(scene)
    await enter(attacker)
    await begin_download(attacker)
    orders.command = PcsCommandCode.UNLOCK
    await pause(0.3)
    orders.command = PcsCommandCode.CLOSE
    for _ in range(20):
        await pause(0.05)
        await attacker.ask("3e00")
        if not scene.all_open:
            raise AssertionError(f"{ANSWERS} and closes a contactor")


GUARDS: Final = (
    *_GATES,
    Guard(
        "node's gate, each flash operation",
        "sim.flash_queue:FlashQueue._start_next",
        "going on to erase and program what was accepted before high voltage came back",
        both(_OPERATION, by(SimulatedNode, "_watch_flash", lambda *_: None)),
        attack("high voltage comes back in the middle of a transfer", _comes_back),
        Invariant.NODE_GATE,
        "the watch of the flash",
    ),
    node_guard(
        "its own sensors",
        "sim.hv_control:RackControl.programming_allowed",
        "a node that believes whoever asks",
        by(RackControl, "programming_allowed", lambda *_: True),
        "high voltage is on",
        _closed,
    ),
    node_guard(
        "what the PCS says",
        "sim.hv_evidence:PcsEvidence.held_open",
        "programming while the PCS may close at any moment",
        by(PcsEvidence, "held_open", lambda *_: True),
        "the PCS is not locked",
        _unlocked_pcs,
    ),
    node_guard(
        "gate of the comm gateway",
        "sim.comm_gateway:CommGatewayApplication.programming_allowed",
        "programming the comm gateway under high voltage",
        by(CommGatewayApplication, "programming_allowed", lambda *_: True),
        "high voltage is on",
        _closed,
        COMM_GATEWAY,
    ),
    node_guard(
        "restart under load",
        "sim.hv_control:RackControl.reset_allowed",
        "contactors that drop because their BMU restarts",
        by(RackControl, "reset_allowed", lambda *_: True),
        "a restart of a closed rack",
        _restart,
    ),
    node_guard(
        "held open in a session",
        "sim.node:SimulatedNode._update_hold",
        "high voltage on a rack that is being programmed",
        by(SimulatedNode, "_update_hold", lambda _: None),
        "orders to close in a session",
        _closes,
    ),
)
