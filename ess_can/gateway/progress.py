"""What an upgrade tells while it runs.  A callback receives these; all times are loop seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ess_can.gateway.estimate import Estimate
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.identity import NodeAddress


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The upgrade entered a phase."""

    at: float
    phase: Phase
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeStepEntered:
    """Work on one node entered a step."""

    at: float
    node: NodeAddress
    step: NodeStep
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Transferred:
    """Bytes of an image that the node has accepted so far, at the measured rate."""

    at: float
    node: NodeAddress
    done_bytes: int
    total_bytes: int
    bytes_per_s: float

    @property
    def eta_s(self) -> float:
        """Seconds left at the measured rate."""
        return (self.total_bytes - self.done_bytes) / self.bytes_per_s if self.bytes_per_s else float("inf")


@dataclass(frozen=True, slots=True)
class Noted:
    """Something a person would want to know, such as a retry and its reason."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Estimated:
    """How long the upgrade, which begins now, is expected to take, phase by phase."""

    at: float
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Decided:
    """What will be done about an upgrade that did not end."""

    at: float
    text: str


Event = PhaseEntered | NodeStepEntered | Transferred | Noted | Estimated | Decided
OnProgress = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Progress callback that does nothing."""


def never_failing(on_progress: OnProgress) -> OnProgress:
    """`on_progress`, but an exception in it goes no further: a listener that fails is not told anything any more.

    A closed terminal must not end an upgrade.
    """
    listening = True

    def tell(event: Event) -> None:
        nonlocal listening
        if not listening:
            return
        try:
            on_progress(event)
        except Exception:
            listening = False

    return tell
