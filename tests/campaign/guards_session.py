"""Guards of a node against whoever talks to it: sessions, access, and the order of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import ess_can.uds.server as server
from ess_can.bus.clock import pause
from ess_can.sim.programming import ProgrammingMemory
from ess_can.uds.access import AccessGuard
from ess_can.uds.rules import ROUTINES, SERVICE_SESSIONS, SESSION_ENTRY, Session, Sid
from ess_can.uds.server import UdsServerSession
from ess_can.uds.target import Nrc, Rid
from ess_can.uds.transfer import TRANSITIONS, DataTransfer, Step
from tests.campaign.attacks import node_guard, refused
from tests.campaign.guard import Off, around, both, by, first
from tests.scenario.support import COMM_GATEWAY, Scene
from tests.scenario.test_direct_client import (
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
)

_ALL: Final = frozenset(Session)


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


GUARDS: Final = (
    node_guard(
        "session of a service",
        "uds.rules:SERVICE_SESSIONS",
        "writing outside of the programming session",
        _session(Sid.REQUEST_DOWNLOAD),
        "a download in the extended session",
        _in_extended,
    ),
    node_guard(
        "session of a routine",
        "uds.rules:ROUTINES",
        "erasing outside of the programming session",
        by(server, "ROUTINES", {**ROUTINES, Rid.ERASE_MEMORY: replace(ROUTINES[Rid.ERASE_MEMORY], sessions=_ALL)}),
        "an erase in the extended session",
        _routine_in_extended,
    ),
    node_guard(
        "entry of the programming session",
        "uds.rules:SESSION_ENTRY",
        "programming without a step in which everything is checked",
        both(by(server, "SESSION_ENTRY", {**SESSION_ENTRY, Session.PROGRAMMING: _ALL})),
        "programming at once",
        _at_once,
    ),
    node_guard(
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
    node_guard(
        "security access of a routine",
        "uds.server:UdsServerSession._routine_control",
        "erasing by somebody without the secret",
        by(server, "ROUTINES", {**ROUTINES, Rid.ERASE_MEMORY: replace(ROUTINES[Rid.ERASE_MEMORY], unlocked=False)}),
        "an erase without a key",
        _locked,
    ),
    node_guard(
        "security access of a download",
        "uds.server:UdsServerSession._request_download",
        "writing by somebody without the secret",
        first(UdsServerSession, "_request_download", lambda session, *_: setattr(session._guard, "unlocked", True)),
        "a download without a key",
        _locked_download,
    ),
    node_guard(
        "locked by a change of session",
        "uds.access:AccessGuard.lock",
        "a key that unlocks for ever",
        around(AccessGuard, "lock", _not_locked_again),
        "a session left and entered again",
        _left_and_back,
    ),
    node_guard(
        "S3",
        "uds.server:UdsServerSession.tick",
        "an unlocked session that its client has forgotten",
        first(UdsServerSession, "tick", lambda session, _now: setattr(session, "_s3_at", float("inf"))),
        "silence for six seconds",
        _silent_for_long,
    ),
    node_guard(
        "wrong key",
        "uds.access:AccessGuard.send_key",
        "unlocking without the secret",
        by(AccessGuard, "send_key", lambda guard, _key, _now: setattr(guard, "unlocked", True)),
        "a wrong key",
        _wrong_key,
    ),
    node_guard(
        "delay after wrong keys",
        "uds.access:AccessGuard._delayed",
        "guessing keys",
        by(AccessGuard, "_delayed", lambda *_: False),
        "three wrong keys",
        _guesses,
    ),
    node_guard(
        "delay over a restart",
        "uds.access:AccessGuard._keep",
        "guessing keys with restarts in between",
        around(AccessGuard, "_keep", lambda _: lambda guard, state: setattr(guard, "_state", state)),
        "three wrong keys and a restart",
        _guesses_and_restarts,
        COMM_GATEWAY,
    ),
    node_guard(
        "one key to a challenge",
        "uds.access:AccessGuard.send_key",
        "many guesses at one challenge",
        around(AccessGuard, "send_key", _keeps_challenge),
        "two keys to a challenge",
        _one_challenge,
    ),
    node_guard(
        "block counter",
        "uds.transfer:DataTransfer.block_refusal",
        "an image with a block left out",
        by(DataTransfer, "block_refusal", lambda *_: None),
        "a block out of sequence",
        _wrong_counter,
    ),
    node_guard(
        "place of a download",
        "sim.programming:ProgrammingMemory.begin_download",
        "an image with a hole",
        around(ProgrammingMemory, "begin_download", _any_place),
        "a download that begins elsewhere",
        _elsewhere,
    ),
    node_guard(
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
    node_guard(
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
    node_guard(
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
)
