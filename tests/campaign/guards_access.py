"""Guards of a node's services: in which session, with a key, and how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import ess_can.uds.server as server
from ess_can.sim.programming import ProgrammingMemory
from ess_can.uds.access import CmacAccess
from ess_can.uds.rules import ROUTINES, SERVICE_SESSIONS, Session, Sid
from ess_can.uds.target import Nrc, Rid
from ess_can.uds.transfer import DataTransfer
from tests.campaign.attacks import Script, node_guard, refused
from tests.campaign.guard import Guard, Off, around, both, by, first
from tests.scenario.support import Scene
from tests.scenario.test_direct_client import (
    CHECK,
    EXTENDED,
    NEW_IMAGE,
    PROGRAMMING,
    Attacker,
    begin_download,
    enter,
    isolate,
)

_ALL: Final = frozenset(Session)


def _asking(request: str, refusal: str, *before: str) -> Script:
    async def ask(attacker: Attacker, scene: Scene) -> None:
        await isolate(scene)
        for each in before:
            await attacker.ask(each)
        await refused(attacker, request, refusal)

    return ask


def _keyless(rid: Rid) -> Off:
    return by(server, "ROUTINES", {**ROUTINES, rid: replace(ROUTINES[rid], unlocked=False)})


def _keys() -> Iterator[Guard]:
    rows = (
        ("activation", Rid.ACTIVATE_ON_TRIAL, (EXTENDED, CHECK, PROGRAMMING)),
        ("confirmation", Rid.CONFIRM_IMAGE, (EXTENDED,)),
        ("giving up a trial", Rid.REVERT_IMAGE, (EXTENDED,)),
    )
    for what, rid, before in rows:
        yield node_guard(
            f"security access of {what}",
            "uds.server:UdsServerSession._routine_control",
            f"{what} by somebody without the secret",
            _keyless(rid),
            f"{what} without a key",
            _asking(f"3101{rid:04x}", "7f3133", *before),
        )


def _sessions() -> Iterator[Guard]:
    rows = (
        ("security access", Sid.SECURITY_ACCESS, "2711", "7f277f", ()),
        ("transfer", Sid.TRANSFER_DATA, "360100", "7f367f", (EXTENDED,)),
        ("exit", Sid.REQUEST_TRANSFER_EXIT, "37", "7f377f", (EXTENDED,)),
    )
    for what, sid, request, refusal, before in rows:
        yield node_guard(
            f"session of {what}",
            "uds.rules:SERVICE_SESSIONS",
            f"{what} outside of its session",
            by(server, "SERVICE_SESSIONS", {**SERVICE_SESSIONS, sid: _ALL}),
            f"{what} in another session",
            _asking(request, refusal, *before),
        )


def _any_serial(original: Callable[..., object]) -> object:
    return lambda access, challenge, _serial: original(access, challenge, b"")


async def _of_another_node(attacker: Attacker, _scene: Scene) -> None:
    """The answer of somebody who has the secret, to a challenge that he takes for another node's."""
    from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET

    await attacker.ask(EXTENDED)
    challenge = bytes.fromhex(await attacker.ask("2711"))[2:]
    key = CmacAccess(TEST_ONLY_ACCESS_SECRET).answer(challenge, b"BMU-000002")
    await refused(attacker, "2712" + key.hex(), "7f2735")


def _too_much(original: Callable[..., object]) -> object:
    def refusal(transfer: DataTransfer, counter: int, length: int) -> object:
        found = original(transfer, counter, length)
        return None if found is Nrc.TRANSFER_DATA_SUSPENDED else found

    return refusal


def _roomy(memory: ProgrammingMemory, *_: object) -> None:
    if memory._download is not None:
        memory._download.image = replace(memory._download.image, size=1 << 20)


async def _overrun(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    await enter(attacker)
    await begin_download(attacker)
    left, counter = len(NEW_IMAGE), 1
    while left >= 1024:
        await attacker.ask(f"36{counter:02x}" + "00" * 1024)
        left, counter = left - 1024, counter + 1
    await refused(attacker, f"36{counter:02x}" + "00" * 1024, "7f3671")


GUARDS: Final = (
    *_keys(),
    *_sessions(),
    node_guard(
        "a key for one node",
        "uds.access:CmacAccess.answer",
        "an answer to one node's challenge that unlocks another",
        around(CmacAccess, "answer", _any_serial),
        "a key that was made for another node",
        _of_another_node,
    ),
    replace(
        node_guard(
            "no more than was announced",
            "uds.transfer:DataTransfer.block_refusal, sim.programming:ProgrammingMemory.write",
            "writing behind an image",
            both(around(DataTransfer, "block_refusal", _too_much), first(ProgrammingMemory, "write", _roomy)),
            "more data than was announced",
            _overrun,
        ),
        behind="the memory's own count",
    ),
)
