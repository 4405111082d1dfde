"""A client that knows nothing of our gateway's rules, on a plant that runs: the nodes guard themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.station import StationLink
from ess_can.campaign.monitors import Invariant
from ess_can.identity import NodeAddress
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.uds.access import CmacAccess
from tests.scenario.support import BMU1, COMM_GATEWAY, NONE, OLD, QUICK, Scene, require_only, small_plant

CHECK, EXTENDED, PROGRAMMING = "31010203", "1003", "1002"
ERASE = "3101ff00" + "00001000" + "11" * 32
DOWNLOAD = "340044" + "00000000" + "00001000"


class Attacker:
    """Sends what it likes to one node, with the secret in its hands."""

    def __init__(self, plant: Plant, node: NodeAddress) -> None:
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._channel = IsoTpChannel(
            plant.wire.controller("attacker"),
            IsoTpAddress(*plant.codec.diagnostic_ids(node)),
            IsoTpParams(),
            on_message=lambda payload, _: self._answers.put_nowait(payload),
            on_error=lambda _: None,
        )

    async def ask(self, request: str) -> str:
        await self._channel.send(bytes.fromhex(request))
        async with asyncio.timeout(30.0):
            while True:
                answer = await self._answers.get()
                if answer[:1] != b"\x7f" or answer[2] != 0x78:
                    return answer.hex()

    async def unlock(self) -> None:
        serial = bytes.fromhex(await self.ask("22f18c"))[3:]
        challenge = bytes.fromhex(await self.ask("2711"))[2:]
        key = CmacAccess(TEST_ONLY_ACCESS_SECRET).answer(challenge, serial)
        assert await self.ask("2712" + key.hex()) == "6712"


def attack(
    node: NodeAddress,
    script: Callable[[Attacker, Scene], Awaitable[None]],
    *,
    running: bool = True,
    breaks: frozenset[Invariant] = NONE,
) -> None:
    async def run() -> None:
        plant = small_plant(replace(QUICK, running=running))
        plant.start()
        scene = Scene(plant)
        await pause(1.2)
        await script(Attacker(plant, node), scene)
        await pause(1.0)
        scene.monitors.finish()
        require_only(scene.monitors, breaks)
        assert all(version == OLD for version in plant.versions().values())
        plant.stop()

    run_virtual(run())


@pytest.mark.parametrize("node", [BMU1, COMM_GATEWAY])
def test_with_high_voltage_on_a_node_refuses_to_be_programmed(node: NodeAddress) -> None:
    async def script(attacker: Attacker, scene: Scene) -> None:
        assert await attacker.ask(EXTENDED) == "5003003201f4"
        assert await attacker.ask(CHECK) == "7f3122"
        assert await attacker.ask(PROGRAMMING) == "7f1022"
        await attacker.unlock()
        assert await attacker.ask(ERASE) == "7f317f"
        assert await attacker.ask(DOWNLOAD) == "7f347f"
        assert not scene.monitors.operations
        assert scene.all_connected

    attack(node, script)


def test_a_rack_under_voltage_refuses_to_restart() -> None:
    async def script(attacker: Attacker, scene: Scene) -> None:
        assert await attacker.ask(EXTENDED) == "5003003201f4"
        assert await attacker.ask("1101") == "7f1122"
        await pause(1.0)
        assert scene.plant.nodes[BMU1].boots == 1
        assert scene.all_connected

    attack(BMU1, script)


@pytest.mark.parametrize("node", [BMU1, COMM_GATEWAY])
def test_a_node_in_programming_session_refuses_as_soon_as_high_voltage_returns(node: NodeAddress) -> None:
    """Erase and RequestDownload: conditionsNotCorrect by the node itself, whatever it allowed before."""

    async def script(attacker: Attacker, scene: Scene) -> None:
        await isolate(scene)
        assert await attacker.ask(EXTENDED) == "5003003201f4"
        assert await attacker.ask(CHECK) == "71010203"
        assert await attacker.ask(PROGRAMMING) == "5002003201f4"
        await attacker.unlock()
        scene.plant.circuit.external_source_v = 700.0
        await pause(0.2)
        assert scene.monitors.hv_is_on
        assert await attacker.ask(ERASE) == "7f3122"
        scene.plant.circuit.external_source_v = None
        await scene.until(lambda: not scene.monitors.hv_is_on, 10.0)
        await pause(0.6)
        assert await attacker.ask(ERASE) == "7101ff00"
        scene.plant.circuit.external_source_v = 700.0
        await pause(0.2)
        assert await attacker.ask(DOWNLOAD) == "7f3422"

    # The orders by hand come from nobody who had asked the nodes.
    attack(node, script, breaks=frozenset({Invariant.READ_FIRST}))


async def isolate(scene: Scene) -> None:
    """High voltage off by orders alone, repeated as a gateway does."""
    link = StationLink(scene.gateway, scene.plant.codec)
    order = PcsCommandCode.ZERO_POWER

    def send(_at: float) -> None:
        link.send(EmsPcsCommand(order))

    Cycle(0.05, send).start()
    await pause(1.0)
    order = PcsCommandCode.OPEN
    await scene.until(lambda: scene.all_open, 2.0)
    order = PcsCommandCode.LOCK
    await scene.until(lambda: not scene.monitors.hv_is_on, 10.0)
    await pause(0.6)


def test_guessing_keys_is_stopped_and_a_restart_does_not_help() -> None:
    async def script(attacker: Attacker, scene: Scene) -> None:
        await attacker.ask(EXTENDED)
        answers = []
        for _ in range(3):
            await attacker.ask("2711")
            answers.append(await attacker.ask("2712" + "00" * 16))
        assert answers == ["7f2735", "7f2735", "7f2736"]
        assert await attacker.ask("2711") == "7f2737"
        node = scene.plant.nodes[COMM_GATEWAY]
        node.reset(scene.plant.wire.loop.time())
        await pause(2.0)
        await attacker.ask(EXTENDED)
        assert await attacker.ask("2711") == "7f2737"

    attack(COMM_GATEWAY, script)
