"""Our frames as python-can's messages.  Importing this module imports python-can, which takes long."""

from __future__ import annotations

import can

from ess_can.can.frame import EXTENDED_FLAG, CanFrame


class FrameMessage(can.Message):
    """A message that is copied quickly.

    `can.Message` copies its data, a bytearray, through pickle's protocol, and the `virtual` interface copies each
    message for each of its receivers.  A copy here is a plain `can.Message` with data of its own, as there.
    """

    __slots__ = ()

    def __deepcopy__(self, memo: object) -> can.Message:
        return can.Message(
            self.timestamp,
            self.arbitration_id,
            self.is_extended_id,
            self.is_remote_frame,
            self.is_error_frame,
            self.channel,
            self.dlc,
            bytearray(self.data),
            self.is_fd,
            self.is_rx,
            self.bitrate_switch,
            self.error_state_indicator,
        )


def to_message(frame: CanFrame) -> FrameMessage:
    """The frame as python-can's message, with data of its own: some backends pad what they are given."""
    can_id, data, fd, brs, remote = frame
    return FrameMessage(
        0.0,
        can_id & 0x1FFF_FFFF,
        can_id >= EXTENDED_FLAG,
        remote,
        False,
        None,
        len(data),
        None if remote else bytearray(data),
        fd,
        True,
        brs,
    )
