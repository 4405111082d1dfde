"""Everything the gateway holds while it works on one station."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ess_can.bus.clock import suspended_s, uninterrupted
from ess_can.bus.guarded_bus import GuardedBus
from ess_can.bus.kernel_isotp import Channel, IsoTpTransport, UserIsoTp
from ess_can.bus.load_limit import long_frame_s
from ess_can.bus.port import Bus
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame, arbitration_field
from ess_can.can.timing import BitTiming
from ess_can.gateway.armed_trials import ArmedTrials
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.interlock import Interlock
from ess_can.gateway.isolation import Isolation
from ess_can.gateway.node_client import NodeClient, OnError, OnMessage
from ess_can.gateway.orders import Orders
from ess_can.gateway.plant_view import PlantView
from ess_can.gateway.transfer_meter import StationTraffic
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeAddress
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.uds.access import AccessAlgorithm
from ess_can.uds.exchange import MAX_BLOCK_DATA

USER_ISOTP = UserIsoTp()
_UNSTOPPABLE_S = 0.050
_UNSTOPPABLE_BYTES = 4093
"""With service and counter a message of 4095 bytes: no more is certain to be sent by a kernel."""
_SLOWEST = BitTiming(125_000)
_FEWEST_FRAMES = 10
"""Of less a request is mostly its own first frame, flow control and answer."""
_REQUEST_HEAD = 3
"""A first frame has one byte less room than the others, and the request's service and counter are no data."""


class StationMaster:
    """The gateway's hold on a station: its view, its orders, the interlock, and a diagnostic client for each node.

    Opening it sends nothing.  Leaving the context ends every order; the PCS keeps its lock if it was given one.
    `guard` is what `bus` stands on, if it is to stop streams by itself; `slept_s` tells how long the machine has slept.
    """

    def __init__(
        self,
        bus: Bus,
        codec: StationCodec,
        config: GatewayConfig,
        access: AccessAlgorithm,
        *,
        isotp: IsoTpParams,
        bit_timing: BitTiming | None,
        entropy: random.Random,
        transport: IsoTpTransport = USER_ISOTP,
        guard: GuardedBus | None = None,
        slept_s: Callable[[], float] = suspended_s,
    ) -> None:
        self.config = config
        self.access = access
        self.bit_timing = bit_timing
        self.link = StationLink(bus, codec)
        self.view = PlantView()
        self._stop_listening = self.view.attach(self.link)
        self.armed = ArmedTrials()
        self.watch = PlantWatch(self.link)
        self.orders = Orders(self.link, entropy.getrandbits(16), self.watch.trip, slept_s=slept_s)
        self.interlock = Interlock(
            self.link, config.racks, config.hv, entropy, slept_s=slept_s, on_return=self.watch.on_emergency
        )
        if guard is not None:
            guard.may_go_on = self.interlock.may_go_on
        self.isolation = Isolation(self.view, self.orders, config)
        self.traffic = StationTraffic(self.link, bit_timing)
        self.transport = transport
        self._isotp = isotp
        self._clients: dict[NodeAddress, NodeClient] = {}

    def client(self, address: NodeAddress) -> NodeClient:
        """The diagnostic client of one node, made when first asked for."""
        client = self._clients.get(address)
        if client is None:
            ids = IsoTpAddress(*self.link.codec.diagnostic_ids(address))

            def connect(on_message: OnMessage, on_error: OnError) -> Channel:
                return self.transport.open(self.link.bus, ids, self._isotp, on_message=on_message, on_error=on_error)

            client = self._clients[address] = NodeClient(connect)
        return client

    def at_once(self, count: int) -> int:
        """How many of `count` nodes are programmed at the same time."""
        return min(count, self.config.bus.nodes_at_once or count, self.streams)

    def longest_block(self, at_once: int) -> int:
        """How many bytes of an image one request may carry while `at_once` nodes are programmed.

        A transport that cannot stop in the middle of a message gets short ones: what is on its way to all of them when
        the permit is revoked must be over soon.
        """
        if self.transport.stops_at_once:
            return self._longest_paced_block()
        fits = self._unstoppable_frames // at_once * (self._isotp.tx_dl - 1) - _REQUEST_HEAD
        return max(1, min(fits, _UNSTOPPABLE_BYTES))

    @property
    def _unstoppable_frames(self) -> int:
        """How many full frames of requests the wire carries in the time in which all that cannot stop must be over."""
        timing = self.bit_timing or _SLOWEST
        frame_s = max(long_frame_s(timing, self._isotp, can_id) for can_id in self._diagnostic_ids[0])
        return int(_UNSTOPPABLE_S / frame_s)

    @property
    def _diagnostic_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The identifiers of all nodes' requests, and of their answers."""
        requests, answers = zip(*map(self.link.codec.diagnostic_ids, self.config.expected), strict=True)
        return requests, answers

    def _longest_paced_block(self) -> int:
        """With a cap on the bus load a request must still leave long before its client gives it up."""
        load = self.config.bus.load
        if load is None or self.bit_timing is None:
            return MAX_BLOCK_DATA
        longest = load.longest_message(self.bit_timing, self._isotp, self.streams)
        return min(longest, MAX_BLOCK_DATA)

    @property
    def streams(self) -> int:
        """How many nodes may be sent images at the same time: all, unless something forbids it.

        That is a cap on the bus load that is too low, a transport that cannot stop and would have too little time for
        requests to all of them, or identifiers by which a stream to one node would win arbitration against the answers
        of another for as long as it lasts (normal fixed addressing has such).
        """
        load, streams = self.config.bus.load, len(self.config.expected)
        requests, answers = self._diagnostic_ids
        if min(map(_priority, requests)) < max(map(_priority, answers)):
            return 1
        if not self.transport.stops_at_once:
            streams = min(streams, self._unstoppable_frames // _FEWEST_FRAMES)
        elif load is not None and self.bit_timing is not None:
            streams = min(streams, load.streams(self.bit_timing, self._isotp))
        return max(1, streams)

    async def hang_up(self, address: NodeAddress) -> None:
        """Forget the client of one node: the next one starts afresh.

        A cancellation comes through only once the client is closed, which takes a few seconds at most: whoever cleans
        up afterwards asks the same node.
        """
        client = self._clients.pop(address, None)
        task = asyncio.current_task()
        if client is None or task is None:
            return
        cancelled = task.cancelling()
        await uninterrupted(client.close())
        if task.cancelling() > cancelled:
            raise asyncio.CancelledError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # First what cannot wait or be cancelled: nothing is ordered or permitted any more from here on.
        self.orders.stop()
        self.interlock.close()
        self.watch.close()
        self._stop_listening()
        self.link.close()
        # The clients end within a few seconds; a cancellation must not cost the report.
        await uninterrupted(self._hang_up_all())

    async def _hang_up_all(self) -> None:
        await asyncio.gather(*(self.hang_up(address) for address in list(self._clients)))


def _priority(can_id: int) -> int:
    """The lowest wins."""
    return arbitration_field(CanFrame(can_id, b""))
