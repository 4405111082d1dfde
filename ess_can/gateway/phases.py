"""The phases of an upgrade and the legal transitions between them, in one table.

The state diagram in docs/architecture.md is drawn from `TRANSITIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Phase(Enum):
    """Where an upgrade stands.  The last seven are final."""

    STATUS_CHECK = "status check"
    RAMP_DOWN = "ramp-down"
    OPEN_CONTACTORS = "contactors"
    PROVE_HV_OFF = "HV-off proof"
    PROGRAM = "program"
    TRIAL_BOOT = "trial boot"
    CONFIRM = "confirm"
    ROLL_BACK = "roll back"
    RECONNECT = "reconnect"
    HOLD_OPEN = "hold open"

    DONE = "done"
    NOTHING_TO_DO = "nothing to do"
    CHECKED = "checked"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled back"
    HELD_OPEN = "held open"


class NodeStep(Enum):
    """What is done with one node."""

    IDENTIFY = "identify"
    ANNOUNCE = "announce"
    TRANSFER = "transfer"
    VERIFY = "verify"
    TRIAL_BOOT = "trial boot"
    CONFIRM = "confirm"


_P = Phase

TRANSITIONS: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        # Nothing was changed yet: the check may end the upgrade without a trace.
        # (One that is resumed may turn out to be done, or undone, already.)
        _P.STATUS_CHECK: frozenset(
            {
                *(_P.RAMP_DOWN, _P.RECONNECT, _P.HOLD_OPEN),
                *(_P.NOTHING_TO_DO, _P.CHECKED, _P.REFUSED, _P.DONE, _P.ROLLED_BACK),
            }
        ),
        # From here on the plant is ours to put back: every failure leads through RECONNECT or HOLD_OPEN.
        _P.RAMP_DOWN: frozenset({_P.OPEN_CONTACTORS, _P.RECONNECT, _P.HOLD_OPEN}),
        _P.OPEN_CONTACTORS: frozenset({_P.PROVE_HV_OFF, _P.RECONNECT, _P.HOLD_OPEN}),
        # An attempt that did not end may have left nodes on trial: these go back first.
        _P.PROVE_HV_OFF: frozenset({_P.PROGRAM, _P.ROLL_BACK, _P.RECONNECT, _P.HOLD_OPEN}),
        # Every node is programmed and verified before the first one boots its new image.
        _P.PROGRAM: frozenset({_P.TRIAL_BOOT, _P.RECONNECT, _P.HOLD_OPEN}),
        _P.TRIAL_BOOT: frozenset({_P.CONFIRM, _P.ROLL_BACK, _P.RECONNECT, _P.HOLD_OPEN}),
        # With an image activated on every node no failure passes ROLL_BACK by.
        _P.CONFIRM: frozenset({_P.RECONNECT, _P.ROLL_BACK}),
        _P.ROLL_BACK: frozenset({_P.PROGRAM, _P.RECONNECT, _P.HOLD_OPEN}),
        _P.RECONNECT: frozenset({_P.DONE, _P.FAILED, _P.ROLLED_BACK, _P.HOLD_OPEN}),
        _P.HOLD_OPEN: frozenset({_P.HELD_OPEN}),
        _P.DONE: frozenset(),
        _P.NOTHING_TO_DO: frozenset(),
        _P.CHECKED: frozenset(),
        _P.REFUSED: frozenset(),
        _P.FAILED: frozenset(),
        _P.ROLLED_BACK: frozenset(),
        _P.HELD_OPEN: frozenset(),
    }
)

FINAL = frozenset(phase for phase, following in TRANSITIONS.items() if not following)


def mermaid() -> str:
    """The transition table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.STATUS_CHECK.name}"]
    for phase, following in TRANSITIONS.items():
        lines += [f"    {phase.name} --> {target.name}" for target in Phase if target in following]
    lines += [f"    {phase.name} --> [*]" for phase in Phase if phase in FINAL]
    return "\n".join(lines)
