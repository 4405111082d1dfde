"""What speaks against high voltage being off, and that a node must refuse then."""

from __future__ import annotations

from collections.abc import Callable

from ess_can.bus.clock import pause
from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress
from ess_can.signals.messages import BmsHvStatus, Message
from ess_can.sim.wire import WireFault
from tests.campaign.attacks import ANSWERS, Script, attack, refused
from tests.campaign.guard import Guard, Off, Value, require, saying
from tests.scenario.support import BMU1, Scene
from tests.scenario.test_direct_client import CHECK, EXTENDED, Attacker, isolate

Disturb = Callable[[Scene], None]


def _disturbed(disturb: Disturb, for_s: float, heal: Disturb | None, then_s: float) -> Script:
    async def ask(attacker: Attacker, scene: Scene) -> None:
        await isolate(scene)
        await attacker.ask(EXTENDED)
        require(await attacker.ask(CHECK) == "71010203", "the node refuses when nothing speaks against it")
        disturb(scene)
        await pause(for_s)
        if heal is not None:
            heal(scene)
            await pause(then_s)
        await refused(attacker, CHECK, "7f3122")

    return ask


def proof_guard(
    what: str,
    where: str,
    off: Off,
    disturb: Disturb,
    *,
    node: NodeAddress = BMU1,
    racks: int = 1,
    for_s: float = 0.5,
    heal: Disturb | None = None,
    then_s: float = 0.1,
    behind: str = "",
) -> Guard:
    """With this disturbance, `for_s` seconds after it or, if it is healed, `then_s` after that, the node refuses."""
    return Guard(
        f"{node.node_type.name.lower()}'s proof, {what}",
        f"sim.{where}",
        "programming while this speaks against high voltage being off",
        off,
        attack(f"own proof of {node}, {what}", _disturbed(disturb, for_s, heal, then_s), node=node, racks=racks),
        ANSWERS,
        behind,
    )


def pretend(kind: type[Message], name: str, value: Value) -> Disturb:
    """A message has this value in a field, with a valid check."""
    says = saying(name, kind, "0", {name: value})

    def disturb(scene: Scene) -> None:
        codec = scene.plant.codec
        scene.plant.wire.fault = lambda _index, frame: says.altered(codec, frame)

    return disturb


def corrupt(kind: type[Message]) -> Disturb:
    """The checksum of a message is wrong."""

    def disturb(scene: Scene) -> None:
        can_id = scene.plant.codec.route(kind, 1).can_id

        def rule(_index: int, frame: CanFrame) -> CanFrame | None:
            return frame._replace(data=bytes((frame.data[0] ^ 1,)) + frame.data[1:]) if frame.can_id == can_id else None

        scene.plant.wire.fault = rule

    return disturb


def lose_of_rack(number: int) -> Disturb:
    """Nobody receives a rack's status."""

    def disturb(scene: Scene) -> None:
        can_id = scene.plant.codec.route(BmsHvStatus, number).can_id
        scene.plant.wire.fault = lambda _index, frame: WireFault.LOSE if frame.can_id == can_id else None

    return disturb
