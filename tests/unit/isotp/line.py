"""A line between two ISO-TP endpoints in hand-made time: cores tested against each other, not against mocks."""

from __future__ import annotations

from collections.abc import Callable

from ess_can.can.frame import CanFrame
from ess_can.errors import IsoTpError
from ess_can.isotp import (
    Endpoint,
    Event,
    IsoTpAddress,
    IsoTpParams,
    MessageReceived,
    MessageSent,
    ReceiveFailed,
    SendFailed,
)

TESTER = IsoTpAddress(0x6B5, 0x5AD)
NODE = IsoTpAddress(0x5AD, 0x6B5)
FRAME_S = 0.0003


def cf(sequence_number: int, payload: bytes = bytes(7), can_id: int = NODE.rx_id) -> CanFrame:
    return CanFrame(can_id, bytes((0x20 | sequence_number & 0xF,)) + payload)


def ff(length: int, payload: bytes = bytes(6), can_id: int = NODE.rx_id) -> CanFrame:
    return CanFrame(can_id, bytes((0x10 | length >> 8, length & 0xFF)) + payload)


def fc(status: int = 0, block_size: int = 0, st_min: int = 0, can_id: int = TESTER.rx_id) -> CanFrame:
    return CanFrame(can_id, bytes((0x30 | status, block_size, st_min)))


def hexed(*frames: CanFrame) -> list[str]:
    return [frame.data.hex() for frame in frames]


def drain(endpoint: Endpoint, now: float) -> list[CanFrame]:
    """Take and confirm every frame that may go out now."""
    frames = []
    while (frame := endpoint.next_frame(now)) is not None:
        frames.append(frame)
        endpoint.frame_sent(frame, now)
    return frames


def error_of(events: tuple[Event, ...]) -> IsoTpError:
    """The error in the one failure among the events."""
    errors = [event.error for event in events if isinstance(event, ReceiveFailed | SendFailed)]
    assert len(errors) == 1, events
    return errors[0]


def payload_of(length: int, seed: int = 0) -> bytes:
    return bytes((seed + i * 7 + (i >> 8)) & 0xFF for i in range(length))


class Line:
    """Two endpoints; a frame takes `FRAME_S` and is confirmed and delivered at its end.

    `spoil` gives what arrives in place of a frame (nothing, it twice, another).  `log` holds every frame sent, with
    its time; `events` what each endpoint (0: tester, 1: node) had to say.
    """

    def __init__(self, tester: IsoTpParams, node: IsoTpParams | None = None) -> None:
        self.tester = Endpoint(TESTER, tester)
        self.node = Endpoint(NODE, tester if node is None else node)
        self.now = 100.0
        self.log: list[tuple[float, CanFrame]] = []
        self.events: tuple[list[Event], list[Event]] = ([], [])
        self.spoil: Callable[[CanFrame], list[CanFrame]] = lambda frame: [frame]

    def step(self) -> bool:
        """Move one frame, or else time to the next deadline; False when nothing is left to happen."""
        moved = False
        for index, (sender, receiver) in enumerate(((self.tester, self.node), (self.node, self.tester))):
            frame = sender.next_frame(self.now)
            if frame is None:
                continue
            moved = True
            self.log.append((self.now, frame))
            self.now += FRAME_S
            self.events[index].extend(sender.frame_sent(frame, self.now))
            for arrived in self.spoil(frame):
                self.events[1 - index].extend(receiver.receive(arrived, self.now))
        if moved:
            return True
        deadlines = [d for d in (self.tester.next_deadline, self.node.next_deadline) if d is not None]
        if not deadlines:
            return False
        self.now = max(self.now, min(deadlines))
        self.events[0].extend(self.tester.tick(self.now))
        self.events[1].extend(self.node.tick(self.now))
        return True

    def run(self) -> None:
        for _ in range(100_000):
            if not self.step():
                return
        raise AssertionError("the line does not come to rest")

    def received(self, index: int) -> list[bytes]:
        return [event.payload for event in self.events[index] if isinstance(event, MessageReceived)]

    def errors(self, index: int) -> list[type[IsoTpError]]:
        return [type(e.error) for e in self.events[index] if isinstance(e, ReceiveFailed | SendFailed)]

    def sent(self, index: int) -> int:
        return sum(isinstance(event, MessageSent) for event in self.events[index])
