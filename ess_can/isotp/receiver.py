"""The receiving side of one segmented message: reassembly, N_Cr and the minimum rate.

A `Reception` lives for one message.  Its buffer grows with what has come in, never by what was announced.
"""

from __future__ import annotations

import math
from enum import IntEnum

from ess_can.errors import IsoTpError, IsoTpTooSlow, NTimeoutCr
from ess_can.isotp.params import IsoTpAddress, IsoTpParams
from ess_can.isotp.pci import CONSECUTIVE_FRAME, CONSECUTIVE_PCI

_NO_BLOCK_END = -1
_PIECES = 64  # frames that are kept as they came before their bytes are put together, which is quicker than one by one

_AFTER = {
    own[0]: after[0] for own, after in zip(CONSECUTIVE_PCI, (*CONSECUTIVE_PCI[1:], CONSECUTIVE_PCI[0]), strict=True)
}
"""Byte 0 of the consecutive frame that follows one with this byte 0."""


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
        "_expected",
        "_heard",
        "_index",
        "_last",
        "_last_size",
        "_length",
        "_n_cr",
        "_params",
        "_pieces",
        "_plain",
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
        self._pieces: list[bytes] = []  # data of the frames since then, not yet in the buffer
        self._plain = 0  # frames still to come that nothing follows from; all of full length
        self._expected = CONSECUTIVE_FRAME << 4 | 1  # byte 0 of the frame that must come next
        self._index = 1  # of the first consecutive frame that is not in `_pieces`, once these are put together
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
        """Take the data of a consecutive frame; None if there is nothing more to do.

        One that comes before our flow control is confirmed, or even sent, is taken too: the sender counts on a
        duplicate, or our adapter reports late.
        """
        heard = self._heard
        if self._plain and data[0] == self._expected and len(data) == self._rx_dl and now < heard + self._n_cr:
            self._plain -= 1
            self._expected = _AFTER[data[0]]
            self._pieces.append(data)
            self._heard = now
            return None
        return self._judged(data, now)

    def _judged(self, data: bytes, now: float) -> Step | None:
        if now >= self._heard + self._n_cr:
            return Step.TOO_LATE
        self._put_together()
        index = self._index
        if len(data) != self._rx_dl and not (index == self._last and self._last_size < len(data) < self._rx_dl):
            return Step.WRONG_LENGTH
        if data[0] != self._expected:
            return Step.WRONG_SN
        if index == self._last:
            self._buffer += data[1 : 1 + self._last_size]
            return Step.COMPLETE
        self._buffer += data[1:]
        self._expected = _AFTER[data[0]]
        self._index = index = index + 1
        if index == self._block_end:
            self._heard = math.inf
            return Step.BLOCK_END
        self._heard = now
        self._count_plain()
        return None

    def _put_together(self) -> None:
        pieces = self._pieces
        if pieces:
            joined = bytearray(b"".join(pieces))
            del joined[:: self._rx_dl]  # byte 0 of each
            self._buffer += joined
            self._index += len(pieces)
            pieces.clear()

    def _count_plain(self) -> None:
        """How many frames may now come before one that something follows from: of block or message the last."""
        end = self._last if self._block_end == _NO_BLOCK_END else min(self._last, self._block_end - 1)
        self._plain = max(0, min(_PIECES, end - self._index))

    @property
    def _received(self) -> int:
        """Payload bytes that have come in."""
        return len(self._buffer) + len(self._pieces) * (self._rx_dl - 1)

    @property
    def payload(self) -> bytes:
        """The whole message, once it is complete."""
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
        self._put_together()
        self._block_end = self._index + block_size if block_size else _NO_BLOCK_END
        self._count_plain()

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
        return self._started + self._params.rate_grace_s + self._received / self._params.min_rate

    def expired(self, now: float) -> IsoTpError | None:
        """The error that ends us if our deadline has passed."""
        progress = f"{self._received} of {self._length} bytes received"
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
            f"got {data[0] & 0xF}, expected {self._expected & 0xF}, {self._received} of {self._length} bytes received"
        )
