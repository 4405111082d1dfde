"""Guards of the gateway's client: what counts as a node's answer, and what its answer to a giving-up means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import ess_can.uds.client as client
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.station import Station
from ess_can.errors import UdsProtocolError
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.sim.boot_records import ImageId
from ess_can.uds.client import Answered, Failed, UdsClientSession
from ess_can.uds.exchange import Exchange
from tests.campaign.guard import Act, Guard, Run, around, both, by, require, script, upgrade
from tests.campaign.guards_policy import BMU1
from tests.campaign.guards_resume import SAYS_NOTHING, keeps_activation


def _asked(request: str, answer: str, what: str) -> Run:
    """An answer that is none to the request."""

    def ask() -> None:
        session = UdsClientSession()
        session.request(bytes.fromhex(request), 100.0)
        session.sent(100.0)
        require(not isinstance(session.receive(bytes.fromhex(answer), 100.01), Answered | Failed), what)

    return script(f"a node answers {answer} to {request}", ask)


def _any_service(original: Callable[..., object]) -> object:
    def receive(session: UdsClientSession, payload: bytes, now: float) -> object:
        outstanding = session._outstanding
        if outstanding is not None and payload[0] != 0x7F:
            outstanding.payload = bytes([payload[0] & ~0x40]) + outstanding.payload[1:]
        return original(session, payload, now)

    return receive


def _any_refusal(original: Callable[..., object]) -> object:
    def receive(session: UdsClientSession, outstanding: client._Outstanding, payload: bytes, now: float) -> object:
        return original(session, outstanding, payload[:1] + outstanding.payload[:1] + payload[2:], now)

    return receive


def _any_size(original: Callable[..., object]) -> object:
    def decode(exchange: Exchange[object], response: object) -> object:
        try:
            return original(exchange, response)
        except UdsProtocolError:
            return b""

    return decode


def _says_more(station: Station) -> None:
    def alter(answer: bytes) -> bytes:
        return answer + b"\x01" if answer == b"\x71\x01\xfd\x11" else answer

    station.plant.nodes[BMU1].alter_answer = alter


# --- a node that cannot be asked to give its trial up --------------------------------------------------------------


def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()


def _interrupted_activated(station: Station) -> None:
    """The gateway is told to end as soon as bmu1's boot record has the new image, which bmu1 then does not give up."""
    bootloader = station.plant.nodes[BMU1].bootloader
    activate = bootloader.activate_on_trial

    def once(image: ImageId, tries: int) -> None:
        activate(image, tries)
        keeps_activation(station)
        task = station.process.task
        if task is not None:
            station.later(0.0, lambda: _cancel(task))

    bootloader.activate_on_trial = once  # type: ignore[method-assign]


def _takes_its_word(original: Callable[..., object]) -> object:
    async def revert(node: NodeUpgrade) -> None:
        await original(node)  # type: ignore[misc]
        node._master.armed.ended(node.address)

    return revert


_RECEIVE: Final = "uds.client:UdsClientSession.receive"

GUARDS: Final = (
    Guard(
        "client, the service that was asked for",
        _RECEIVE,
        "taking the answer to another request for success",
        around(UdsClientSession, "receive", _any_service),
        _asked("37", "74100402", "the answer to another service counts"),
        "the answer to another service counts",
    ),
    Guard(
        "client, what it was asked for",
        _RECEIVE,
        "taking the answer to an earlier block, or to another routine, for success",
        by(client, "_ECHO_LENGTH", {}),
        _asked("3602aabb", "7601", "the answer to another block counts"),
        "the answer to another block counts",
    ),
    Guard(
        "client, whose refusal",
        "uds.client:UdsClientSession._receive_negative",
        "giving up on the refusal of something else",
        around(UdsClientSession, "_receive_negative", _any_refusal),
        _asked("3101fd12", "7f3622", "the refusal of another service counts"),
        "the refusal of another service counts",
    ),
    Guard(
        "client, nothing more than was defined",
        "uds.exchange:Exchange.decode",
        "taking an answer that may say that it failed for success",
        around(Exchange, "decode", _any_size),
        upgrade(Act("bmu1 answers an activation with a status", "0", _says_more), ends="ROLLED_BACK"),
        "ends DONE",
    ),
    Guard(
        "rolled back, an activation that was not given up",
        "gateway.node_upgrade:NodeUpgrade.see_it_run",
        "closing with a node that boots at its next restart what was rolled back",
        both(around(NodeUpgrade, "revert", _takes_its_word), SAYS_NOTHING),
        upgrade(
            Act("the gateway is interrupted as bmu1 activates, and bmu1 keeps it", "0", _interrupted_activated),
            ends="HELD_OPEN & may still boot",
        ),
        Invariant.LOCK,
        "what nodes say of themselves",
    ),
)
