"""The sending side of one message: segmentation, flow control, N_Bs and the minimum rate.

A `Transmission` lives for one message.  Giving a message up is dropping the object, so a late confirmation of one of
its frames cannot touch the next message.
"""

from __future__ import annotations

import math

from ess_can.can.frame import CanFrame, new_frame
from ess_can.errors import IsoTpError, IsoTpTooSlow, NBufferOvflw, NInvalidFs, NTimeoutBs, NWftOvrn
from ess_can.isotp.params import IsoTpAddress, IsoTpParams
from ess_can.isotp.pci import (
    CONSECUTIVE_PCI,
    FlowStatus,
    encode_first_frame,
    encode_single_frame,
    fits_single_frame,
    pad,
    st_min_seconds,
)

_NO_BLOCK_END = -1  # block size 0: everything up to the end in one block
_AHEAD = 64  # consecutive frames that are built at once, which takes half the time of one by one


class Transmission:
    """One message on its way out.

    `not_before` holds back the first frame; later frames wait for flow control and STmin by themselves.

    `ahead` holds consecutive frames that may follow each other with nothing to wait for, the next one last: whoever
    drives this takes them off its end, and calls `next_frame` when there are none.
    """

    __slots__ = (
        "_address",
        "_block_end",
        "_blocked",
        "_brs",
        "_built",
        "_can_id",
        "_carried",
        "_fd",
        "_flow_control_since",
        "_index",
        "_not_before",
        "_params",
        "_payload",
        "_st_min",
        "_started",
        "_waits",
        "ahead",
        "awaits_flow_control",
        "confirm_timeout",
        "pivot",
    )

    def __init__(
        self, payload: bytes, address: IsoTpAddress, params: IsoTpParams, now: float, not_before: float = 0.0
    ) -> None:
        self._payload = payload
        self._address = address
        self._params = params
        self._can_id = address.tx_id
        self._fd = params.fd
        self._brs = params.brs
        self._carried = params.tx_dl - 1  # payload bytes in a full consecutive frame
        self._built = 0  # payload bytes that frames were made of
        self._index = 1  # of the next consecutive frame: its low four bits are the sequence number
        self.ahead: list[CanFrame] = []
        self._block_end = _NO_BLOCK_END
        self._blocked = False  # no frame to give: flow control is awaited or all is handed over
        self.pivot: CanFrame | None = None  # its confirmation starts N_Bs or STmin, or completes the message
        self._st_min = 0.0
        self._not_before = not_before
        self._flow_control_since = math.inf  # N_Bs runs from here
        self._waits = 0
        self._started = max(now, not_before)
        self.awaits_flow_control = False
        self.confirm_timeout = params.n_as_s

    def next_frame(self, now: float) -> CanFrame | None:
        """The next frame if one may go out now; it counts as handed over."""
        if self.ahead:
            return self.ahead.pop()
        if self._blocked or now < self._not_before:
            return None
        if not self._built:
            return self._first_frame(now)
        if not self._st_min:
            self._build_ahead()
            if self.ahead:
                return self.ahead.pop()
        return self._paused_frame()

    def _build_ahead(self) -> None:
        """Build the next consecutive frames but for the last of the block and of the message, `_AHEAD` at most."""
        payload, carried, can_id, fd, brs = self._payload, self._carried, self._can_id, self._fd, self._brs
        first, start = self._index, self._built
        count = min(_AHEAD, (len(payload) - start - 1) // carried)
        if self._block_end != _NO_BLOCK_END:
            count = min(count, self._block_end - first - 1)
        self._index = after = first + count
        self._built = end = start + count * carried
        self.ahead = [
            new_frame((can_id, CONSECUTIVE_PCI[index & 0xF] + payload[offset : offset + carried], fd, brs, False))
            for index, offset in zip(
                range(after - 1, first - 1, -1), range(end - carried, start - 1, -carried), strict=True
            )
        ]

    def _paused_frame(self) -> CanFrame:
        """A consecutive frame after which there is something to wait for: flow control, STmin or the end."""
        start = self._built
        self._built = end = start + self._carried
        data = CONSECUTIVE_PCI[self._index & 0xF] + self._payload[start:end]
        self._index += 1
        if end >= len(self._payload):
            data = pad(data, self._params.padding)
            self._blocked = True
        elif self._index == self._block_end:
            self.awaits_flow_control = True
            self._blocked = True
        else:
            self._not_before = math.inf  # until this frame is confirmed
        self.pivot = frame = CanFrame(self._can_id, data, self._fd, self._brs)
        return frame

    def _first_frame(self, now: float) -> CanFrame:
        params, payload = self._params, self._payload
        if fits_single_frame(len(payload), params.tx_dl):
            data = encode_single_frame(payload, params.padding)
            self._built = len(payload)
        else:
            data, self._built = encode_first_frame(payload, params.tx_dl)
            self.awaits_flow_control = True
        self._started = now
        self._blocked = True
        self.pivot = frame = CanFrame(self._can_id, data, self._fd, self._brs)
        return frame

    def confirmed(self, now: float) -> bool:
        """The `pivot`, after which there is something to wait for, is on the wire.  Gives True if it is the end."""
        if self.awaits_flow_control:
            self._flow_control_since = now
        elif self._built >= len(self._payload):
            return True
        elif self._not_before == math.inf:
            self._not_before = now + self._st_min
        return False

    @property
    def _offset(self) -> int:
        """Payload bytes handed over."""
        return self._built - len(self.ahead) * self._carried

    def flow_control(self, data: bytes, now: float) -> IsoTpError | None:
        """Obey a flow control frame (3 bytes or more) while `awaits_flow_control`; gives the error that ends us.

        It may come before our own frame is confirmed: some adapters report in that order.
        """
        status = data[0] & 0xF
        if status == FlowStatus.CTS:
            self.awaits_flow_control = False
            self._blocked = False
            self._flow_control_since = math.inf
            self._waits = 0
            self._st_min = st_min_seconds(data[2])
            self._block_end = self._index + data[1] if data[1] else _NO_BLOCK_END
            return None
        if status == FlowStatus.WAIT:
            self._waits += 1
            if self._waits > self._params.wft_max:
                return NWftOvrn(
                    f"{self._address}: the receiver keeps us waiting",
                    why=f"more than {self._params.wft_max} wait frames in a row",
                )
            self._flow_control_since = now
            return None
        self.awaits_flow_control = False
        if status == FlowStatus.OVFLW:
            return NBufferOvflw(
                f"{self._address}: the receiver has no room for the message", why=f"it has {len(self._payload)} bytes"
            )
        return NInvalidFs(f"{self._address}: invalid flow control", why=f"flow status {status:X}")

    def admit(self) -> None:
        """Nothing holds the first frame back any more."""
        self._not_before = 0.0

    @property
    def ready_at(self) -> float:
        """When a frame that is held back by time may go out; infinite if none is."""
        return math.inf if self._blocked or not self._not_before else self._not_before

    @property
    def deadline(self) -> float:
        """When we give up unless something happens before."""
        return min(self._flow_control_since + self._params.n_bs_s, self._rate_deadline)

    @property
    def _rate_deadline(self) -> float:
        return self._started + self._params.rate_grace_s + self._offset / self._params.min_rate

    def expired(self, now: float) -> IsoTpError | None:
        """The error that ends us if our deadline has passed."""
        params = self._params
        if now >= self._flow_control_since + params.n_bs_s:
            self.awaits_flow_control = False  # what comes later is nobody's
            return NTimeoutBs(
                f"{self._address}: no flow control from the receiver",
                why=f"none within {params.n_bs_s:g} s, {self._offset} of {len(self._payload)} bytes sent",
            )
        if now >= self._rate_deadline:
            return IsoTpTooSlow(
                f"{self._address}: the receiver takes the message too slowly",
                why=f"{self._offset} of {len(self._payload)} bytes in {now - self._started:.1f} s",
            )
        return None
