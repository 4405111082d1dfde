"""Which nodes may boot another image at their next restart: activations whose end the plant has not proved."""

from __future__ import annotations

from ess_can.identity import NodeAddress
from ess_can.uds.target import BootState


class ArmedTrials:
    """The nodes of one station that may hold an armed trial, as long as we look after it.

    A node may hold one once it was asked to activate an image, by us or, as the journal has it, by an earlier attempt;
    and if it says so itself.  It ends when the node gave it up at our request, or was confirmed, or went back to its
    confirmed image by a restart.  A node that merely does not say that it holds one proves nothing.
    """

    def __init__(self) -> None:
        self._nodes: set[NodeAddress] = set()

    @property
    def nodes(self) -> tuple[NodeAddress, ...]:
        """Those that may hold one, in order."""
        return tuple(sorted(self._nodes))

    def suspect(self, *addresses: NodeAddress) -> None:
        """These may hold one from now on."""
        self._nodes.update(addresses)

    def told(self, address: NodeAddress, state: BootState) -> None:
        """What a node says of itself."""
        if state.armed:
            self._nodes.add(address)

    def ended(self, address: NodeAddress) -> None:
        """This one has proved that it holds none."""
        self._nodes.discard(address)
