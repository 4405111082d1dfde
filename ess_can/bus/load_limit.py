"""How much of a bus may be taken: a share of the wire's time as a value.  `LoadLimitedBus` keeps to it."""

from __future__ import annotations

from dataclasses import dataclass

from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.can.timing import BitTiming, for_any_frame, frame_duration_s
from ess_can.errors import UsageError
from ess_can.isotp import IsoTpParams

YIELD_SHARE = 0.90
"""What all traffic together may take where the stream yields and nobody named a share."""
YIELD_FLOOR = 0.05
"""What a stream that yields gets in any case."""

_GAP_OF_N_CR = 0.5  # of the time after which a receiver gives up
_RATE_MARGIN = 0.9
_LONGEST_MESSAGE_S = 30.0


@dataclass(frozen=True, slots=True)
class LoadLimit:
    """A share of the wire's time, above 0 and up to 1.  Raises UsageError for any other.

    It is what our streams may take; if they `yields`, what they may fill up to, whoever sends the rest: then they get
    what others leave, and `YIELD_FLOOR` even if that exceeds the share.
    """

    share: float
    yields: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise UsageError(f"{100 * self.share:g} % is no share of a bus", remedy="Say more than 0 and at most 100.")

    @property
    def assured(self) -> float:
        """The share that our streams get in any case, unless others leave less by their priority."""
        return min(self.share, YIELD_FLOOR) if self.yields else self.share

    def stream_share(self, others: float) -> float:
        """The share that our streams get while others take the share `others`."""
        return max(self.share - others, self.assured) if self.yields else self.share

    def streams(self, timing: BitTiming, isotp: IsoTpParams) -> int:
        """How many messages the assured share carries at the same time, without a receiver giving one of them up."""
        return int(self.assured / _lowest_share(timing, isotp))

    def longest_message(self, timing: BitTiming, isotp: IsoTpParams, streams: int) -> int:
        """Bytes that leave within 30 s by the assured share, if `streams` messages are on their way."""
        frames = _LONGEST_MESSAGE_S * self.assured / streams / long_frame_s(timing, isotp)
        return int(frames) * (isotp.tx_dl - 1)

    def require(self, timing: BitTiming, isotp: IsoTpParams) -> None:
        """Raise UsageError if not even one message would get through in time."""
        if not self.streams(timing, isotp):
            lowest = 100 * _lowest_share(timing, isotp)
            raise UsageError(
                f"{100 * self.share:g} % of this bus is too little for a transfer",
                why="receivers give up a message whose frames are too far apart",
                remedy=f"Allow at least {lowest:.2g} %.",
            )


def long_frame_s(timing: BitTiming, isotp: IsoTpParams, can_id: int = EXTENDED_FLAG) -> float:
    """Wire time in seconds of a full frame that has about as many stuff bits as one can have."""
    return frame_duration_s(CanFrame(can_id, bytes(isotp.tx_dl), fd=isotp.fd, brs=isotp.brs), for_any_frame(timing))


def _lowest_share(timing: BitTiming, isotp: IsoTpParams) -> float:
    """The least share that keeps one message within N_As, N_Cr and the least rate of both ends."""
    gap_s = min(_GAP_OF_N_CR * min(isotp.n_as_s, isotp.n_cr_s), _RATE_MARGIN * (isotp.tx_dl - 1) / isotp.min_rate)
    return long_frame_s(timing, isotp) / gap_s
