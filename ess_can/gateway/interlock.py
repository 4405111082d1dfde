"""The interlock: permission to erase, write or activate as a value that one holds, and that is revoked at once.

`Interlock` feeds the HV-off gate from the bus and polls the racks; `Interlock.prove_off` gives a `Permit`.  Work runs
inside ``async with permit:`` and is cancelled the moment the evidence is lost.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from ess_can.bus.clock import Cycle, Guard, now, pause
from ess_can.bus.station import Received, Rejected, StationLink
from ess_can.errors import BusError, EssCanError, HvPermitRevoked, TransmitQueueFull
from ess_can.gateway.config import HvLimits
from ess_can.gateway.hv_gate import HvGate, Source
from ess_can.gateway.orders import POLL_PHASE_S
from ess_can.signals.messages import BmsHvNotice, BmsHvStatus, EmsHvStatusPoll, PcsStatus

_CLOSED_S = 0.5
"""Contactors were seen open before anybody asks for a proof: closed for this long means that somebody closed them."""

_WATCH_PERIOD_S = 0.010
"""How often silence is looked for: far below the evidence age, so that a revocation is not late."""


class Permit(Guard):
    """Proof that high voltage is off, from `granted_at` (loop seconds) until the proof ends; it never heals."""

    def __init__(self, granted_at: float) -> None:
        super().__init__()
        self.granted_at = granted_at


class Interlock:
    """Watches the evidence for "HV off" and grants permits on it."""

    def __init__(
        self,
        link: StationLink,
        racks: Iterable[int],
        limits: HvLimits,
        entropy: random.Random,
    ) -> None:
        self._link = link
        self._limits = limits
        self._entropy = entropy
        self._permits: list[Permit] = []
        cycle_s = link.codec.route(BmsHvStatus).cycle_s
        if cycle_s is None:
            raise ValueError("BMS_HvStatus has no cycle time in the DBC")
        self.gate = HvGate(racks, limits, cycle_s)
        self._poll = Cycle(limits.poll_period_s, self._send_poll, phase_s=POLL_PHASE_S)
        self._watch = Cycle(_WATCH_PERIOD_S, self._check)
        link.subscribe(BmsHvStatus, self._on_rack_status, self._on_rejected)
        link.subscribe(BmsHvNotice, self._on_notice, self._on_rejected)
        link.subscribe(PcsStatus, self._on_pcs_status, self._on_rejected)

    def start_polling(self) -> None:
        """Poll the racks' HV status from now on."""
        self._poll.start()

    def close(self) -> None:
        """Stop polling and watching: every permit ends, because nobody looks after it any more."""
        self._poll.stop()
        self._watch.stop()
        self.revoke(HvPermitRevoked("the interlock was closed", why="nobody watches the evidence any more"))

    async def prove_off(self, within_s: float) -> Permit:
        """Wait until high voltage is proved off, and give the permit.

        Raises HvOffNotProved after `within_s` seconds; HvClosed if it is said to be on, then or for a while.
        """
        deadline = now() + within_s
        closed_since: float | None = None
        while self.gate.missing(now()):
            closed_since = (closed_since or now()) if self.gate.speaks_for_on() else None
            if now() >= deadline or (closed_since is not None and now() - closed_since >= _CLOSED_S):
                raise self.gate.not_proved(now())
            await pause(_WATCH_PERIOD_S)
        permit = Permit(now())
        self._permits.append(permit)
        self._watch.start()
        return permit

    def _check(self, at: float) -> None:
        if not self._permits:
            self._watch.stop()
            return
        error = self.gate.lost(at)
        if error is not None:
            self.revoke(error)

    def revoke(self, error: EssCanError) -> None:
        """End every permit."""
        permits, self._permits = self._permits, []
        for permit in permits:
            permit.trip(error)

    def release(self, permit: Permit) -> None:
        """The holder does not need the permit any more.  It ends: what is not watched must not permit anything."""
        if permit in self._permits:
            self._permits.remove(permit)
        permit.trip(HvPermitRevoked("the permit was given back", why="it is not watched any more"))

    def _send_poll(self, at: float) -> None:
        token = self._entropy.getrandbits(24)
        self.gate.poll_sent(token, at)
        try:
            self._link.send(EmsHvStatusPoll(token))
        except TransmitQueueFull:
            pass  # the next poll is 100 ms away; if none gets out the evidence ages and the permit ends
        except BusError as error:
            self.revoke(error)
            self._poll.stop()

    def _on_rack_status(self, received: Received[BmsHvStatus]) -> None:
        self._check_now(received.at)  # a gap ends the permit even if nobody could look before this frame closed it
        self.gate.on_rack_status(received.index, received.message, received.verdict, received.at)
        self._check_now(received.at)

    def _on_pcs_status(self, received: Received[PcsStatus]) -> None:
        self._check_now(received.at)
        self.gate.on_pcs_status(received.message, received.verdict, received.at)
        self._check_now(received.at)

    def _on_notice(self, received: Received[BmsHvNotice]) -> None:
        self._check_now(received.at)
        self.gate.on_notice(received.index, received.message, received.at)
        self._check_now(received.at)

    def _on_rejected(self, rejected: Rejected) -> None:
        source = _SOURCES[rejected.message_type]
        self.gate.on_bad_frame(source, 0 if source is Source.PCS_STATUS else rejected.index, rejected.verdict)
        self._check_now(rejected.at)

    def _check_now(self, at: float) -> None:
        if self._permits:
            self._check(at)


_SOURCES = {
    BmsHvStatus: Source.RACK_STATUS,
    BmsHvNotice: Source.RACK_NOTICE,
    PcsStatus: Source.PCS_STATUS,
}
