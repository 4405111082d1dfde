"""What an endpoint has to tell: events, and counters of all that was ignored."""

from __future__ import annotations

from dataclasses import dataclass

from ess_can.errors import IsoTpError


@dataclass(frozen=True, slots=True)
class MessageStarted:
    """A segmented message of `length` bytes is coming in (N_USData_FF.indication)."""

    length: int


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A complete message came in (N_USData.indication with N_OK)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class ReceiveFailed:
    """The message under reception is lost (N_USData.indication with an error)."""

    error: IsoTpError


@dataclass(frozen=True, slots=True)
class MessageSent:
    """Our message is out: its last frame was confirmed (N_USData.confirm with N_OK)."""


@dataclass(frozen=True, slots=True)
class SendFailed:
    """Our message was given up (N_USData.confirm with an error)."""

    error: IsoTpError


Event = MessageStarted | MessageReceived | ReceiveFailed | MessageSent | SendFailed


@dataclass(slots=True)
class IsoTpCounters:
    """Frames and confirmations that were ignored, by reason."""

    wrong_identifier: int = 0
    remote_frame: int = 0
    fd_frame: int = 0  # CAN FD, where we speak classic CAN only
    empty_frame: int = 0
    unknown_pci: int = 0
    single_frame_invalid_length: int = 0
    first_frame_invalid_length: int = 0
    first_frame_overflow: int = 0  # beyond max_payload: answered with FC overflow, otherwise ignored
    consecutive_frame_unsolicited: int = 0
    consecutive_frame_invalid_length: int = 0
    flow_control_unsolicited: int = 0
    flow_control_late: int = 0  # owed to a transmission that was given up
    flow_control_too_short: int = 0
    late_confirmation: int = 0  # of a frame that was given up as lost

    @property
    def ignored(self) -> int:
        """The total."""
        return sum(getattr(self, name) for name in self.__slots__)
