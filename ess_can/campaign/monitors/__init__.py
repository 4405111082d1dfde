"""The rules of safety as monitors that watch the simulated plant itself, whatever gateway and nodes say of it."""

from ess_can.campaign.monitors.invariants import Invariant, Violation
from ess_can.campaign.monitors.monitors import Monitors

__all__ = ["Invariant", "Monitors", "Violation"]
