"""Wire efficiency of one transfer: how close to the physical limit it came."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Self

from ess_can.bus.clock import now
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.identity import NodeAddress
from ess_can.image.content import ImageContent, as_content


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
    """Exact wire time of the fewest full frames that carry `image` from `offset` on as consecutive frames, in seconds.

    They are CAN FD frames if `timing` has a data bit rate.
    """
    fd = timing.data_bitrate is not None
    size = 63 if fd else 7
    content = as_content(image)
    total = 0.0
    for number, start in enumerate(range(offset, content.size, size)):
        data = bytes((0x20 | (number + 1) & 0xF,)) + content.read(start, size).ljust(size, b"\0")
        total += frame_duration_s(CanFrame(can_id, data, fd=fd, brs=fd), timing)
    return total
