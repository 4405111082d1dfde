"""Guards of a node against whoever talks to it: a hostile client that holds the secret, and nobody's gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import ess_can.uds.server as server
from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.identity import NodeAddress
from ess_can.signals.messages import PcsCommandCode
from ess_can.sim.comm_gateway import CommGatewayApplication
from ess_can.sim.flash_queue import FlashQueue
from ess_can.sim.hv_control import RackControl
from ess_can.sim.hv_evidence import PcsEvidence
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import SimulatedNode
from ess_can.sim.programming import ProgrammingMemory
from ess_can.uds.access import AccessGuard
from ess_can.uds.rules import ROUTINES, SERVICE_SESSIONS, SESSION_ENTRY, Session, Sid
from ess_can.uds.server import UdsServerSession
from ess_can.uds.target import Nrc, Rid
from ess_can.uds.transfer import TRANSITIONS, DataTransfer, Step
from tests.campaign.guard import Guard, Off, Run, around, both, by, first
from tests.scenario.support import BMU1, COMM_GATEWAY, QUICK, Scene, fill_inactive_banks, small_plant
from tests.scenario.test_direct_client import (
    BY_HAND,
    CHECK,
    DOWNLOAD,
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

Script = Callable[[Attacker, Scene], Awaitable[None]]
_ALL: Final = frozenset(Session)


def attack(text: str, script: Script, *, node: NodeAddress = BMU1) -> Run:
    """A hostile client; what it gets for an answer that it must not get is wrong, and so is every broken rule."""

    async def attacked() -> str:
        plant = small_plant(replace(QUICK, racks=1))
        plant.start()
        scene = Scene(plant)
        await pause(1.2)
        found = []
        try:
            await script(Attacker(plant, node), scene)
        except AssertionError as error:
            found.append(str(error).splitlines()[0])
        await pause(0.5)
        scene.monitors.finish()
        found += [str(violation) for violation in scene.monitors.violations if violation.invariant not in BY_HAND]
        plant.stop()
        return "; ".join(found)

    return Run(f"a hostile client, {text}", lambda: run_virtual(attacked()))


async def refused(attacker: Attacker, request: str, refusal: str) -> None:
    """The answer must be this."""
    answer = await attacker.ask(request)
    if answer != refusal:
        raise AssertionError(f"answers {answer[:12]}, not {refusal}")


_ANSWERS: Final = "answers"


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


def _ungated_routine(rid: Rid) -> Off:
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
        _ANSWERS,
    )


_GATES: Final = (
    _gate("erase", _ungated_routine(Rid.ERASE_MEMORY), enter, ERASE, "7f3122"),
    _gate(
        "download",
        _ungated("_request_download"),
        announce,
        "34004400000000" + len(NEW_IMAGE).to_bytes(4, "big").hex(),
        "7f3422",
    ),
    _gate("transfer", _ungated("_transfer_data"), begin_download, "3601" + "00" * 64, "7f3622"),
    _gate("exit", _ungated("_request_transfer_exit"), send_all, "37", "7f3722"),
    _gate("activation", _ungated_routine(Rid.ACTIVATE_ON_TRIAL), send_and_verify, "3101fd11", "7f3122"),
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

# --- sessions, access, order ----------------------------------------------------------------------------------


def _session(sid: Sid) -> Off:
    return by(server, "SERVICE_SESSIONS", {**SERVICE_SESSIONS, sid: _ALL})


async def _in_extended(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await attacker.ask(EXTENDED)
    await attacker.unlock()
    await refused(attacker, DOWNLOAD, "7f347f")


async def _routine_in_extended(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await attacker.ask(EXTENDED)
    await attacker.unlock()
    await refused(attacker, ERASE, "7f317f")


async def _at_once(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await refused(attacker, PROGRAMMING, "7f107e")


async def _unchecked(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await attacker.ask(EXTENDED)
    await refused(attacker, PROGRAMMING, "7f1022")


async def _locked(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    for request in (EXTENDED, CHECK, PROGRAMMING):
        await attacker.ask(request)
    await refused(attacker, ERASE, "7f3133")


async def _locked_download(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    for request in (EXTENDED, CHECK, PROGRAMMING):
        await attacker.ask(request)
    await refused(attacker, DOWNLOAD, "7f3433")


async def _left_and_back(attacker: Attacker, scene: Scene) -> None:
    await attacker.ask(EXTENDED)
    await attacker.unlock()
    await attacker.ask("1001")
    await attacker.ask(EXTENDED)
    await refused(attacker, "3101fd13", "7f3133")


async def _silent_for_long(attacker: Attacker, _scene: Scene) -> None:
    await attacker.ask(EXTENDED)
    await attacker.unlock()
    await pause(6.0)
    await refused(attacker, "3101fd13", "7f317f")


async def _guesses(attacker: Attacker, _scene: Scene) -> None:
    await attacker.ask(EXTENDED)
    for _ in range(3):
        await attacker.ask("2711")
        await attacker.ask("2712" + "00" * 16)
    await refused(attacker, "2711", "7f2737")


async def _guesses_and_restarts(attacker: Attacker, scene: Scene) -> None:
    await attacker.ask(EXTENDED)
    for _ in range(3):
        await attacker.ask("2711")
        await attacker.ask("2712" + "00" * 16)
    scene.plant.nodes[COMM_GATEWAY].reset(scene.plant.wire.loop.time())
    await pause(2.0)
    await attacker.ask(EXTENDED)
    await refused(attacker, "2711", "7f2737")


async def _one_challenge(attacker: Attacker, _scene: Scene) -> None:
    await attacker.ask(EXTENDED)
    await attacker.ask("2711")
    await attacker.ask("2712" + "00" * 16)
    await refused(attacker, "2712" + "01" * 16, "7f2724")


async def _wrong_key(attacker: Attacker, _scene: Scene) -> None:
    await attacker.ask(EXTENDED)
    await attacker.ask("2711")
    await refused(attacker, "2712" + "00" * 16, "7f2735")


async def _wrong_counter(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await enter(attacker)
    await begin_download(attacker)
    await refused(attacker, "3602" + "00" * 64, "7f3673")


async def _elsewhere(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await enter(attacker)
    await announce(attacker)
    await refused(attacker, "34004400001000" + (len(NEW_IMAGE) - 0x1000).to_bytes(4, "big").hex(), "7f3431")


async def _too_large(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await enter(attacker)
    await refused(attacker, "3101ff00" + "7fffffff" + "11" * 32, "7f3131")


async def _unverified(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await enter(attacker)
    await send_all(attacker)
    await attacker.ask("37")
    await refused(attacker, "3101fd11", "7f3124")


async def _incomplete(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await enter(attacker)
    await begin_download(attacker)
    await attacker.ask("3601" + NEW_IMAGE[:1024].hex())
    await refused(attacker, "37", "7f3724")


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
            raise AssertionError("answers by closing a contactor")


def _not_locked_again(original: Callable[..., object]) -> object:
    def lock(guard: AccessGuard) -> None:
        unlocked = getattr(guard, "unlocked", False)
        original(guard)
        guard.unlocked = unlocked

    return lock


def _keeps_challenge(original: Callable[..., object]) -> object:
    def send_key(guard: AccessGuard, key: bytes, now: float) -> object:
        challenge = guard._challenge
        answer = original(guard, key, now)
        guard._challenge = challenge
        return answer

    return send_key


def _any_place(original: Callable[..., object]) -> object:
    def begin(memory: ProgrammingMemory, address: int, size: int, now: float) -> object:
        memory._resume_offset = lambda _record: address  # type: ignore[method-assign,assignment]
        return original(memory, address, size, now)

    return begin


def _transfer_order(step: Step) -> Off:
    """A step may come in every state."""
    from ess_can.uds import transfer

    def allowed() -> dict[object, object]:
        result: dict[object, object] = {}
        for state, steps in TRANSITIONS.items():
            after = steps[step]
            result[state] = {**steps, step: state if isinstance(after, Nrc) else after}
        return result

    return by(transfer, "TRANSITIONS", allowed())


def _guard(
    name: str, where: str, prevents: str, off: Off, text: str, script: Script, node: NodeAddress = BMU1
) -> Guard:
    return Guard(f"node, {name}", where, prevents, off, attack(text, script, node=node), _ANSWERS)


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
    _guard(
        "its own sensors",
        "sim.hv_control:RackControl.programming_allowed",
        "a node that believes whoever asks",
        by(RackControl, "programming_allowed", lambda *_: True),
        "high voltage is on",
        _closed,
    ),
    _guard(
        "what the PCS says",
        "sim.hv_evidence:PcsEvidence.held_open",
        "programming while the PCS may close at any moment",
        by(PcsEvidence, "held_open", lambda *_: True),
        "the PCS is not locked",
        _unlocked_pcs,
    ),
    _guard(
        "gate of the comm gateway",
        "sim.comm_gateway:CommGatewayApplication.programming_allowed",
        "programming the comm gateway under high voltage",
        by(CommGatewayApplication, "programming_allowed", lambda *_: True),
        "high voltage is on",
        _closed,
        COMM_GATEWAY,
    ),
    _guard(
        "session of a service",
        "uds.rules:SERVICE_SESSIONS",
        "writing outside of the programming session",
        _session(Sid.REQUEST_DOWNLOAD),
        "a download in the extended session",
        _in_extended,
    ),
    _guard(
        "session of a routine",
        "uds.rules:ROUTINES",
        "erasing outside of the programming session",
        by(server, "ROUTINES", {**ROUTINES, Rid.ERASE_MEMORY: replace(ROUTINES[Rid.ERASE_MEMORY], sessions=_ALL)}),
        "an erase in the extended session",
        _routine_in_extended,
    ),
    _guard(
        "entry of the programming session",
        "uds.rules:SESSION_ENTRY",
        "programming without a step in which everything is checked",
        both(by(server, "SESSION_ENTRY", {**SESSION_ENTRY, Session.PROGRAMMING: _ALL})),
        "programming at once",
        _at_once,
    ),
    _guard(
        "preconditions asked first",
        "uds.server:UdsServerSession._diagnostic_session_control",
        "programming by a client that did not check",
        first(
            UdsServerSession,
            "_diagnostic_session_control",
            lambda session, *_: setattr(session, "_preconditions_checked", True),
        ),
        "programming without the check",
        _unchecked,
    ),
    _guard(
        "security access of a routine",
        "uds.server:UdsServerSession._routine_control",
        "erasing by somebody without the secret",
        by(server, "ROUTINES", {**ROUTINES, Rid.ERASE_MEMORY: replace(ROUTINES[Rid.ERASE_MEMORY], unlocked=False)}),
        "an erase without a key",
        _locked,
    ),
    _guard(
        "security access of a download",
        "uds.server:UdsServerSession._request_download",
        "writing by somebody without the secret",
        first(UdsServerSession, "_request_download", lambda session, *_: setattr(session._guard, "unlocked", True)),
        "a download without a key",
        _locked_download,
    ),
    _guard(
        "locked by a change of session",
        "uds.access:AccessGuard.lock",
        "a key that unlocks for ever",
        around(AccessGuard, "lock", _not_locked_again),
        "a session left and entered again",
        _left_and_back,
    ),
    _guard(
        "S3",
        "uds.server:UdsServerSession.tick",
        "an unlocked session that its client has forgotten",
        first(UdsServerSession, "tick", lambda session, _now: setattr(session, "_s3_at", float("inf"))),
        "silence for six seconds",
        _silent_for_long,
    ),
    _guard(
        "wrong key",
        "uds.access:AccessGuard.send_key",
        "unlocking without the secret",
        by(AccessGuard, "send_key", lambda guard, _key, _now: setattr(guard, "unlocked", True)),
        "a wrong key",
        _wrong_key,
    ),
    _guard(
        "delay after wrong keys",
        "uds.access:AccessGuard._delayed",
        "guessing keys",
        by(AccessGuard, "_delayed", lambda *_: False),
        "three wrong keys",
        _guesses,
    ),
    _guard(
        "delay over a restart",
        "uds.access:AccessGuard._keep",
        "guessing keys with restarts in between",
        around(AccessGuard, "_keep", lambda _: lambda guard, state: setattr(guard, "_state", state)),
        "three wrong keys and a restart",
        _guesses_and_restarts,
        COMM_GATEWAY,
    ),
    _guard(
        "one key to a challenge",
        "uds.access:AccessGuard.send_key",
        "many guesses at one challenge",
        around(AccessGuard, "send_key", _keeps_challenge),
        "two keys to a challenge",
        _one_challenge,
    ),
    _guard(
        "block counter",
        "uds.transfer:DataTransfer.block_refusal",
        "an image with a block left out",
        by(DataTransfer, "block_refusal", lambda *_: None),
        "a block out of sequence",
        _wrong_counter,
    ),
    _guard(
        "place of a download",
        "sim.programming:ProgrammingMemory.begin_download",
        "an image with a hole",
        around(ProgrammingMemory, "begin_download", _any_place),
        "a download that begins elsewhere",
        _elsewhere,
    ),
    _guard(
        "size of an image",
        "sim.programming:ProgrammingMemory.erase",
        "writing beyond the slot",
        around(
            ProgrammingMemory,
            "erase",
            lambda was: lambda memory, size, digest, now: was(memory, min(size, 4096), digest, now),
        ),
        "an image that is too large",
        _too_large,
    ),
    _guard(
        "verified before it is activated",
        "uds.transfer:TRANSITIONS, sim.programming:ProgrammingMemory.activate_on_trial",
        "booting what nobody read back",
        both(
            _transfer_order(Step.ACTIVATE),
            first(
                ProgrammingMemory,
                "activate_on_trial",
                lambda memory, _now: setattr(memory, "_verified", memory._resume_record().image),
            ),
        ),
        "activation without verification",
        _unverified,
    ),
    _guard(
        "complete before it ends",
        "uds.server:UdsServerSession._request_transfer_exit",
        "an image with its end missing",
        both(
            by(DataTransfer, "complete", property(lambda _: True)),
            first(
                ProgrammingMemory,
                "end_download",
                lambda memory, _now: setattr(memory._download, "received", memory._download.image.size),
            ),
        ),
        "a transfer that ends too early",
        _incomplete,
    ),
    _guard(
        "restart under load",
        "sim.hv_control:RackControl.reset_allowed",
        "contactors that drop because their BMU restarts",
        by(RackControl, "reset_allowed", lambda *_: True),
        "a restart of a closed rack",
        _restart,
    ),
    _guard(
        "held open in a session",
        "sim.node:SimulatedNode._update_hold",
        "high voltage on a rack that is being programmed",
        by(SimulatedNode, "_update_hold", lambda _: None),
        "orders to close in a session",
        _closes,
    ),
)
