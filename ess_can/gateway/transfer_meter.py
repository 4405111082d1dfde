"""Wire efficiency of one transfer: how close to the physical limit it came."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from types import TracebackType
from typing import Final, Self

from ess_can.bus.clock import now
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s, known_duration_s
from ess_can.identity import NodeAddress
from ess_can.image.content import ImageContent, as_content

SAMPLE_FRAMES: Final = 4096
"""Of how many frames at most the wire time is worked out."""


class StationTraffic:
    """What is on the wire while transfers are measured: each frame is worked out once, however many there are.

    `wire_s` is what the station's messages took so far, by identifier, and `accepted` how many bytes of images nodes
    have accepted, by the identifier of their requests.  Both only mean something as differences.

    Traffic that the DBC does not know is not listened to, so that adapters may filter it out; it counts against us.
    """

    def __init__(self, link: StationLink, timing: BitTiming | None) -> None:
        self.timing = timing
        self.codec = link.codec
        self.wire_s: dict[int, float] = {}
        self.accepted: dict[int, int] = {}
        self._link = link
        self._measuring = 0
        self._unsubscribe: Callable[[], None] | None = None

    def begin(self) -> None:
        """Count from now on, until as many have called `end`."""
        self._measuring += 1
        if self._measuring == 1 and self.timing is not None:
            self._link.on_send = self._count
            self._unsubscribe = self._link.bus.subscribe(self.codec.can_ids, lambda frame, _at: self._count(frame))

    def end(self) -> None:
        """One measurement less."""
        self._measuring -= 1
        if self._measuring == 0 and self._unsubscribe is not None:
            self._link.on_send = None
            self._unsubscribe()
            self._unsubscribe = None

    def _count(self, frame: CanFrame) -> None:
        if self.timing is not None:
            seconds = known_duration_s(frame, self.timing) or 0.0
            self.wire_s[frame.can_id] = self.wire_s.get(frame.can_id, 0.0) + seconds


class TransferMeter:
    """Times one transfer, and what else was on the wire meanwhile: telemetry, and transfers to other nodes.

    Wire efficiency = (exact wire time of the fewest full frames that carry the bytes as ISO-TP consecutive frames) /
    (time from RequestDownload to the answer to RequestTransferExit, less other traffic's own wire time).  1.00 is the
    physical limit.  The bytes are those of this transfer and those that other nodes accepted meanwhile, which count as
    if they were of the same image: it says how close to its limit the wire was used while this transfer ran.
    """

    def __init__(self, traffic: StationTraffic, address: NodeAddress) -> None:
        self._traffic = traffic
        self._request_id, self._response_id = traffic.codec.diagnostic_ids(address)
        self._began_at = 0.0
        self.elapsed_s = 0.0
        self.other_traffic_s = 0.0
        self.other_bytes = 0

    def __enter__(self) -> Self:
        self._began_at = now()
        self._traffic.begin()
        self.other_traffic_s, self.other_bytes = self._others()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.elapsed_s = now() - self._began_at
        wire_s, accepted = self._others()
        self.other_traffic_s, self.other_bytes = wire_s - self.other_traffic_s, accepted - self.other_bytes
        self._traffic.end()

    def _others(self) -> tuple[float, int]:
        """Wire time and bytes so far of all but this transfer."""
        own = (self._request_id, self._response_id)
        wire_s = sum(seconds for can_id, seconds in self._traffic.wire_s.items() if can_id not in own)
        return wire_s, sum(count for can_id, count in self._traffic.accepted.items() if can_id != self._request_id)

    def accept(self, count: int) -> None:
        """The node has accepted so many bytes more."""
        accepted = self._traffic.accepted
        accepted[self._request_id] = accepted.get(self._request_id, 0) + count

    def efficiency(self, image: ImageContent | bytes, offset: int = 0) -> float | None:
        """The efficiency of having transferred `image` from byte `offset` on.

        None without a known bit timing or a measurable time.
        """
        timing, content = self._traffic.timing, as_content(image)
        sent = content.size - offset
        if timing is None or sent <= 0:
            return None
        ideal_s = ideal_wire_time_s(content, self._request_id, timing, offset)
        spent = self.elapsed_s - self.other_traffic_s
        if spent <= 0.0:
            return None
        # Others' bytes come in whole blocks: of a short transfer beside long ones the first block may be too many.
        return min(ideal_s * (1 + self.other_bytes / sent) / spent, max(1.0, ideal_s / spent))


def ideal_wire_time_s(
    image: ImageContent | bytes, can_id: int, timing: BitTiming, offset: int = 0, *, sample: int | None = None
) -> float:
    """Wire time of the fewest full frames that carry `image` from `offset` on as consecutive frames, in seconds.

    They are CAN FD frames if `timing` has a data bit rate.  Exact up to `sample` frames (`SAMPLE_FRAMES` unless given).
    Of more, that many are worked out: one of each of as many equal runs of frames, at a place drawn by a fixed seed so
    that no pattern in the image keeps step with it.  Frames differ by their stuff bits alone, by less than a quarter of
    the shortest one's time, so by Hoeffding's inequality the usual sample's sum is wrong by more than 1.25 % with a
    probability below 1e-7 (the draw's, whatever the image); of firmware, whose frames spread by a hundredth or two, it
    is right to a few parts in 10 000.  A sample of a sixteenth of that is wrong by four times as much.
    """
    fd = timing.data_bitrate is not None
    size = 63 if fd else 7
    content = as_content(image)

    def duration(number: int) -> float:
        data = content.read(offset + number * size, size).ljust(size, b"\0")
        return frame_duration_s(CanFrame(can_id, bytes((0x20 | (number + 1) & 0xF,)) + data, fd=fd, brs=fd), timing)

    frames = -(-max(0, content.size - offset) // size)
    sample = sample or SAMPLE_FRAMES
    if frames <= sample:
        return sum(map(duration, range(frames)))
    draw = random.Random(frames)  # noqa: S311 - the same image has the same figure
    edges = [run * frames // sample for run in range(sample + 1)]
    return sum((end - start) * duration(draw.randrange(start, end)) for start, end in pairwise(edges))
