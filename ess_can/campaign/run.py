"""One run."""

from __future__ import annotations

from ess_can.campaign.result import RunResult


def run_seed(seed: int) -> RunResult:
    """Run a seed."""
    raise NotImplementedError
