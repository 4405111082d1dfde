"""Unlocking a node (27): a challenge and its key, over a bus that loses and delays answers.

A challenge serves once, and only the last one does: what is lost is repeated from the challenge on.  The answers to two
requests for a challenge cannot be told apart.  A late one may have been taken for the later, and its key is wrong then
though the secret is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from ess_can.errors import AccessDenied, IsoTpError, UdsTimeout
from ess_can.uds import exchange
from ess_can.uds.access import AccessAlgorithm
from ess_can.uds.exchange import Exchange
from ess_can.uds.target import Nrc

T = TypeVar("T")

_LOSSES = 2
"""So often it is begun anew after a loss."""


class Ask(Protocol):
    """As `NodeClient` asks its node."""

    async def __call__(self, wanted: Exchange[T]) -> T:
        """Raises UdsError, IsoTpError, BusError."""


class Authentication:
    """One unlocking of the node with this serial number.  `on_repeat` is called each time it is begun anew.

    It sends at most two keys that the node judges wrong, the second only after a challenge was asked for again: fewer
    than a node grants before it locks itself (`AccessGuard.attempts`).
    """

    def __init__(self, ask: Ask, algorithm: AccessAlgorithm, serial: bytes, on_repeat: Callable[[], None]) -> None:
        self._ask = ask
        self._algorithm = algorithm
        self._serial = serial
        self._on_repeat = on_repeat

    async def run(self) -> None:
        """Raises AccessDenied, and what asking raises."""
        losses, forgiven = 0, False
        while True:
            try:
                await self._once()
                return
            except (UdsTimeout, IsoTpError):
                if losses == _LOSSES:
                    raise
                losses += 1
            except AccessDenied as error:
                if error.nrc != Nrc.INVALID_KEY or not losses or forgiven:
                    raise
                forgiven = True
            self._on_repeat()

    async def _once(self) -> None:
        challenge = await self._ask(exchange.request_seed())
        if challenge is not None:
            await self._ask(exchange.send_key(self._algorithm.answer(challenge, self._serial)))
