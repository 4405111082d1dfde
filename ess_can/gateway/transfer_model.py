"""How long images take over one wire into the flash of several nodes: a small forward calculation.

Each node takes blocks into a buffer and answers one as soon as there is room for the next; meanwhile its flash programs
what it has, or erases the next sector ahead of it.  The wire goes to whichever node has been ready longest.  A
formula would do for the extremes, a wire or a flash that is far slower than the other; in between they wait for each
other by turns, and that is what is worked out here, block by block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from ess_can.bus.load_limit import LoadLimit
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.gateway.transfer_meter import ideal_wire_time_s
from ess_can.image.content import ImageContent
from ess_can.isotp import IsoTpParams
from ess_can.uds.target import FlashProfile

_SAMPLE_FRAMES = 256
_SERVICE_BYTES = 2
"""Of a TransferData request: service identifier and block counter."""
_PROGRAM_BYTES = 2048
"""What a flash programs in one go, about: after it there is that much more room in the buffer."""
_MOST_SECTORS = 4096
_LEAST_SHARE = 0.02
"""A stream gets through in the end, however loaded a bus is: what is reckoned with then."""
_LEAST_STREAM_SHARE = 1e-4
"""Below every share that a cap may leave."""
_MIXED = bytes.fromhex("5a 0f 3c 81 d2 69 b4 17")
"""Content with about as many stuff bits as random bytes."""


@dataclass(frozen=True, slots=True)
class WireModel:
    """The bus as a stream meets it.

    `other_load` is the share of the time, 0..1, in which it carries others' frames, and `limit` the cap that the stream
    keeps to, if any.
    """

    timing: BitTiming
    isotp: IsoTpParams
    other_load: float = 0.0
    limit: LoadLimit | None = None

    @property
    def free_share(self) -> float:
        """The share of the time that others leave."""
        return max(1.0 - self.other_load, _LEAST_SHARE)

    @property
    def stream_share(self) -> float:
        """The share of the time in which the stream's frames are on the wire."""
        capped = 1.0 if self.limit is None else self.limit.stream_share(self.other_load)
        return max(min(capped, self.free_share), _LEAST_STREAM_SHARE)

    def frame_s(self, can_id: int, length: int) -> float:
        """Wire time of an ordinary classic frame, in seconds."""
        return frame_duration_s(CanFrame(can_id, _MIXED[:length]), self.timing)

    def short_message_s(self, can_id: int) -> float:
        """Wire time of a single frame or a flow control as ISO-TP sends it, in seconds."""
        frame = CanFrame(can_id, _MIXED, fd=self.isotp.fd, brs=self.isotp.brs)
        return frame_duration_s(frame, self.timing)

    def full_frame_s(self, can_id: int, content: ImageContent, offset: int) -> float:
        """Mean wire time, in seconds, of the full consecutive frames that carry an image from `offset` on."""
        frames = ceil((content.size - offset) / (self.isotp.tx_dl - 1))
        return ideal_wire_time_s(content, can_id, self.timing, offset, sample=_SAMPLE_FRAMES) / frames


@dataclass(frozen=True, slots=True)
class Job:
    """What one node is sent: `size` bytes of which it holds `offset` already, at most `block` of them in a request.

    `full_frame_s` is the wire time of a full frame, `reply_s` that of a flow control or an answer.
    """

    size: int
    offset: int
    block: int
    full_frame_s: float
    reply_s: float
    flash: FlashProfile


def transfer_time_s(jobs: Sequence[Job], wire: WireModel, at_once: int) -> float:
    """Seconds from the first RequestDownload until every node has programmed what it was sent.

    No more than `at_once` nodes are programmed at the same time; the next one follows who is done.
    """
    waiting = deque(jobs)
    at_work = [_Node(waiting.popleft(), wire, 0.0) for _ in range(min(len(jobs), at_once))]
    wire_free_at, all_done_at = 0.0, 0.0
    while at_work:
        node = min(at_work, key=lambda node: node.ready_at)
        if node.left:
            wire_free_at = max(wire_free_at, node.ready_at) + node.next_block_wire_s()
            node.take_block(wire_free_at)
            continue
        done_at = node.done_at()
        all_done_at = max(all_done_at, done_at)
        at_work.remove(node)
        if waiting:
            at_work.append(_Node(waiting.popleft(), wire, done_at))
    return all_done_at


class _Node:
    """One receiver: its buffer, and its flash, which does one thing at a time.  Positions are bytes of the image."""

    def __init__(self, job: Job, wire: WireModel, begins_at: float) -> None:
        self._job = job
        self._wire = wire
        self._isotp = wire.isotp
        sector = job.flash.sector_bytes
        together = ceil(job.size / sector / _MOST_SECTORS)  # as absurdly small ones are reckoned
        self._sector, self._erase_s = sector * together, job.flash.sector_erase_s * together
        self._received = self._programmed = job.offset
        self._erased = ceil(job.offset / sector) * sector
        self._dirty = job.size if job.flash.dirty_bytes is None else job.flash.dirty_bytes
        self._flash_free_at = self.ready_at = begins_at

    @property
    def left(self) -> int:
        """Bytes that were not sent yet."""
        return self._job.size - self._received

    @property
    def _next_block(self) -> int:
        return min(self._job.block, self.left)

    def next_block_wire_s(self) -> float:
        """Time that the next block takes on a bus with the others' traffic on it, flow control and answer included."""
        job, wire, dl = self._job, self._wire, self._isotp.tx_dl
        payload = self._next_block + _SERVICE_BYTES
        frames = 1 + ceil(max(payload - (dl - 2), 0) / (dl - 1))
        replies = 2 if frames > 1 else 1
        return frames * job.full_frame_s / wire.stream_share + replies * job.reply_s / wire.free_share

    def take_block(self, at: float) -> None:
        """The next block has arrived, in the time that the flash went on working."""
        self._work_until(at)
        self._received += self._next_block
        room_at = at
        while self._received - self._programmed + self._next_block > self._job.flash.buffer_bytes:
            if not self._operate():
                break  # a buffer of less than two blocks
            room_at = max(at, self._flash_free_at)
        self.ready_at = room_at

    def done_at(self) -> float:
        """When the last byte is programmed."""
        self._work_until(inf)
        return max(self.ready_at, self._flash_free_at)

    def _work_until(self, at: float) -> None:
        while self._flash_free_at < at:
            if not self._operate():
                if at < inf:
                    self._flash_free_at = at
                return

    def _operate(self) -> bool:
        """Do the flash's next operation: program what is at hand, else erase ahead.  False if there is none."""
        ready = min(self._received, self._erased) - self._programmed
        if ready > 0:
            amount = min(ready, _PROGRAM_BYTES)
            self._programmed += amount
            self._flash_free_at += amount * self._job.flash.program_s_per_byte
            return True
        if self._erased < self._dirty:  # also behind the image: the slot is to be clean
            self._erased += self._sector
            self._flash_free_at += self._erase_s
            return True
        if self._erased < self._job.size:  # the rest is blank
            self._erased = self._job.size
            return self._operate()
        return False
