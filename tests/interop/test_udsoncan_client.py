"""A stock udsoncan client against our BMU: it reads it, programs it, and has it run the new image."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from udsoncan.client import Client
from udsoncan.connections import BaseConnection
from udsoncan.exceptions import NegativeResponseException, TimeoutException

from ess_can.bus.clock import Cycle, pause, until
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.station import StationLink
from ess_can.identity import NodeType
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.messages import EmsPcsCommand, ImageState, PcsCommandCode
from ess_can.sim.loop import VirtualTimeLoop
from ess_can.sim.plant import Plant
from ess_can.uds.target import Did, Rid
from tests.scenario.support import BMU1, NEW, OLD, QUICK, Scene, image, require_only, small_plant
from tests.support.uds_tester import CONFIG, program, read, unlock

T = TypeVar("T")


class PlantConnection(BaseConnection):
    """Carries a synchronous client's messages to one node, by letting virtual time pass until they are there."""

    def __init__(self, loop: VirtualTimeLoop, plant: Plant) -> None:
        super().__init__("plant")
        self._loop = loop
        self._received: deque[bytes] = deque()
        self._opened = False
        self._channel = IsoTpChannel(
            plant.wire.controller("tester"),
            IsoTpAddress(*plant.codec.diagnostic_ids(BMU1)),
            IsoTpParams(),
            on_message=lambda payload, _: self._received.append(payload),
            on_error=lambda _: None,
        )

    def open(self) -> PlantConnection:
        self._opened = True
        return self

    def close(self) -> None:
        self._opened = False
        self._channel.close()

    def is_open(self) -> bool:
        return self._opened

    def empty_rxqueue(self) -> None:
        self._received.clear()

    def specific_send(self, payload: bytes, timeout: float | None = None) -> None:
        self._loop.run_until_complete(self._channel.send(payload))

    def specific_wait_frame(self, timeout: float | None = 2.0) -> bytes:
        if not self._loop.run_until_complete(until(lambda: bool(self._received), timeout or 0.0)):
            raise TimeoutException(f"no answer within {timeout} s of virtual time")  # type: ignore[no-untyped-call]
        return self._received.popleft()


class Bench:
    """A plant on its own virtual loop, with high voltage taken off by orders alone."""

    def __init__(self) -> None:
        self.loop = VirtualTimeLoop()
        self.run(self._build())

    def run(self, wanted: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(wanted)

    async def _build(self) -> None:
        self.plant = small_plant(replace(QUICK, racks=1))
        self.plant.start()
        self.scene = Scene(self.plant)
        self.connection = PlantConnection(self.loop, self.plant)
        # Not the gateway, of whom more is asked before it commands.
        self._link = StationLink(self.plant.wire.controller("commander"), self.plant.codec)
        self._order = PcsCommandCode.ZERO_POWER
        self._orders = Cycle(0.05, self._send_order)
        await pause(1.0)

    def _send_order(self, _at: float) -> None:
        self._link.send(EmsPcsCommand(self._order))

    async def take_off(self) -> None:
        self._orders.start()
        await pause(1.0)
        self._order = PcsCommandCode.OPEN
        assert await until(lambda: self.scene.all_open, 2.0)
        self._order = PcsCommandCode.LOCK
        assert await until(lambda: not self.scene.monitors.hv_is_on, 10.0)
        await pause(0.6)

    async def _stop(self) -> None:
        self._orders.stop()
        self.scene.monitors.finish()
        self.plant.stop()

    def close(self) -> None:
        self.run(self._stop())
        self.loop.close()
        require_only(self.scene.monitors)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    with Client(bench.connection, config=CONFIG) as made:
        yield made


def test_it_reads_who_the_node_is(bench: Bench, client: Client) -> None:
    assert read(client, Did.SOFTWARE_VERSION) == str(OLD)
    assert read(client, Did.SERIAL_NUMBER) == "BMU-000001"
    assert read(client, Did.NODE_TYPE) == bytes((NodeType.BMU,))
    assert read(client, Did.HARDWARE_NUMBER) == b"\x11"
    assert read(client, Did.DBC_FINGERPRINT) == bench.plant.codec.sha256
    assert read(client, Did.SECURITY_COUNTER) == (1).to_bytes(4, "big")
    assert len(bytes(read(client, Did.BOOT_STATE))) == 14  # type: ignore[call-overload]


def test_it_is_told_that_high_voltage_is_on(client: Client) -> None:
    client.change_session(3)
    with pytest.raises(NegativeResponseException) as caught:
        client.start_routine(int(Rid.CHECK_PROGRAMMING_PRECONDITIONS))
    assert caught.value.response.code == 0x22


def test_it_programs_the_node(bench: Bench, client: Client) -> None:
    bench.run(bench.take_off())
    content = image(NodeType.BMU, NEW, 20)
    program(client, content)
    bench.run(pause(2.0))
    node = bench.plant.nodes[BMU1]
    assert (node.memory.version, node.memory.standing) == (NEW, ImageState.TRIAL)
    assert read(client, Did.SOFTWARE_VERSION) == str(NEW)
    client.change_session(3)
    unlock(client)
    client.start_routine(int(Rid.CONFIRM_IMAGE))
    assert node.memory.standing is ImageState.CONFIRMED


def test_a_node_that_it_does_not_confirm_goes_back(bench: Bench, client: Client) -> None:
    bench.run(bench.take_off())
    program(client, image(NodeType.BMU, NEW, 4))
    bench.run(pause(2.0))
    assert bench.plant.nodes[BMU1].memory.version == NEW
    bench.run(pause(62.0))
    assert read(client, Did.SOFTWARE_VERSION) == str(OLD)


def test_an_image_with_a_flipped_bit_is_refused(bench: Bench, client: Client) -> None:
    bench.run(bench.take_off())
    content = bytearray(image(NodeType.BMU, NEW, 4))
    content[1000] ^= 1
    with pytest.raises(NegativeResponseException) as caught:
        program(client, bytes(content))
    assert caught.value.response.code == 0x72
    assert bench.plant.nodes[BMU1].boots == 1
