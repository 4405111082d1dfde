"""ISO-TP, the transport of ISO 15765-2, as a protocol core without input and output.

`Endpoint` is one end of a connection; `ess_can.bus.isotp_channel` drives it on a bus.
"""

from ess_can.isotp.endpoint import Endpoint, Events
from ess_can.isotp.events import (
    Event,
    IsoTpCounters,
    MessageReceived,
    MessageSent,
    MessageStarted,
    ReceiveFailed,
    SendFailed,
)
from ess_can.isotp.params import IsoTpAddress, IsoTpParams

__all__ = [
    "Endpoint",
    "Event",
    "Events",
    "IsoTpAddress",
    "IsoTpCounters",
    "IsoTpParams",
    "MessageReceived",
    "MessageSent",
    "MessageStarted",
    "ReceiveFailed",
    "SendFailed",
]
