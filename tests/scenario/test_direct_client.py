"""A client that knows nothing of our gateway's rules, on a plant that runs: the nodes guard themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from zlib import crc32

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.station import StationLink
from ess_can.campaign.monitors import Invariant
from ess_can.identity import NodeAddress, NodeType
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode, RackState
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant
from ess_can.sim.rack_states import CloseRefusal
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.uds.access import CmacAccess
from tests.scenario.support import BMU1, COMM_GATEWAY, NEW, NONE, OLD, QUICK, Scene, image, require_only, small_plant

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

    attack(node, script, breaks=BY_HAND)


BY_HAND = frozenset({Invariant.READ_FIRST})
"""Orders by hand come from nobody who had asked the nodes."""


@dataclass
class Standing:
    """The order that is repeated."""

    command: PcsCommandCode = PcsCommandCode.ZERO_POWER


async def isolate(scene: Scene) -> Standing:
    """High voltage off by orders alone, repeated as a gateway does."""
    link = StationLink(scene.gateway, scene.plant.codec)
    standing = Standing()

    def send(_at: float) -> None:
        link.send(EmsPcsCommand(standing.command))

    Cycle(0.05, send).start()
    await pause(1.0)
    standing.command = PcsCommandCode.OPEN
    await scene.until(lambda: scene.all_open, 2.0)
    standing.command = PcsCommandCode.LOCK
    await scene.until(lambda: not scene.monitors.hv_is_on, 10.0)
    await pause(0.6)
    return standing


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


# --- every writing service, with session and key, once high voltage is back -----------------------------

NEW_IMAGE = image(NodeType.BMU, NEW, 4)
BLOCK = 1024


async def enter(attacker: Attacker) -> None:
    assert await attacker.ask(EXTENDED) == "5003003201f4"
    assert await attacker.ask(CHECK) == "71010203"
    assert await attacker.ask(PROGRAMMING) == "5002003201f4"
    await attacker.unlock()


async def announce(attacker: Attacker) -> None:
    option = len(NEW_IMAGE).to_bytes(4, "big") + sha256(NEW_IMAGE).digest()
    assert await attacker.ask("3101ff00" + option.hex()) == "7101ff00"


async def begin_download(attacker: Attacker) -> None:
    await announce(attacker)
    assert (await attacker.ask("34004400000000" + len(NEW_IMAGE).to_bytes(4, "big").hex()))[:2] == "74"


async def send_all(attacker: Attacker) -> None:
    await begin_download(attacker)
    for number, at in enumerate(range(0, len(NEW_IMAGE), BLOCK), start=1):
        assert (await attacker.ask(f"36{number:02x}" + NEW_IMAGE[at : at + BLOCK].hex()))[:2] == "76"


async def send_and_verify(attacker: Attacker) -> None:
    await send_all(attacker)
    assert await attacker.ask("37") == "77"
    assert (await attacker.ask("3101fd10" + crc32(NEW_IMAGE).to_bytes(4, "big").hex()))[:8] == "7101fd10"


@pytest.mark.parametrize(
    ("prepare", "request_", "refusal"),
    [
        (enter, ERASE, "7f3122"),
        (announce, "34004400000000" + len(NEW_IMAGE).to_bytes(4, "big").hex(), "7f3422"),
        (begin_download, "3601" + "00" * 64, "7f3622"),
        (send_all, "37", "7f3722"),
        (send_and_verify, "3101fd11", "7f3122"),
        (enter, "3101fd12", "7f3122"),
        (enter, PROGRAMMING, "7f1022"),
    ],
    ids=["erase", "download", "transfer", "exit", "activate", "confirm", "programming session"],
)
def test_every_writing_service_is_refused_while_high_voltage_is_on(
    prepare: Callable[[Attacker], Awaitable[None]], request_: str, refusal: str
) -> None:
    async def script(attacker: Attacker, scene: Scene) -> None:
        await isolate(scene)
        if prepare is not enter:
            await enter(attacker)
        await prepare(attacker)
        scene.plant.circuit.external_source_v = 700.0
        await scene.until(lambda: scene.monitors.hv_is_on, 1.0)
        began = len(scene.monitors.operations)
        for _ in range(3):
            assert await attacker.ask(request_) == refusal
            await pause(0.3)
        assert len(scene.monitors.operations) == began
        assert scene.plant.nodes[BMU1].records.boot.load() is not None

    attack(BMU1, script, breaks=BY_HAND)


@pytest.mark.parametrize("state", ["closed", "precharging", "open and unlocked", "fault"])
def test_in_no_state_of_a_rack_that_is_not_proved_off_can_its_bmu_be_programmed(state: str) -> None:
    async def script(attacker: Attacker, scene: Scene) -> None:
        rack, plant = scene.plant.racks[0], scene.plant
        if state != "closed":
            orders = await isolate(scene)
            if state == "fault":
                plant.hardware[0].insulation_fault = True
            else:
                orders.command = PcsCommandCode.UNLOCK
                await pause(0.3)
            if state == "precharging":
                plant.circuit.racks[0].precharge.fault = ContactorFault.STUCK_OPEN
                orders.command = PcsCommandCode.CLOSE
                await scene.until(lambda: rack.rack_state is RackState.PRECHARGING, 3.0)
            await pause(0.1)
        assert await attacker.ask(EXTENDED) == "5003003201f4"
        assert await attacker.ask(CHECK) == "7f3122"
        assert await attacker.ask(PROGRAMMING) == "7f1022"
        await attacker.unlock()
        assert await attacker.ask("3101fd12") == "7f3122"
        assert not scene.monitors.operations

    attack(BMU1, script, breaks=NONE if state == "closed" else BY_HAND)


def test_a_hostile_ems_cannot_close_a_rack_in_programming_session() -> None:
    async def script(attacker: Attacker, scene: Scene) -> None:
        orders = await isolate(scene)
        await enter(attacker)
        await begin_download(attacker)
        orders.command = PcsCommandCode.UNLOCK
        await pause(0.3)
        orders.command = PcsCommandCode.CLOSE
        circuit = scene.plant.circuit.racks[0]
        for _ in range(80):
            await pause(0.05)
            await attacker.ask("3e00")  # the session lives
            assert not any(contactor.closed for contactor in circuit.contactors)
        assert scene.plant.racks[0].refusal is CloseRefusal.HELD_OPEN
        assert scene.plant.nodes[BMU1].flash.counters.refused == 0

    attack(BMU1, script, breaks=BY_HAND)
