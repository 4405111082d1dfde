"""The station's typed messages on a bus: encode, protect, send; receive, check, decode, dispatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ess_can.bus.port import Bus, Sent
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError
from ess_can.identity import NodeAddress
from ess_can.signals.dbc import Route, StationCodec
from ess_can.signals.e2e import E2eMonitor, E2eSender, Verdict
from ess_can.signals.messages import Message, NodeInfo

M = TypeVar("M", bound=Message)

E2E_MAX_DELTA = 3
"""A counter step of up to three cycles is a loss, not a wrong sequence: two frames in a row may be lost."""

_USABLE = (None, Verdict.OK, Verdict.OK_SOME_LOST)


@dataclass(slots=True)
class Received(Generic[M]):
    """A message that arrived and may be used.  Not frozen: it is made for every receiver of every frame.

    `verdict` is OK or OK_SOME_LOST, or None for a message without end-to-end protection; `at` is the receive time.
    """

    message: M
    index: int
    at: float
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A frame on a message's identifier that must not be used: its content is not even offered.

    `verdict` is the bad E2E verdict, or None when the frame could not be decoded at all.
    """

    message_type: type[Message]
    index: int
    at: float
    verdict: Verdict | None


@dataclass(slots=True)
class StationCounters:
    """What was heard on the station's identifiers and could not be used."""

    undecodable: int = 0
    e2e_rejected: int = 0


class StationLink:
    """One node's view of the station's messages over a `Bus`."""

    def __init__(self, bus: Bus, codec: StationCodec) -> None:
        self.bus = bus
        self.codec = codec
        self.counters = StationCounters()
        self.on_send: Callable[[CanFrame], None] | None = None
        self._senders: dict[int, E2eSender] = {}
        self._unsubscribes: list[Callable[[], None]] = []

    def send(self, message: Message, index: int = 1, on_sent: Sent | None = None) -> None:
        """Encode, protect where the DBC says so, and queue one message.  Raises what `Bus.send` raises."""
        self._send(self.codec.route(type(message), index), self.codec.encode(message, index), on_sent)

    def send_node_info(self, info: NodeInfo, address: NodeAddress) -> None:
        """Send Node_Info of one node."""
        self._send(self.codec.node_route(address), self.codec.encode(info, address), None)

    def _send(self, route: Route, data: bytes, on_sent: Sent | None) -> None:
        sender: E2eSender | None = None
        if route.e2e_data_id is not None:
            sender = self._senders.get(route.can_id)
            if sender is None:
                sender = self._senders[route.can_id] = E2eSender(route.e2e_data_id)
            data = sender.protect(data)
        frame = CanFrame(route.can_id, data)
        try:
            self.bus.send(frame, on_sent)
        except BusError:
            if sender is not None:
                sender.take_back()
            raise
        if self.on_send is not None:
            self.on_send(frame)

    def subscribe(
        self,
        message_type: type[M],
        receive: Callable[[Received[M]], None],
        reject: Callable[[Rejected], None] | None = None,
    ) -> None:
        """Deliver every usable message of this type, of all indices, until `close`; report the others to `reject`."""
        for route in self.codec.routes(message_type):
            monitor = None if route.e2e_data_id is None else E2eMonitor(route.e2e_data_id, max_delta=E2E_MAX_DELTA)
            on_frame = self._receiver(route, monitor, message_type, receive, reject)
            self._unsubscribes.append(self.bus.subscribe((route.can_id,), on_frame))

    def _receiver(
        self,
        route: Route,
        monitor: E2eMonitor | None,
        message_type: type[M],
        receive: Callable[[Received[M]], None],
        reject: Callable[[Rejected], None] | None,
    ) -> Callable[[CanFrame, float], None]:
        length, index = route.length, route.index

        def on_frame(frame: CanFrame, at: float) -> None:
            can_id, data, fd, _, remote = frame
            verdict = None
            if len(data) == length and not (fd or remote):
                if monitor is not None:
                    verdict = monitor.receive(data, at)
                if verdict in _USABLE:
                    decoded = self.codec.decode(can_id, data)
                    if decoded is not None:
                        message = decoded.message
                        if isinstance(message, message_type):  # else another page of the same multiplexed message
                            receive(Received(message, index, at, verdict))
                        return
            if verdict in _USABLE:
                self.counters.undecodable += 1
            else:
                self.counters.e2e_rejected += 1
            if reject is not None:
                reject(Rejected(message_type, index, at, verdict))

        return on_frame

    def close(self) -> None:
        """Stop delivering."""
        for unsubscribe in self._unsubscribes:
            unsubscribe()
        self._unsubscribes.clear()
