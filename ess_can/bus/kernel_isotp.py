"""Who speaks ISO-TP on a bus: the Linux kernel where it can, or our own core.

`choose_isotp` gives the transport that the gateway opens its channels with (`GatewaySetup.transport`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol

from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.kernel_channel import KernelIsoTpChannel
from ess_can.bus.kernel_socket import how_to_get_kernel_isotp, why_no_kernel_isotp
from ess_can.bus.port import Bus
from ess_can.errors import InterfaceUnavailable, IsoTpError
from ess_can.isotp import IsoTpAddress, IsoTpParams

__all__ = [
    "Channel",
    "IsoTpChoice",
    "IsoTpTransport",
    "KernelIsoTp",
    "KernelIsoTpChannel",
    "OnError",
    "OnMessage",
    "UserIsoTp",
    "choose_isotp",
]

OnMessage = Callable[[bytes, float], None]
"""Called with a received message and the loop time at which it was complete."""
OnError = Callable[[IsoTpError], None]
"""Called when a message under reception was lost."""


class IsoTpChoice(Enum):
    """Who speaks ISO-TP."""

    AUTO = "auto"
    KERNEL = "kernel"
    USER = "user"


class Channel(Protocol):
    """What a client needs of an ISO-TP channel."""

    async def send(self, payload: bytes) -> None:
        """Send one message; returns when it has left.  Raises IsoTpError or BusError if it did not."""

    def close(self) -> None:
        """End its use."""

    async def wait_closed(self) -> None:
        """After `close`: return once nothing of it sends or answers any more, or after a few seconds."""


class IsoTpTransport(Protocol):
    """Opens ISO-TP channels."""

    @property
    def stops_at_once(self) -> bool:
        """Whether no frame of a message goes out any more once its `send` was cancelled."""

    def open(
        self, bus: Bus, address: IsoTpAddress, params: IsoTpParams, *, on_message: OnMessage, on_error: OnError
    ) -> Channel:
        """A channel on the running loop.  Raises InterfaceDown, InterfaceUnavailable."""


@dataclass(frozen=True, slots=True)
class UserIsoTp:
    """Our own core, over the bus port."""

    stops_at_once: ClassVar[bool] = True

    def open(
        self, bus: Bus, address: IsoTpAddress, params: IsoTpParams, *, on_message: OnMessage, on_error: OnError
    ) -> Channel:
        """An `IsoTpChannel`."""
        return IsoTpChannel(bus, address, params, on_message=on_message, on_error=on_error)


@dataclass(frozen=True, slots=True)
class KernelIsoTp:
    """The kernel's, on a SocketCAN interface; the bus port only learns which of this host's frames are ours."""

    channel: str
    stops_at_once: ClassVar[bool] = False

    def open(
        self, bus: Bus, address: IsoTpAddress, params: IsoTpParams, *, on_message: OnMessage, on_error: OnError
    ) -> Channel:
        """A `KernelIsoTpChannel`."""
        bus.adopt(address.tx_id)
        return KernelIsoTpChannel(self.channel, address, params, on_message=on_message, on_error=on_error)


def choose_isotp(choice: IsoTpChoice, interface: str | None, channel: str | int | None) -> IsoTpTransport:
    """The transport for a bus, named as python-can's interface and channel.

    AUTO is the kernel's where it can be used, else ours.  Raises InterfaceUnavailable for KERNEL where it cannot.
    """
    if choice is IsoTpChoice.USER:
        return UserIsoTp()
    name = None if channel is None else str(channel)
    why = why_no_kernel_isotp(interface, name)
    if name is not None and not why:
        return KernelIsoTp(name)
    if choice is IsoTpChoice.KERNEL:
        raise InterfaceUnavailable(
            "the kernel's ISO-TP cannot be used", why=why, remedy=how_to_get_kernel_isotp(interface, name)
        )
    return UserIsoTp()
