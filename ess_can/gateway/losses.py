"""What a plant cannot do while it is upgraded: told before it begins."""

from __future__ import annotations

from collections.abc import Iterable

from ess_can.gateway.config import SILENT_UP_TO_S, GatewayConfig
from ess_can.gateway.estimate import Estimate
from ess_can.gateway.plan import Plan
from ess_can.identity import NodeType


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


def losses_of_any(node_types: Iterable[NodeType]) -> list[str]:
    """What it costs at any station to upgrade its nodes of these types: known before the station is."""
    names = ", ".join(f"every {node_type.name.lower()}" for node_type in sorted(set(node_types)))
    return [
        "unavailable during the upgrade: charging, discharging and grid services; "
        "high voltage is off and the PCS locked",
        f"unavailable for up to {SILENT_UP_TO_S:g} s each, while they restart: all messages of {names}",
    ]
