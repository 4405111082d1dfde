"""An ISO-TP endpoint that hears arbitrary frames."""

from __future__ import annotations

import random

from ess_can.can.frame import FD_LENGTHS, CanFrame
from ess_can.isotp import (
    Endpoint,
    Event,
    IsoTpParams,
    MessageReceived,
    MessageSent,
    MessageStarted,
    ReceiveFailed,
    SendFailed,
)
from tests.fuzz.inputs import dice, noise, one_of
from tests.unit.isotp.line import NODE, TESTER

FRAMES = 60
MOST = 300
LENGTHS = (0, 1, 6, 7, 8, 20, MOST, MOST + 1, 4095, 4096, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)


def case(number: int) -> None:
    """Never an exception, nothing allocated for what was only announced, and every wait ends."""
    rng = dice("isotp", number)
    fd = rng.random() < 0.3
    params = IsoTpParams(
        tx_dl=one_of(rng, 8, 64) if fd else 8,
        fd=fd,
        padding=one_of(rng, None, 0xCC),
        block_size=one_of(rng, 0, 1, 5),
        max_payload=MOST,
        wft_max=one_of(rng, 0, 2, 10),
    )
    end = Endpoint(TESTER, params)
    now, sequence = 0.0, 0
    handed: list[CanFrame] = []
    for _ in range(FRAMES):
        now += rng.choice((0.0, 0.0, 0.0001, 0.02, 0.6, 1.5))
        match rng.randrange(8):
            case 0 if not end.sending:
                end.send(bytes(rng.randrange(1, 600)), now)
            case 1:
                end.abort_send(now)
            case 2:
                end.hold() if rng.random() < 0.5 else end.release(now)
            case 3 if handed:
                judge(end.frame_sent(handed.pop(rng.randrange(len(handed))), now))
            case _:
                sequence += 1
                receiving = end.receiving
                frame = arbitrary(rng, sequence)
                events = end.receive(frame, now)
                judge(events)
                foreign = frame.can_id != TESTER.rx_id or frame.remote or (frame.fd and not fd)
                consecutive = frame.data[:1] and frame.data[0] >> 4 == 2 and not receiving
                assert events == () or not (foreign or consecutive)  # T10, B16
        for _ in range(MOST):
            sent = end.next_frame(now)
            if sent is None:
                break
            assert len(sent.data) <= params.tx_dl
            (judge(end.frame_sent(sent, now)) if rng.random() < 0.8 else handed.append(sent))
        else:
            raise AssertionError("it never stops sending")
        judge(end.tick(now))
    for _ in range(200):  # nobody answers any more: all ends, after finitely many deadlines
        due = end.next_deadline
        if due is None:
            return
        now = max(now, due)
        judge(end.tick(now))
        while (sent := end.next_frame(now)) is not None:
            judge(end.frame_sent(sent, now))
    raise AssertionError("it waits for ever")


def judge(events: tuple[Event, ...]) -> None:
    """What an endpoint reports of what it heard."""
    for event in events:
        match event:
            case MessageStarted(length):
                assert 0 < length <= MOST
            case MessageReceived(payload):
                assert 0 < len(payload) <= MOST
            case ReceiveFailed(error) | SendFailed(error):
                assert error.why
            case MessageSent():
                pass


def arbitrary(rng: random.Random, sequence: int) -> CanFrame:
    """A frame: mostly nearly right."""
    can_id = TESTER.rx_id if rng.random() < 0.9 else one_of(rng, NODE.rx_id, 0, 0x7FF, 0x8000_0000 | TESTER.rx_id)
    long = rng.random() < 0.2
    filling = rng.randbytes(62 if long else 6)
    length = rng.choice(LENGTHS)
    match rng.randrange(7):
        case 0:
            data = bytes((rng.choice((0, 1, 5, 7, 8, 15)), rng.randrange(256))) + filling
        case 1:
            data = (0x1000 | min(length, 0xFFF)).to_bytes(2, "big") + filling
        case 2:
            data = b"\x10\x00" + length.to_bytes(4, "big") + filling
        case 3 | 4:
            data = bytes((0x20 | (sequence if rng.random() < 0.7 else rng.randrange(16)) & 0xF,)) + filling
        case 5:
            data = bytes((0x30 | rng.choice((0, 0, 0, 1, 2, 3, 15)), rng.choice((0, 1, 8, 255)), rng.randrange(256)))
        case _:
            data = noise(rng, 64)
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data) + 1)]
    fd = len(data) > 8 or rng.random() < 0.1
    data = data[: max(size for size in FD_LENGTHS if size <= len(data))] if fd else data
    remote = not fd and rng.random() < 0.05
    return CanFrame(can_id, b"" if remote else data, fd, False, remote)
