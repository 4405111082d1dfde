"""Frames from somebody else on identifiers that are ours: a second master, a tester, a node that is set up wrongly."""

from __future__ import annotations

from dataclasses import dataclass

from ess_can.can.frame import CanFrame
from ess_can.errors import IdConflict
from ess_can.signals.binding import FAMILIES
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import EmsPcsCommand, EmsUpgradeNotice


@dataclass(frozen=True, slots=True)
class ForeignFrame:
    """A frame that only we should send: its message's name in the DBC, and the loop time of its reception."""

    name: str
    frame: CanFrame
    at: float


def is_notice(codec: StationCodec, frame: CanFrame) -> bool:
    """Whether a frame is another gateway's EMS_UpgradeNotice, well formed: that one says itself what it means."""
    if frame.can_id != codec.route(EmsUpgradeNotice).can_id or frame.fd or frame.remote:
        return False
    return codec.decode(frame.can_id, frame.data) is not None


def id_conflict(foreign: ForeignFrame) -> IdConflict:
    """What it means that somebody else sent this frame."""
    why = f"frame {foreign.frame} was heard, and it is not ours"
    if foreign.name != FAMILIES[EmsPcsCommand].name:
        return IdConflict(f"somebody else sends {foreign.name}", why=why)
    remedy = f"Have the EMS hand over the plant (stop sending {foreign.name}) before the upgrade."
    return IdConflict(f"another master commands the plant with {foreign.name}", why=why, remedy=remedy)
