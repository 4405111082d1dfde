"""A hostile client that holds the secret: what runs of guards of a node are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from ess_can.bus.clock import pause
from ess_can.identity import NodeAddress
from ess_can.sim.loop import run_virtual
from tests.campaign.guard import Guard, Off, Run, words_of
from tests.scenario.support import BMU1, QUICK, Scene, small_plant
from tests.scenario.test_direct_client import (
    BY_HAND,
    Attacker,
)

Script = Callable[[Attacker, Scene], Awaitable[None]]


def attack(text: str, script: Script, *, node: NodeAddress = BMU1, racks: int = 1) -> Run:
    """A hostile client; what it gets for an answer that it must not get is wrong, and so is every broken rule."""

    async def attacked() -> str:
        plant = small_plant(replace(QUICK, racks=racks))
        plant.start()
        scene = Scene(plant)
        await pause(1.2)
        found = []
        try:
            await script(Attacker(plant, node), scene)
        except AssertionError as error:
            found.append(words_of(error))
        await pause(0.5)
        scene.monitors.finish()
        found += [str(violation) for violation in scene.monitors.violations if violation.invariant not in BY_HAND]
        plant.stop()
        return "; ".join(found)

    return Run(f"a hostile client, {text}", lambda: run_virtual(attacked()))


ANSWERS: Final = "the node does not refuse"


async def refused(attacker: Attacker, request: str, refusal: str) -> None:
    """The answer must be this."""
    answer = await attacker.ask(request)
    if answer != refusal:
        raise AssertionError(f"{ANSWERS} with {refusal} but answers {answer[:12]}")


def node_guard(
    name: str, where: str, prevents: str, off: Off, text: str, script: Script, node: NodeAddress = BMU1
) -> Guard:
    return Guard(f"node, {name}", where, prevents, off, attack(text, script, node=node), ANSWERS)
