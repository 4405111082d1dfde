"""Runs of a campaign that differ in their faults alone."""

from __future__ import annotations

from functools import cache

from ess_can.campaign.mixture import plain
from ess_can.campaign.result import RunResult
from ess_can.campaign.run import run_mixture
from ess_can.identity import NodeAddress, NodeType

BMU1 = NodeAddress(NodeType.BMU, 1)


@cache
def undisturbed() -> RunResult:
    """The upgrade that is to be disturbed, as it runs without: how many places there are to disturb it."""
    result = run_mixture(plain())
    assert result.good, result.wrong
    assert (result.ended, result.errors) == ("DONE", ())
    return result
