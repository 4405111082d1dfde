"""Our frames as python-can's messages.  Importing this module imports python-can, which takes long."""

from __future__ import annotations

import can

from ess_can.can.frame import EXTENDED_FLAG, CanFrame


class FrameStencil(can.Message):
    """A message for interfaces that copy what they are given, and only that: it is used again for every frame.

    `can.Message` copies itself through pickle's protocol.  A copy of this one is a plain `can.Message` with data of its
    own, made directly.
    """

    __slots__ = ("_frame",)

    def show(self, frame: CanFrame) -> can.Message:
        """Stand for this frame from now on; valid until the next call."""
        self._frame = frame
        return self

    def __deepcopy__(self, memo: object) -> can.Message:
        return to_message(self._frame)


def to_message(frame: CanFrame) -> can.Message:
    """The frame as python-can's message, with data of its own: some backends pad what they are given."""
    can_id, data, fd, brs, remote = frame
    return can.Message(
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
