"""Whether somebody else already sends what a simulated plant would.

Two plants on one bus contradict each other, or one is muted without a word.
"""

from __future__ import annotations

from collections.abc import Mapping

from ess_can.bus.clock import until
from ess_can.bus.port import Bus
from ess_can.can.frame import CanFrame
from ess_can.errors import IdConflict
from ess_can.signals.binding import FAMILIES
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import PcsStatus
from ess_can.sim.plant import Part, PlantSpec

LISTEN_S = 0.7
"""Longer than the longest cycle of what a plant sends by itself (Node_Info, 0.5 s)."""


def sent_identifiers(spec: PlantSpec, codec: StationCodec) -> dict[int, str]:
    """What the simulated parts send: the messages' names by `can_id`."""
    routes = [route for message_type in FAMILIES for route in codec.routes(message_type)]
    sent = {route.can_id: route.name for route in routes if route.node is not None and route.node in spec.addresses}
    sent |= {codec.diagnostic_ids(address)[1]: f"UDS responses of {address}" for address in spec.addresses}
    if Part.PCS in spec.parts:
        route = codec.route(PcsStatus)
        sent[route.can_id] = route.name
    return sent


async def require_alone(bus: Bus, identifiers: Mapping[int, str], listen_s: float = LISTEN_S) -> None:
    """Listen for `listen_s` seconds.  Raises IdConflict as soon as somebody sends on one of `identifiers`.

    Two that begin to send in the same moment do not hear each other.
    """
    heard: list[CanFrame] = []
    cancel = bus.subscribe(identifiers, lambda frame, _at: heard.append(frame))
    try:
        if not await until(lambda: bool(heard), listen_s):
            return
    finally:
        cancel()
    raise IdConflict(
        f"somebody else already sends {identifiers[heard[0].can_id]} on this bus",
        why=f"frame {heard[0]} was heard before anything was sent",
        remedy="End the other simulator (or take the real node off the bus), or use another channel.",
    )
