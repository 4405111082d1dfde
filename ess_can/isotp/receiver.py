"""The receiving side of one segmented message: reassembly, N_Cr and the minimum rate.

A `Reception` lives for one message.  Its buffer grows with what has come in, never by what was announced.
"""

from __future__ import annotations

import math
from enum import IntEnum

from ess_can.errors import IsoTpError, IsoTpTooSlow, NTimeoutCr
from ess_can.isotp.params import IsoTpAddress, IsoTpParams

_NO_BLOCK_END = -1


class Step(IntEnum):
    """What a consecutive frame leads to, where that is more than waiting for the next."""

    BLOCK_END = 1  # taken, and a flow control is due
    COMPLETE = 2
    WRONG_LENGTH = 3  # to be ignored
    WRONG_SN = 4
    TOO_LATE = 5


class Reception:
    """One segmented message on its way in: `length` bytes, of which the first frame (of `rx_dl` bytes) had `first`."""

    __slots__ = (
        "_address",
        "_block_end",
        "_buffer",
        "_heard",
        "_index",
        "_last",
        "_last_size",
        "_length",
        "_n_cr",
        "_params",
        "_rx_dl",
        "_started",
        "confirm_timeout",
        "wait_again_at",
        "waits",
    )

    def __init__(
        self, length: int, first: bytes, rx_dl: int, address: IsoTpAddress, params: IsoTpParams, now: float
    ) -> None:
        carried = rx_dl - 1
        self._address = address
        self._params = params
        self._buffer = bytearray(first)
        self._length = length
        self._rx_dl = rx_dl
        self._index = 1  # of the consecutive frame that must come next
        self._last = -(-(length - len(first)) // carried)  # the index of the last one
        self._last_size = length - len(first) - (self._last - 1) * carried
        self._block_end = _NO_BLOCK_END
        self._started = now
        self._heard = math.inf  # N_Cr runs from here; infinite while the next move is ours
        self._n_cr = params.n_cr_s
        self.confirm_timeout = params.n_ar_s
        self.waits = 0
        self.wait_again_at = math.inf

    def consecutive(self, data: bytes, now: float) -> Step | None:
        """Take a consecutive frame; None if there is nothing more to do.

        One that comes before our flow control is confirmed, or even sent, is taken too: the sender counts on a
        duplicate, or our adapter reports late.
        """
        if now >= self._heard + self._n_cr:
            return Step.TOO_LATE
        index = self._index
        if len(data) != self._rx_dl and not (index == self._last and self._last_size < len(data) < self._rx_dl):
            return Step.WRONG_LENGTH
        if data[0] & 0xF != index & 0xF:
            return Step.WRONG_SN
        if index == self._last:
            self._buffer += data[1 : 1 + self._last_size]
            return Step.COMPLETE
        self._buffer += data[1:]
        self._index = index = index + 1
        if index != self._block_end:
            self._heard = now
            return None
        self._heard = math.inf
        return Step.BLOCK_END

    @property
    def payload(self) -> bytes:
        """What has come in so far; the whole message once it is complete."""
        return bytes(self._buffer)

    def wait(self, now: float) -> bool:
        """A wait frame is due.  Gives False if that would be one too many."""
        self.waits += 1
        self.wait_again_at = now + self._params.n_br_s
        return self.waits <= self._params.wft_max

    def clear_to_send(self) -> None:
        """A flow control that lets the sender go on is due: a block starts with the next frame."""
        self.waits = 0
        self.wait_again_at = math.inf
        block_size = self._params.block_size
        self._block_end = self._index + block_size if block_size else _NO_BLOCK_END

    def flow_control_sent(self, now: float) -> None:
        """Our flow control is on the wire: unless it said wait, it is the sender's turn."""
        if self.wait_again_at == math.inf:
            self._heard = now

    @property
    def deadline(self) -> float:
        """When we give up unless something happens before."""
        return min(self._heard + self._n_cr, self._rate_deadline)

    @property
    def _rate_deadline(self) -> float:
        return self._started + self._params.rate_grace_s + len(self._buffer) / self._params.min_rate

    def expired(self, now: float) -> IsoTpError | None:
        """The error that ends us if our deadline has passed."""
        progress = f"{len(self._buffer)} of {self._length} bytes received"
        if now >= self._heard + self._n_cr:
            return NTimeoutCr(
                f"{self._address}: no consecutive frame from the sender",
                why=f"none within {self._n_cr:g} s, {progress}",
            )
        if now >= self._rate_deadline:
            return IsoTpTooSlow(
                f"{self._address}: the sender gives the message too slowly",
                why=f"{progress} in {now - self._started:.1f} s",
            )
        return None

    def wrong_sequence_number(self, data: bytes) -> str:
        """The evidence for N_WRONG_SN."""
        return (
            f"got {data[0] & 0xF}, expected {self._index & 0xF}, {len(self._buffer)} of {self._length} bytes received"
        )
