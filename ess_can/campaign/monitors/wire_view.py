"""What is on the wire, taken apart: orders, notices, polls, and the diagnostic requests and answers of every node.

Worked out from the frames alone.  Of a long request only the first frame's bytes are known; of an answer up to 64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress
from ess_can.signals.dbc import StationCodec
from ess_can.signals.e2e import check
from ess_can.signals.messages import EmsPcsCommand, EmsUpgradeNotice
from ess_can.sim.wire import Wire
from ess_can.uds.rules import Sid
from ess_can.uds.target import Rid

_ANSWER_BYTES = 64
_WRITES = frozenset({Sid.REQUEST_DOWNLOAD, Sid.TRANSFER_DATA, Sid.REQUEST_TRANSFER_EXIT})
_WRITING_ROUTINES = frozenset({Rid.ERASE_MEMORY, Rid.ACTIVATE_ON_TRIAL, Rid.CONFIRM_IMAGE})


@dataclass(frozen=True, slots=True)
class Request:
    """A diagnostic request that began to be sent: its first bytes, and how many it is to have.

    `routine` is 0 unless it is service 31.
    """

    node: NodeAddress
    sender: str
    head: bytes
    size: int
    at: float

    @property
    def service(self) -> int:
        """The service identifier."""
        return self.head[0]

    @property
    def routine(self) -> int:
        """The routine identifier of service 31, else 0."""
        return int.from_bytes(self.head[2:4], "big") if self.head[0] == Sid.ROUTINE_CONTROL else 0

    @property
    def writes(self) -> bool:
        """Whether it needs the proof that high voltage is off."""
        return self.head[0] in _WRITES or self.routine in _WRITING_ROUTINES


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete diagnostic answer, up to 64 bytes of it, and the request before it (None if there was none)."""

    node: NodeAddress
    data: bytes
    at: float
    request: Request | None


class _Channel:
    """The requests to one node, and its answers."""

    def __init__(self, view: WireView, node: NodeAddress) -> None:
        self._view = view
        self._node = node
        self._request: Request | None = None
        self._writing: set[str] = set()
        self._answer = b""
        self._missing = 0

    def on_request(self, frame: CanFrame, at: float, sender: str) -> None:
        data = frame.data
        if not data:
            return
        kind = data[0] >> 4
        if kind == 2:
            if sender in self._writing:
                for tell in self._view.on_writing:
                    tell(self._node, at, sender)
            return
        if kind == 0:
            head = data[1 : 1 + data[0]] if data[0] else data[2 : 2 + data[1]] if len(data) > 2 else b""
            size = len(head)
        elif kind == 1:
            size, head = (data[0] & 0x0F) << 8 | data[1], data[2:]
            if not size:
                size, head = int.from_bytes(data[2:6], "big"), data[6:]
        else:
            return  # flow control
        if not head:
            return
        request = self._request = Request(self._node, sender, head, size, at)
        self._writing.discard(sender)
        if request.writes:
            self._writing.add(sender)
            for tell in self._view.on_writing:
                tell(self._node, at, sender)
        for notice in self._view.on_request:
            notice(request)

    def on_answer(self, frame: CanFrame, at: float, _sender: str) -> None:
        data = frame.data
        if not data:
            return
        kind = data[0] >> 4
        if kind == 0:
            self._complete(data[1 : 1 + data[0]] if data[0] else data[2 : 2 + data[1]], at)
        elif kind == 1:
            self._answer = data[2:]
            self._missing = ((data[0] & 0x0F) << 8 | data[1]) - len(self._answer)
        elif kind == 2 and self._missing > 0:
            self._missing -= len(data) - 1
            if len(self._answer) < _ANSWER_BYTES:
                self._answer += data[1:]
            if self._missing <= 0:
                self._complete(self._answer, at)

    def _complete(self, data: bytes, at: float) -> None:
        if data:
            answer = Answer(self._node, data, at, self._request)
            for tell in self._view.on_answer:
                tell(answer)


class WireView:
    """Listens on a wire and tells others.

    `on_request` gets each request as it begins and `on_answer` each answer; `on_writing` each frame (node, time,
    sender) of a request that needs the proof that high voltage is off.  `on_command` gets each valid order (order,
    time, sender, E2E counter) and `on_notice` each upgrade notice.  `sent` and `delivered` are for other messages:
    handlers by identifier, of frames that ended well and of frames that reached their receivers.
    """

    def __init__(self, wire: Wire, codec: StationCodec, nodes: tuple[NodeAddress, ...]) -> None:
        self._codec = codec
        self.on_request: list[Callable[[Request], None]] = []
        self.on_answer: list[Callable[[Answer], None]] = []
        self.on_writing: list[Callable[[NodeAddress, float, str], None]] = []
        self.on_command: list[Callable[[EmsPcsCommand, float, str, int], None]] = []
        self.on_notice: list[Callable[[EmsUpgradeNotice, float, str], None]] = []
        self.sent: dict[int, list[Callable[[CanFrame, float, str], None]]] = {}
        self.delivered: dict[int, list[Callable[[CanFrame, float, str], None]]] = {}
        for node in nodes:
            request_id, answer_id = codec.diagnostic_ids(node)
            channel = _Channel(self, node)
            self.sent[request_id] = [channel.on_request]
            self.sent[answer_id] = [channel.on_answer]
        command = codec.route(EmsPcsCommand)
        self._command_data_id = command.e2e_data_id
        self.sent[command.can_id] = [self._on_command]
        self.sent[codec.route(EmsUpgradeNotice).can_id] = [self._on_notice]
        wire.on_frame.append(self._on_frame)
        wire.on_delivered.append(self._on_delivered)

    def _on_frame(self, frame: CanFrame, at: float, sender: str) -> None:
        handlers = self.sent.get(frame[0])
        if handlers is not None:
            for handle in handlers:
                handle(frame, at, sender)

    def _on_delivered(self, frame: CanFrame, at: float, sender: str) -> None:
        handlers = self.delivered.get(frame[0])
        if handlers is not None:
            for handle in handlers:
                handle(frame, at, sender)

    def _on_command(self, frame: CanFrame, at: float, sender: str) -> None:
        if self._command_data_id is None or not check(frame.data, self._command_data_id):
            return
        decoded = self._codec.decode(frame.can_id, frame.data)
        if decoded is not None and isinstance(decoded.message, EmsPcsCommand):
            for tell in self.on_command:
                tell(decoded.message, at, sender, frame.data[2])

    def _on_notice(self, frame: CanFrame, at: float, sender: str) -> None:
        decoded = self._codec.decode(frame.can_id, frame.data)
        if decoded is not None and isinstance(decoded.message, EmsUpgradeNotice):
            for tell in self.on_notice:
                tell(decoded.message, at, sender)
