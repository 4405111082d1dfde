"""The simulator's guard: a simulated plant must never answer for a real one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ess_can.errors import UsageError

if TYPE_CHECKING:
    from ess_can.cli.bus_options import BusOptions

_VIRTUAL = ("virtual", "udp_multicast")


def require_virtual(bus: BusOptions) -> None:
    """Refuse a bus that may have real devices on it: what is not known to be virtual counts as real.

    `bus` has been resolved.  An interface's name says nothing: anybody may call a real one vcan0.  Raises UsageError.
    """
    if bus.interface in _VIRTUAL:
        return
    why = f"{bus.interface or 'an interface that nobody named'} may have real devices on it"
    if bus.interface == "socketcan":
        found = _real_link(bus.channel or "")
        if not found:
            return
        why = found
    raise UsageError(
        "the simulator runs on virtual buses only",
        why=why,
        remedy="Use -i udp_multicast, or -i socketcan with a vcan or vxcan; on a bench with nothing else on the bus, "
        "add --real-bus.",
    )


def _real_link(channel: str) -> str:
    """Why a SocketCAN channel may be real, as text; empty if it is virtual, or if there is no such interface."""
    from ess_can.bus.link_facts import read_link

    if not channel:
        return "no channel, or every one, is named"
    facts = read_link(channel)
    if facts is not None and facts.virtual:
        return ""
    if facts is None and channel not in [name for _, name in socket.if_nameindex()]:
        return ""  # opening it tells so
    kind = facts.kind if facts is not None else None
    return f"{channel} is {f'of kind {kind}' if kind else 'of a kind that cannot be found out'}, not vcan or vxcan"
