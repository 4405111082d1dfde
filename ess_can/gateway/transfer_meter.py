"""Wire efficiency of one transfer: how close to the physical limit it came."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import pairwise
from types import TracebackType
from typing import Final, Self

from ess_can.bus.clock import now
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.identity import NodeAddress
from ess_can.image.content import ImageContent, as_content

SAMPLE_FRAMES: Final = 4096
"""Of how many frames at most the wire time is worked out."""


class TransferMeter:
    """Times a transfer, and adds up the wire time of the station's other traffic meanwhile.

    Traffic that the DBC does not know is not listened to, so that adapters may filter it out; it counts against us.

    Efficiency = (exact wire time of the fewest full frames that carry the bytes as ISO-TP consecutive frames) /
    (elapsed time less other traffic's own wire time).  1.00 is the physical limit.
    """

    def __init__(self, link: StationLink, address: NodeAddress, timing: BitTiming | None) -> None:
        self._link = link
        self._timing = timing
        self._request_id, self._response_id = link.codec.diagnostic_ids(address)
        self._began_at = 0.0
        self.elapsed_s = 0.0
        self.other_traffic_s = 0.0

    def __enter__(self) -> Self:
        self._began_at = now()
        self._link.on_send = self._count
        self._unsubscribe = self._link.bus.subscribe(self._link.codec.can_ids, lambda frame, _at: self._count(frame))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.elapsed_s = now() - self._began_at
        self._link.on_send = None
        self._unsubscribe()

    def _count(self, frame: CanFrame) -> None:
        if self._timing is not None and frame.can_id not in (self._request_id, self._response_id):
            with suppress(ValueError):  # a CAN FD frame of somebody else, on a bus whose data bit rate we do not know
                self.other_traffic_s += frame_duration_s(frame, self._timing)

    def efficiency(self, image: ImageContent | bytes, offset: int = 0) -> float | None:
        """The efficiency of having transferred `image` from byte `offset` on.

        None without a known bit timing or a measurable time.
        """
        content = as_content(image)
        if self._timing is None or content.size <= offset:
            return None
        spent = self.elapsed_s - self.other_traffic_s
        if spent <= 0.0:
            return None
        return ideal_wire_time_s(content, self._request_id, self._timing, offset) / spent


def ideal_wire_time_s(image: ImageContent | bytes, can_id: int, timing: BitTiming, offset: int = 0) -> float:
    """Wire time of the fewest full frames that carry `image` from `offset` on as consecutive frames, in seconds.

    They are CAN FD frames if `timing` has a data bit rate.  Exact up to `SAMPLE_FRAMES` frames.  Of more, that many are
    worked out: one of each of as many equal runs of frames, at a place drawn by a fixed seed so that no pattern in the
    image keeps step with it.  Frames differ by their stuff bits alone, by less than a quarter of the shortest one's
    time, so by Hoeffding's inequality the sum is wrong by more than 1.25 % with a probability below 1e-7 (the draw's,
    whatever the image); of firmware, whose frames spread by a hundredth or two, it is right to a few parts in 10 000.
    """
    fd = timing.data_bitrate is not None
    size = 63 if fd else 7
    content = as_content(image)

    def duration(number: int) -> float:
        data = content.read(offset + number * size, size).ljust(size, b"\0")
        return frame_duration_s(CanFrame(can_id, bytes((0x20 | (number + 1) & 0xF,)) + data, fd=fd, brs=fd), timing)

    frames = -(-max(0, content.size - offset) // size)
    if frames <= SAMPLE_FRAMES:
        return sum(map(duration, range(frames)))
    draw = random.Random(frames)  # noqa: S311 - the same image has the same figure
    edges = [run * frames // SAMPLE_FRAMES for run in range(SAMPLE_FRAMES + 1)]
    return sum((end - start) * duration(draw.randrange(start, end)) for start, end in pairwise(edges))
