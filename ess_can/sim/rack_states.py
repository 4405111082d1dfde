"""The states of a rack's high-voltage part: every legal change in one table, and every reason against closing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from ess_can.signals.messages import RackState


class RackEvent(Enum):
    """What moves a rack from one state to another."""

    STARTED = "self-test done"
    CLOSE = "order CLOSE, nothing against it"
    PRECHARGED = "main+ closed on a precharged link"
    OPEN = "order OPEN near zero current, or CLOSE withdrawn"
    LEFT_ALONE = "no PCS and no orders for long, near zero current"
    FAILED = "precharge failed"
    LATCH = "a latched fault"
    CLEARED = "latches cleared by a person"
    RESTART = "restart"


RACK_TRANSITIONS: Mapping[tuple[RackState, RackEvent], RackState] = MappingProxyType(
    {
        (RackState.INIT, RackEvent.STARTED): RackState.OPEN,
        (RackState.OPEN, RackEvent.CLOSE): RackState.PRECHARGING,
        (RackState.PRECHARGING, RackEvent.PRECHARGED): RackState.CLOSED,
        (RackState.PRECHARGING, RackEvent.OPEN): RackState.OPEN,
        (RackState.PRECHARGING, RackEvent.FAILED): RackState.OPEN,
        (RackState.CLOSED, RackEvent.OPEN): RackState.OPEN,
        (RackState.CLOSED, RackEvent.LEFT_ALONE): RackState.OPEN,
        (RackState.FAULT, RackEvent.CLEARED): RackState.OPEN,
        **{(state, RackEvent.LATCH): RackState.FAULT for state in RackState if state is not RackState.FAULT},
        **{(state, RackEvent.RESTART): RackState.INIT for state in RackState},
    }
)
"""Every legal change of state; all others raise KeyError, which would be a defect of this module."""


class CloseRefusal(Enum):
    """Why a rack that is ordered to close does not (yet)."""

    HELD_OPEN = "a programming session is active or the running image is not confirmed"
    PCS_SILENT = "no fresh status from the PCS"
    PCS_LOCKED = "the PCS is locked"
    PCS_NOT_READY = "the PCS is not at rest in standby or closing"
    SENSOR_INVALID = "a sensor or a feedback is invalid or contradicts the others"
    CONTACTORS_NOT_OPEN = "the contactors are not proved open"
    COOL_DOWN = "the precharge resistor cools down"
    STAGGER = "racks of a lower number go first"
    VOLTAGES_APART = "the link is energised at another voltage than the string's"
