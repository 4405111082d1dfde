"""The peers on the same simulated wire: udsoncan's client over can-isotp, against our simulated BMU and against itself.

can-isotp's `TransportLayerLogic` is driven without threads: it processes whenever the wire brings a frame or the client
sends, and its frames go to a controller of the wire with a queue that takes them all.  So it pays for no thread that
wakes up late and no frame that waits for the scheduler; what is left is its protocol, in exact time.

Of its waits these are not modelled, because they read the wall clock: N_Bs and N_Cr (none of them runs out here) and
STmin (nobody asks for one).  udsoncan is synchronous; its connection lets the simulation run until a message is there.
Its time-out of a whole request reads the wall clock, too, and is off; P2 and P2* are those of the simulated time.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import isotp
from udsoncan import MemoryLocation
from udsoncan.client import Client
from udsoncan.configs import default_client_config
from udsoncan.connections import BaseConnection
from udsoncan.exceptions import TimeoutException
from udsoncan.typing import ClientConfig

from benchmarks.station import BMU1, BusKind, Station, bmu_image, codec, open_station
from benchmarks.wire_efficiency import Transfer, exact_wire_time_s, result
from ess_can.bus.clock import now
from ess_can.can.frame import CanFrame
from ess_can.sim.controller import Controller
from ess_can.sim.loop import VirtualTimeLoop
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.sim.wire import Wire
from ess_can.uds.access import CmacAccess
from ess_can.uds.rules import Sid
from ess_can.uds.target import Rid

_ISOTP_12_BIT = 4095
_LARGEST_BLOCK = 64 * 1024
_QUEUE = 100_000
_NEVER_S = 1e9
_EXTENDED, _PROGRAMMING = 3, 2
_ACCESS_LEVEL = 0x11


@dataclass(frozen=True, slots=True)
class Peer:
    """How the peers are set up: `block_size` is the receiver's, `longest` the bytes of a request at most."""

    name: str
    block_size: int
    longest: int


DOCUMENTED = Peer("udsoncan + can-isotp, defaults", 8, _ISOTP_12_BIT)
"""can-isotp's default parameters; blocks as the node allows, up to can-isotp's default longest message."""
TUNED = Peer("udsoncan + can-isotp, tuned", 0, 0xFFFF_FFFF)
"""No further flow control, blocks as large as the node allows."""


BOTH_ENDS = "{}, both ends"


class _Layer:
    """can-isotp on a controller of the simulated wire."""

    def __init__(self, controller: Controller, ids: tuple[int, int], kind: BusKind, peer: Peer) -> None:
        self.on_message: Callable[[bytes], None] | None = None
        self._controller = controller
        self._received: deque[isotp.CanMessage] = deque()
        self._unsent = 0
        self._brs = kind.fd
        self._wake: asyncio.Future[None] | None = None
        tx, rx = ids
        params = {"stmin": 0, "blocksize": peer.block_size, "max_frame_size": peer.longest}
        if kind.fd:
            params |= {"can_fd": True, "bitrate_switch": True, "tx_data_length": 64}
        self.logic = isotp.TransportLayerLogic(
            rxfn=self._next,
            txfn=self._send,
            address=isotp.Address(isotp.AddressingMode.Normal_11bits, txid=tx, rxid=rx),
            params=params,
        )
        controller.subscribe({rx}, self._on_frame)

    @property
    def transmitting(self) -> bool:
        """Whether anything has not left the wire's controller yet."""
        return self._unsent > 0 or self.logic.transmitting()

    def send(self, payload: bytes) -> None:
        """Begin to send a message."""
        self.logic.send(payload)
        self._process()

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Let the wire run; false if that took longer than `within_s` seconds of its time."""
        deadline = now() + within_s
        while not condition():
            self._wake = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._wake
            except TimeoutError:
                return False
        return True

    def take(self) -> bytes:
        """A message that is available."""
        return bytes(self.logic.recv() or b"")

    def _next(self, _timeout_s: float) -> isotp.CanMessage | None:
        return self._received.popleft() if self._received else None

    def _send(self, message: isotp.CanMessage) -> None:
        self._unsent += 1
        frame = CanFrame(message.arbitration_id, bytes(message.data), message.is_fd, message.is_fd and self._brs)
        self._controller.send(frame, self._sent)

    def _sent(self, _at: float) -> None:
        self._unsent -= 1
        if not self._unsent:
            self._look()

    def _on_frame(self, frame: CanFrame, _at: float) -> None:
        self._received.append(isotp.CanMessage(frame.can_id, data=frame.data, is_fd=frame.fd, bitrate_switch=frame.brs))
        self._process()

    def _process(self) -> None:
        self.logic.process()
        while self.on_message is not None and self.logic.available():
            self.on_message(self.take())
        if self.logic.available():
            self._look()

    def _look(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class _Connection(BaseConnection):
    """udsoncan's connection over such a layer; a message has left when `send` returns (`blocking_send`)."""

    def __init__(self, layer: _Layer, runner: asyncio.Runner) -> None:
        super().__init__()
        self._layer = layer
        self._runner = runner

    def specific_send(self, payload: bytes, timeout: float | None = None) -> None:
        """See udsoncan."""
        self._layer.send(payload)
        layer = self._layer
        if not self._runner.run(layer.until(lambda: not layer.transmitting, timeout or 600.0)):
            raise TimeoutException("the request did not leave")  # type: ignore[no-untyped-call]  # untyped there

    def specific_wait_frame(self, timeout: float | None = None) -> bytes:
        """See udsoncan."""
        logic = self._layer.logic
        if not self._runner.run(self._layer.until(logic.available, timeout or 600.0)):
            raise TimeoutException("no answer in time")  # type: ignore[no-untyped-call]  # untyped there
        return self._layer.take()

    def empty_rxqueue(self) -> None:
        """See udsoncan."""
        self._layer.logic.clear_rx_queue()

    def empty_txqueue(self) -> None:
        """See udsoncan."""
        self._layer.logic.clear_tx_queue()

    def open(self) -> BaseConnection:
        """See udsoncan."""
        return self

    def close(self) -> None:
        """See udsoncan."""

    def is_open(self) -> bool:
        """See udsoncan."""
        return True


def measure(peer: Peer, kind: BusKind, racks: int, kib: int) -> Transfer:
    """The peers' client transfers an image of `kib` KiB to our simulated BMU, on the same station as ours."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        stack = AsyncExitStack()
        station = runner.run(stack.enter_async_context(open_station(kind, racks, kib)))
        tester = station.plant.wire.controller("tester", depth=_QUEUE)
        transfer = client_on(station, tester, runner, peer, bmu_image(kib))
        runner.run(stack.aclose())
    return transfer


def client_on(station: Station, controller: Controller, runner: asyncio.Runner, peer: Peer, image: bytes) -> Transfer:
    """The peers' client transfers an image to the station's BMU, its frames sent by this controller."""
    layer = _Layer(controller, station.ids, station.kind, peer)
    elapsed_s, other_s = _transfer(station, layer, runner, peer, image)
    return result(peer.name, station, image, elapsed_s, other_s)


def measure_both_ends(peer: Peer, kind: BusKind, kib: int) -> Transfer:
    """Peers at both ends of a wire: the receiver is can-isotp, too, and takes every block at once, into no flash."""
    image = bmu_image(kib)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        wire = runner.run(_wire(kind))
        request_id, response_id = codec().diagnostic_ids(BMU1)
        layer = _Layer(wire.controller("tester", depth=_QUEUE), (request_id, response_id), kind, peer)
        node = _Node(_Layer(wire.controller("node", depth=_QUEUE), (response_id, request_id), kind, peer), peer)
        with Client(_Connection(layer, runner), config=_config()) as client:
            began_at = wire.loop.time()
            _download(client, image, peer)
            elapsed_s = wire.loop.time() - began_at
        if bytes(node.received) != image:
            raise RuntimeError(f"{peer.name}: the image was changed on its way")
    ideal_s = exact_wire_time_s(image, request_id, kind)
    return Transfer(BOTH_ENDS.format(peer.name), kind.name, 0, len(image), ideal_s, elapsed_s, 0.0)


async def _wire(kind: BusKind) -> Wire:
    return Wire(kind.timing)


class _Node:
    """As much of a UDS server as a download takes."""

    def __init__(self, layer: _Layer, peer: Peer) -> None:
        self.received = bytearray()
        self._layer = layer
        self._longest = min(peer.longest, _LARGEST_BLOCK)
        layer.on_message = self._answer

    def _answer(self, request: bytes) -> None:
        positive = bytes((request[0] | 0x40,))
        if request[0] == Sid.REQUEST_DOWNLOAD:
            self._layer.send(positive + b"\x40" + self._longest.to_bytes(4, "big"))
        elif request[0] == Sid.TRANSFER_DATA:
            self.received += request[2:]
            self._layer.send(positive + request[1:2])
        else:
            self._layer.send(positive)


def _config() -> ClientConfig:
    config = default_client_config.copy()
    config["request_timeout"] = _NEVER_S
    return config


def _transfer(station: Station, layer: _Layer, runner: asyncio.Runner, peer: Peer, image: bytes) -> tuple[float, float]:
    serial = station.plant.nodes[BMU1].board.serial.encode("ascii")
    access = CmacAccess(TEST_ONLY_ACCESS_SECRET)
    config = _config()
    config["security_algo"] = lambda level, seed, params: access.answer(seed, serial)  # it goes by these names
    loop = station.plant.wire.loop
    with Client(_Connection(layer, runner), config=config) as client:
        client.change_session(_EXTENDED)
        client.start_routine(int(Rid.CHECK_PROGRAMMING_PRECONDITIONS))
        client.change_session(_PROGRAMMING)
        client.unlock_security_access(_ACCESS_LEVEL)
        announced = len(image).to_bytes(4, "big") + hashlib.sha256(image).digest()
        client.start_routine(int(Rid.ERASE_MEMORY), announced)
        began_at, other_s = loop.time(), station.other_traffic_s()
        _download(client, image, peer)
        elapsed_s, other_s = loop.time() - began_at, station.other_traffic_s() - other_s
        client.start_routine(int(Rid.VERIFY_MEMORY), zlib.crc32(image).to_bytes(4, "big"))
    return elapsed_s, other_s


def _download(client: Client, image: bytes, peer: Peer) -> None:
    location = MemoryLocation(0, len(image), address_format=32, memorysize_format=32)
    answer = client.request_download(location)
    if answer is None:
        raise RuntimeError("no answer to RequestDownload")
    size = min(answer.service_data.max_length, peer.longest) - 2
    for number, start in enumerate(range(0, len(image), size), start=1):
        client.transfer_data(number & 0xFF, image[start : start + size])
    client.request_transfer_exit()
