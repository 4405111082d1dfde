"""The interlock: permission to erase, write or activate as a value that one holds, and that is revoked at once.

`Interlock` feeds the HV-off gate from the bus and polls the racks; `Interlock.prove_off` gives a `Permit`.  Work runs
inside ``async with permit:`` and is cancelled the moment the evidence is lost.

From the first proof on high voltage has to stay off, permit or not.  A valid status that says that it is on ends more
than a permit: `on_return` is told.  Silence and what is invalid say nothing; they only end the permit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from ess_can.bus.clock import Cycle, Guard, now, pause, suspended_s
from ess_can.bus.station import Received, Rejected, StationLink
from ess_can.errors import BusError, BusInterrupted, EssCanError, HvClosed, HvPermitRevoked, TransmitQueueFull
from ess_can.gateway.config import HvLimits
from ess_can.gateway.hv_gate import HvGate, Source, pcs_sign_of_on, rack_sign_of_on
from ess_can.gateway.orders import POLL_PHASE_S
from ess_can.signals.messages import BmsHvNotice, BmsHvStatus, EmsHvStatusPoll, PcsStatus

_CLOSED_S = 0.5
"""Contactors were seen open before anybody asks for a proof: closed for this long means that somebody closed them."""

_WATCH_PERIOD_S = 0.010
"""How often silence is looked for: far below the evidence age, so that a revocation is not late."""

_LATE_S = 0.020
"""Before a frame of a stream leaves, somebody has looked at the evidence no longer ago than this."""

_STARVED_S = 0.250
"""Nobody looked for so long: what was heard since may have waited in a queue, and its age is not known."""

_ASLEEP_S = 0.050
"""By which the two clocks that tell how long the machine slept may differ without a sleep."""


class Permit(Guard):
    """Proof that high voltage is off, from `granted_at` (loop seconds) until the proof ends; it never heals."""

    def __init__(self, granted_at: float) -> None:
        super().__init__()
        self.granted_at = granted_at


class Interlock:
    """Watches the evidence for "HV off" and grants permits on it.

    `slept_s` tells for how many seconds the machine has slept so far.  `on_return` is told when high voltage comes back
    after it was proved off, until `expect_return`.
    """

    def __init__(
        self,
        link: StationLink,
        racks: Iterable[int],
        limits: HvLimits,
        entropy: random.Random,
        *,
        slept_s: Callable[[], float] = suspended_s,
        on_return: Callable[[HvClosed], None] | None = None,
    ) -> None:
        self._link = link
        self._limits = limits
        self._entropy = entropy
        self._permits: list[Permit] = []
        self._on_return = on_return
        self._stays_off = False
        cycle_s = link.codec.route(BmsHvStatus).cycle_s
        if cycle_s is None:
            raise ValueError("BMS_HvStatus has no cycle time in the DBC")
        self.gate = HvGate(racks, limits, cycle_s)
        self._poll = Cycle(limits.poll_period_s, self._send_poll, phase_s=POLL_PHASE_S)
        self._watch = Cycle(_WATCH_PERIOD_S, self._check)
        self._tell_slept_s = slept_s
        self._slept_s = slept_s()
        self._looked_at = now()
        self._unwatch = link.bus.watch(self._on_bus)
        link.subscribe(BmsHvStatus, self._on_rack_status, self._on_rejected)
        link.subscribe(BmsHvNotice, self._on_notice, self._on_rejected)
        link.subscribe(PcsStatus, self._on_pcs_status, self._on_rejected)

    def start_polling(self) -> None:
        """Poll the racks' HV status from now on."""
        self._looked_at = now()
        self._poll.start()

    def close(self) -> None:
        """Stop polling and watching: every permit ends, because nobody looks after it any more."""
        self._poll.stop()
        self._watch.stop()
        self._unwatch()
        self.revoke(HvPermitRevoked("the interlock was closed", why="nobody watches the evidence any more"))

    async def prove_off(self, within_s: float) -> Permit:
        """Wait until high voltage is proved off, and give the permit.

        Raises HvOffNotProved after `within_s` seconds; HvClosed if it is said to be on, then or for a while.
        """
        deadline = now() + within_s
        closed_since: float | None = None
        while self._look(now()) or self.gate.missing(now()):
            closed_since = (closed_since or now()) if self.gate.speaks_for_on() else None
            if now() >= deadline or (closed_since is not None and now() - closed_since >= _CLOSED_S):
                raise self.gate.not_proved(now())
            await pause(_WATCH_PERIOD_S)
        permit = Permit(now())
        self._stays_off = True
        self._permits.append(permit)
        self._watch.start()
        return permit

    def expect_return(self) -> None:
        """From now on high voltage may come back: it is ordered to, or the plant gets its own control back."""
        self._stays_off = False

    def _require_off(self, source: str, sign: str) -> None:
        if sign and self._stays_off and self._on_return is not None:
            self._on_return(HvClosed("high voltage came back, and nobody ordered it", why=f"{source}: {sign}"))

    def _check(self, at: float) -> None:
        if not self._permits:
            self._watch.stop()
            return
        self._look(at)
        error = self.gate.lost(at)
        if error is not None:
            self.revoke(error)

    def _look(self, at: float) -> bool:
        """Whether nobody could look at the evidence for too long until now; then none of it stands any more."""
        slept_s = self._tell_slept_s()
        asleep_for_s, self._slept_s = slept_s - self._slept_s, slept_s
        blind_for_s, self._looked_at = at - self._looked_at, at
        if asleep_for_s > _ASLEEP_S:
            self._begin_anew(f"this machine slept for {asleep_for_s:.1f} s")
        elif blind_for_s > _STARVED_S:
            self._begin_anew(f"nobody could look for {blind_for_s:.2f} s")
        else:
            return False
        return True

    def _begin_anew(self, why: str) -> None:
        self.gate.begin_anew(why)
        self.revoke(HvPermitRevoked("the proof that high voltage is off is too old", why=why))

    def may_go_on(self) -> bool:
        """Whether a frame of a stream may leave now: false if what it may depend on turns out to be lost.

        For a program that was not run for a while, and now goes on before it could look.
        """
        if not self._permits:
            return True
        at = now()
        if at - self._looked_at > _LATE_S or self._tell_slept_s() - self._slept_s > _ASLEEP_S:
            self._check(at)
        return bool(self._permits)

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
        self._look(at)
        token = self._entropy.getrandbits(24)
        self.gate.poll_sent(token, at)
        try:
            self._link.send(EmsHvStatusPoll(token))
        except TransmitQueueFull:
            pass  # the next poll is 100 ms away; if none gets out the evidence ages and the permit ends
        except BusError as error:
            self._bus_ended(error)

    def _on_bus(self, error: BusError) -> None:
        if isinstance(error, BusInterrupted):
            self._begin_anew(str(error))
        elif error.ends_use:
            self._bus_ended(error)

    def _bus_ended(self, error: BusError) -> None:
        self.revoke(error)
        self._poll.stop()

    def _on_rack_status(self, received: Received[BmsHvStatus]) -> None:
        self._require_off(f"rack {received.index}", rack_sign_of_on(received.message, self._limits))
        self._check_now(received.at)  # a gap ends the permit even if nobody could look before this frame closed it
        self.gate.on_rack_status(received.index, received.message, received.verdict, received.at)
        self._check_now(received.at)

    def _on_pcs_status(self, received: Received[PcsStatus]) -> None:
        self._require_off("PCS", pcs_sign_of_on(received.message, self._limits))
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
