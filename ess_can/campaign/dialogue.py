"""The diagnostic messages on a wire, in words: one line for requests of one kind that follow each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress
from ess_can.isotp.pci import FIRST_FRAME, SINGLE_FRAME, decode_first_frame, decode_single_frame
from ess_can.signals.dbc import StationCodec
from ess_can.uds.rules import NEGATIVE_RESPONSE, RESPONSE_FLAG, Sid
from ess_can.uds.target import Nrc, Rid

E = TypeVar("E", Sid, Rid, Nrc)

Say = Callable[[float, NodeAddress, str], None]
"""Is told when the first of some requests was on the wire, to whom they went, and what they were and came to."""


@dataclass(slots=True)
class _Requests:
    """Requests of one kind that follow each other."""

    kind: str
    began_at: float
    count: int = 0
    data_bytes: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        times = f" x {self.count}" if self.count > 1 else ""
        size = f", {self.data_bytes} bytes" if self.data_bytes else ""
        answers = ", ".join(f"{n} x {what}" if n > 1 else what for what, n in self.answers.items())
        return f"{self.kind}{times}{size}: {answers or 'no answer'}"


class Dialogue:
    """Listens to the frames of a wire.  Call `on_frame` with each of them, and `finish` at the end."""

    def __init__(self, codec: StationCodec, nodes: Iterable[NodeAddress], say: Say) -> None:
        self._say = say
        self._requests_to: dict[int, NodeAddress] = {}
        self._answers_of: dict[int, NodeAddress] = {}
        self._open: dict[NodeAddress, _Requests] = {}
        for node in nodes:
            request_id, response_id = codec.diagnostic_ids(node)
            self._requests_to[request_id] = node
            self._answers_of[response_id] = node

    def on_frame(self, frame: CanFrame, at: float, _sender: str) -> None:
        """A frame was on the wire."""
        node = self._requests_to.get(frame.can_id)
        if node is not None:
            head = message_head(frame.data)
            if head is not None:
                self._request(node, *head, at)
            return
        node = self._answers_of.get(frame.can_id)
        if node is not None and node in self._open:
            head = message_head(frame.data)
            if head is not None:
                self._open[node].answers[_answer(head[0])] += 1

    def _request(self, node: NodeAddress, head: bytes, size: int, at: float) -> None:
        kind = _kind(head)
        requests = self._open.get(node)
        if requests is None or requests.kind != kind:
            self._end(node)
            requests = self._open[node] = _Requests(kind, at)
        requests.count += 1
        if head[0] == Sid.TRANSFER_DATA:
            requests.data_bytes += size - 2

    def _end(self, node: NodeAddress) -> None:
        requests = self._open.pop(node, None)
        if requests is not None:
            self._say(requests.began_at, node, requests.text())

    def finish(self) -> None:
        """Tell of the last requests, too."""
        for node in list(self._open):
            self._end(node)


def message_head(data: bytes) -> tuple[bytes, int] | None:
    """The first bytes of the message that this ISO-TP frame begins, and its length; None if it begins none."""
    if not data:
        return None
    if data[0] >> 4 == SINGLE_FRAME:
        payload = decode_single_frame(data)
        return None if payload is None else (payload, len(payload))
    if data[0] >> 4 == FIRST_FRAME and len(data) >= 8:
        found = decode_first_frame(data)
        return None if found is None else (found[1], found[0])
    return None


def _kind(head: bytes) -> str:
    """What is asked for: the service, and which routine or identifier."""
    text = f"{head[0]:02X} {_name(Sid, head[0])}"
    if head[0] == Sid.ROUTINE_CONTROL and len(head) >= 4:
        text += f" {_name(Rid, int.from_bytes(head[2:4], 'big'))}"
    elif head[0] in (Sid.DIAGNOSTIC_SESSION_CONTROL, Sid.SECURITY_ACCESS, Sid.ECU_RESET) and len(head) >= 2:
        text += f" {head[1] & 0x7F:02X}"
    return text


def _answer(head: bytes) -> str:
    if head[0] == NEGATIVE_RESPONSE and len(head) >= 3:
        return "pending" if head[2] == Nrc.RESPONSE_PENDING else f"refused ({head[2]:02X} {_name(Nrc, head[2])})"
    return "done" if head[0] - RESPONSE_FLAG in set(Sid) else f"{head[0]:02X}"


def _name(names: type[E], number: int) -> str:
    """The name of a number, as words."""
    try:
        return names(number).name.lower().replace("_", " ")
    except ValueError:
        return f"{number:#x}"
