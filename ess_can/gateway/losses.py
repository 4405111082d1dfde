"""What a plant cannot do while it is upgraded: told before it begins."""

from __future__ import annotations

from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.estimate import Estimate
from ess_can.gateway.plan import Plan


def losses(plan: Plan, config: GatewayConfig, expected: Estimate | None) -> list[str]:
    """What it costs to carry out this plan, in sentences; none if it changes no node."""
    if not plan.has_work:
        return []
    lasts = "" if expected is None else f"; high voltage is off for about {expected.hv_off_s:.0f} s"
    told = [f"unavailable during the upgrade: charging, discharging and grid services{lasts}"]
    restarting = {node.address for node in plan.nodes} | {left.address for left in plan.leftovers if left.on_trial}
    if restarting:
        names, silent_s = ", ".join(map(str, sorted(restarting))), config.silent_up_to_s
        told.append(f"unavailable for up to {silent_s:g} s each, while they restart: all messages of {names}")
    return told
