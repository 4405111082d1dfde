"""A message that a caller handed to an ISO-TP channel, until it has left or failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ess_can.errors import EssCanError, IsoTpError, NTimeoutA
from ess_can.isotp import IsoTpAddress


@dataclass(eq=False, slots=True)
class Outgoing:
    """`done` is what the caller waits for; None if nobody waits, and failures go to the channel's `on_error`."""

    payload: bytes
    done: asyncio.Future[None] | None

    @property
    def withdrawn(self) -> bool:
        """Whether its caller was cancelled."""
        return self.done is not None and self.done.cancelled()

    def finish(self, error: EssCanError | None, address: IsoTpAddress, on_error: Callable[[IsoTpError], None]) -> None:
        """It has left, or `error` says why not: tell whoever is to know."""
        if self.done is None:
            if isinstance(error, IsoTpError):
                on_error(error)
            elif error is not None:
                on_error(NTimeoutA(f"{address}: our message was not sent", why=str(error)))
        elif not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)


async def wait_for(job: Outgoing, withdraw: Callable[[Outgoing], None]) -> None:
    """Wait until `job` has left; withdraw it if the waiting is cancelled.  Raises what ended it."""
    if job.done is None:
        return
    try:
        await job.done
    except asyncio.CancelledError:
        if job.done.done() and not job.done.cancelled():
            job.done.exception()  # it ended in the very moment of the cancellation: nobody else will look at it
        withdraw(job)
        raise
