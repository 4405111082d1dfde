"""Tools of others on the kernel's ISO-TP against our BMU, which is behind its own core on vcan0."""

from __future__ import annotations

import asyncio

import isotp
from udsoncan.client import Client
from udsoncan.connections import IsoTPSocketConnection
from udsoncan.typing import ClientConfig

from ess_can.bus.clock import pause, until
from ess_can.identity import NodeType
from ess_can.sim.plant import Plant
from ess_can.uds.target import Did, Rid
from tests.bench.kernel.links import VCAN
from tests.bench.kernel.slow_time import run_slowly
from tests.bench.kernel.stations import high_voltage_off, opened, station
from tests.scenario.support import BMU1, NEW, OLD, image
from tests.support.uds_tester import CONFIG, program, read, unlock

LIMIT_S = 60.0
_SLOW: ClientConfig = {**CONFIG}  # its seconds are not the plant's
_SLOW["p2_timeout"] = 20
_SLOW["p2_star_timeout"] = 40
_SLOW["use_server_timing"] = False


async def asked(plant: Plant, request: bytes) -> bytes:
    """What can-utils' isotpsend and isotprecv have to do with each other: one asks, the other one gets the answer."""
    tx, rx = (f"{can_id:03X}" for can_id in plant.codec.diagnostic_ids(BMU1))
    receiver = await asyncio.create_subprocess_exec(
        "isotprecv", "-s", tx, "-d", rx, "-p", "CC:CC", VCAN, stdout=asyncio.subprocess.PIPE
    )
    assert receiver.stdout is not None
    await pause(0.3)  # it says nothing when it listens; it is asked again below if it was too late
    try:
        for _ in range(5):
            sender = await asyncio.create_subprocess_exec(
                "isotpsend", "-s", tx, "-d", rx, "-p", "CC:CC", VCAN, stdin=asyncio.subprocess.PIPE
            )
            await sender.communicate(request.hex(" ").encode() + b"\n")
            assert sender.returncode == 0
            try:
                async with asyncio.timeout(3.0):
                    return bytes.fromhex((await receiver.stdout.readline()).decode())
            except TimeoutError:
                continue
        raise AssertionError("no answer")
    finally:
        if receiver.returncode is None:
            receiver.kill()
        await receiver.wait()


def read_and_program(plant: Plant) -> None:
    """In a thread of its own: udsoncan blocks."""
    tx, rx = plant.codec.diagnostic_ids(BMU1)
    socket = isotp.socket(timeout=0.1)
    socket.set_opts(txpad=0xCC)
    connection = IsoTPSocketConnection(VCAN, isotp.Address(txid=tx, rxid=rx), tpsock=socket)
    with Client(connection, config=_SLOW) as client:
        assert read(client, Did.SOFTWARE_VERSION) == str(OLD)
        program(client, image(NodeType.BMU, NEW, 8))


def confirm(plant: Plant) -> None:
    tx, rx = plant.codec.diagnostic_ids(BMU1)
    connection = IsoTPSocketConnection(VCAN, isotp.Address(txid=tx, rxid=rx))
    with Client(connection, config=_SLOW) as client:
        assert read(client, Did.SOFTWARE_VERSION) == str(NEW)
        client.change_session(3)
        unlock(client)
        client.start_routine(int(Rid.CONFIRM_IMAGE))


def test_they_read_and_program_our_bmu() -> None:
    async def run() -> None:
        async with station(VCAN) as behind, opened(VCAN) as bus:
            plant = behind.plant
            assert await asked(plant, b"\x22\xf1\x89") == b"\x62\xf1\x89" + str(OLD).encode()
            answer = await asked(plant, bytes((0x22, *int(Did.DBC_FINGERPRINT).to_bytes(2, "big"))))  # segmented
            assert answer[3:] == plant.codec.sha256
            node = plant.nodes[BMU1]
            async with high_voltage_off(plant, bus):
                await asyncio.to_thread(read_and_program, plant)
                assert await until(lambda: node.running and node.memory.version == NEW, LIMIT_S)
                assert node.memory.standing.name == "TRIAL"
                await pause(2.0)  # it proves itself
                await asyncio.to_thread(confirm, plant)
                assert node.memory.standing.name == "CONFIRMED"

    run_slowly(run())
