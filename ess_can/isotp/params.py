"""What both ends of an ISO-TP connection must know: identifiers, lengths and time limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ess_can.can.frame import EXTENDED_FLAG
from ess_can.errors import UsageError
from ess_can.isotp.pci import CLASSIC_DL, MAX_FF_DL, TX_DLS

_MAX_ID_11_BIT = 0x7FF
_MAX_ID_29_BIT = 0x1FFF_FFFF


@dataclass(frozen=True, slots=True)
class IsoTpAddress:
    """Normal addressing: the identifier we send on and the one we listen to, `EXTENDED_FLAG` set for 29-bit ones.

    Normal fixed addressing is two 29-bit identifiers such as 0x18DA10F1 and 0x18DAF110.
    """

    tx_id: int
    rx_id: int

    def __post_init__(self) -> None:
        for can_id in (self.tx_id, self.rx_id):
            limit = _MAX_ID_29_BIT if can_id & EXTENDED_FLAG else _MAX_ID_11_BIT
            if not 0 <= can_id & ~EXTENDED_FLAG <= limit:
                raise UsageError(f"{can_id:#x} is not a CAN identifier", remedy="Set bit 31 for a 29-bit identifier.")
        if self.tx_id == self.rx_id:
            raise UsageError(f"both directions of an ISO-TP connection use identifier {self.tx_id:#x}")

    def __str__(self) -> str:
        return f"{self.tx_id & _MAX_ID_29_BIT:03X}->{self.rx_id & _MAX_ID_29_BIT:03X}"


@dataclass(frozen=True, slots=True)
class IsoTpParams:
    """How one end behaves (ISO 15765-2).  Times are seconds.  Raises UsageError for values that make no sense.

    Sending: `tx_dl` is the length of full frames (8, 12, 16, 20, 24, 32, 48 or 64 bytes), `fd` sends CAN FD frames
    (and accepts them), `brs` with bit-rate switch; `padding` is the byte that fills short frames, None sends them
    short.  Block size and STmin are the receiver's to say and are honoured.

    Receiving: `block_size` (0: no further flow control) and `st_min` (the raw byte: 0..0x7F ms, 0xF1..0xF9
    100..900 us) are asked of the sender; `max_payload` bounds a message and thereby the memory.

    Limits: `n_as_s`, `n_ar_s` until our frame is confirmed as sent; `n_bs_s` until a flow control arrives; `n_cr_s`
    until a consecutive frame arrives; `n_br_s` between our own wait frames; `wft_max` wait frames in a row, sent or
    accepted.  Beyond the standard: a message must advance at `min_rate` payload bytes per second on average after
    the first `rate_grace_s`, so that a peer just inside every time-out cannot stall us for ever.
    """

    tx_dl: int = CLASSIC_DL
    fd: bool = False
    brs: bool = False
    padding: int | None = 0xCC
    block_size: int = 0
    st_min: int = 0
    n_as_s: float = 1.0
    n_ar_s: float = 1.0
    n_bs_s: float = 1.0
    n_br_s: float = 0.5
    n_cr_s: float = 1.0
    wft_max: int = 10
    max_payload: int = 4095
    min_rate: float = 32.0
    rate_grace_s: float = 10.0

    def __post_init__(self) -> None:
        _require(self.tx_dl in TX_DLS, "tx_dl", self.tx_dl, f"one of {', '.join(map(str, TX_DLS))}")
        _require(self.fd or self.tx_dl == CLASSIC_DL, "tx_dl", self.tx_dl, "8 without CAN FD")
        _require(self.fd or not self.brs, "brs", self.brs, "off without CAN FD")
        _require(self.padding is None or 0 <= self.padding <= 0xFF, "padding", self.padding, "a byte or None")
        _require(0 <= self.block_size <= 0xFF, "block_size", self.block_size, "a byte")
        _require(0 <= self.st_min <= 0x7F or 0xF1 <= self.st_min <= 0xF9, "st_min", self.st_min, "0..7F or F1..F9 hex")
        _require(self.wft_max >= 0, "wft_max", self.wft_max, "at least 0")
        _require(1 <= self.max_payload <= MAX_FF_DL, "max_payload", self.max_payload, "1..2^32-1")
        for name in ("n_as_s", "n_ar_s", "n_bs_s", "n_br_s", "n_cr_s", "min_rate", "rate_grace_s"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "finite and above 0")


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise UsageError(f"ISO-TP parameter {name} is {value}", why=f"it must be {rule}")
