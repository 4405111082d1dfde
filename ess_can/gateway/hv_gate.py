"""The HV-off gate: when does the evidence prove that high voltage is off?  Sans-IO.

High voltage counts as off only while every source says so, on E2E-valid and fresh frames, for a settling time: each
rack's BMS_HvStatus (contactors open, no weld, link voltage and current low), PCS_Status (standby, contactors open,
lock acknowledged, current low) and each rack's BMS_HvNotice that echoes the token of a recent poll.  Silence and
invalid data are never read as "off".

Statuses that waited in a sender's queue come in a burst once the bus is free: a settling time's worth of them within
milliseconds.  So one status counts a cycle, and each is as old as the one before it and its counter say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ess_can.errors import HvClosed, HvOffNotProved, HvPermitRevoked, PlantRefusal
from ess_can.gateway.config import HvLimits
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import (
    BmsHvNotice,
    BmsHvStatus,
    ContactorState,
    HvNoticeCondition,
    PcsState,
    PcsStatus,
)


class Source(Enum):
    """Kinds of evidence."""

    RACK_STATUS = "BMS_HvStatus"
    RACK_NOTICE = "BMS_HvNotice"
    PCS_STATUS = "PCS_Status"


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a message is no evidence for "off".  `closed` when it is evidence for "on"."""

    text: str
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How one source's evidence stands: what is `missing` for a proof (empty if nothing), and when it was last good.

    `rack` is 0 for the PCS; `last_good_at` in loop seconds, None while the source's last word was no evidence.
    """

    source: Source
    rack: int
    missing: str
    last_good_at: float | None


_SLOWEST = 1.1
"""How much longer than its cycle a sender may take from one status to the next: its clock, and what its tasks wait."""


@dataclass(slots=True)
class _Evidence:
    """What one source has shown: how many good messages in a row, the last of them, and what spoke against it.

    `last_good_at` is when that one can have been made at the latest.
    """

    needed: int
    max_age_s: float
    good_in_a_row: int = 0
    last_good_at: float | None = None
    objection: Objection = Objection("nothing was heard")
    _counts_from: float = 0.0

    def good(self, at: float) -> None:
        """A message that was made at `at` at the latest, and of which any number may come at once."""
        self.good_in_a_row += 1
        self.last_good_at = at

    def good_status(self, at: float, cycle_s: float, *, some_lost: bool) -> None:
        """A cyclic message that was received at `at`; `some_lost`: the counter says that some before it were lost."""
        before = self.last_good_at
        if before is None or not self.is_fresh(at):  # what follows a silence begins anew
            before = at
            self.good_in_a_row = 0
        # Of those that waited in a queue together only the last can be new.  Two cycles are the least if one was lost.
        self.last_good_at = min(at, before + _SLOWEST * cycle_s * (2 if some_lost else 1))
        if some_lost:
            self.good_in_a_row = 0
        elif self.good_in_a_row == 0:
            self.good_in_a_row = 1
            self._counts_from = at + cycle_s / 2
        elif at >= self._counts_from:
            # One a cycle over all, each half a cycle early or as late as it likes.
            self.good_in_a_row += 1
            self._counts_from = max(self._counts_from + cycle_s, at + cycle_s / 2)

    def bad(self, objection: Objection) -> None:
        self.good_in_a_row = 0
        self.last_good_at = None
        self.objection = objection

    @property
    def speaks_for_on(self) -> bool:
        return self.last_good_at is None and self.objection.closed

    def is_fresh(self, now: float) -> bool:
        return self.last_good_at is not None and now - self.last_good_at <= self.max_age_s

    def missing(self, now: float) -> str:
        """What is missing for a proof; empty if nothing."""
        if self.last_good_at is None:
            return self.objection.text
        if not self.is_fresh(now):
            return f"silent for {now - self.last_good_at:.2f} s"
        if self.good_in_a_row < self.needed:
            return f"only {self.good_in_a_row} of {self.needed} good in a row"
        return ""


def rack_sign_of_on(status: BmsHvStatus, limits: HvLimits) -> str:
    """What in a rack's status says that high voltage is on; empty if nothing does.  What is invalid says nothing."""
    contactors = (("main+", status.main_plus), ("main-", status.main_minus), ("precharge", status.precharge))
    signs = [f"{name} is CLOSED" for name, state in contactors if state is ContactorState.CLOSED]
    if status.link_voltage_v is not None and status.link_voltage_v >= limits.link_voltage_off_v:
        signs.append(f"link at {status.link_voltage_v:.1f} V")
    if status.current_a is not None and abs(status.current_a) >= limits.current_off_a:
        signs.append(f"{status.current_a:.1f} A flow")
    return ", ".join(signs)


def pcs_sign_of_on(status: PcsStatus, limits: HvLimits) -> str:
    """What in the PCS's status says that high voltage is on; empty if nothing does."""
    signs = ["its contactors are CLOSED"] if status.contactors is ContactorState.CLOSED else []
    if status.dc_current_a is not None and abs(status.dc_current_a) >= limits.current_off_a:
        signs.append(f"{status.dc_current_a:.1f} A flow")
    return ", ".join(signs)


def rack_objection(status: BmsHvStatus, limits: HvLimits) -> Objection | None:
    """What in a rack's status speaks against "HV off", the worse evidence counting; None if nothing does."""
    contactors = (("main+", status.main_plus), ("main-", status.main_minus), ("precharge", status.precharge))
    for name, state in contactors:
        if state is not ContactorState.OPEN:
            return Objection(f"{name} is {state.name}", closed=state is ContactorState.CLOSED)
    if status.weld_plus or status.weld_minus:
        return Objection("a contactor is welded", closed=True)
    if status.link_voltage_v is None or status.current_a is None:
        return Objection("link voltage or current is invalid")
    if status.link_voltage_v >= limits.link_voltage_off_v:
        return Objection(f"link at {status.link_voltage_v:.1f} V")
    if abs(status.current_a) >= limits.current_off_a:
        return Objection(f"{status.current_a:.1f} A flow")
    if not status.hv_off:
        return Objection("the BMU does not say HV off yet")
    return None


def pcs_objection(status: PcsStatus, limits: HvLimits) -> Objection | None:
    """What in the PCS's status speaks against "HV off"; None if nothing does."""
    if status.contactors is not ContactorState.OPEN:
        return Objection(f"PCS contactors {status.contactors.name}", closed=status.contactors is ContactorState.CLOSED)
    if status.state is not PcsState.STANDBY:
        return Objection(f"PCS is {status.state.name}, not STANDBY")
    if not status.lock_acknowledged:
        return Objection("PCS does not acknowledge the lock")
    if status.dc_current_a is None or abs(status.dc_current_a) >= limits.current_off_a:
        return Objection("PCS current is not zero")
    return None


class HvGate:
    """Collects evidence from all racks and the PCS, and says whether high voltage is proved off.

    All times are loop seconds; `cycle_s` is the cycle of all statuses.  `lost` is asked whenever something arrived and
    every cycle: it gives the error for which a granted permit must be revoked.
    """

    def __init__(self, racks: Iterable[int], limits: HvLimits, cycle_s: float) -> None:
        self.limits = limits
        silence_s = min(limits.evidence_age_s, (limits.missed_cycles + 1) * cycle_s)
        settle = limits.consecutive_good
        self._cycle_s = cycle_s
        self._racks = tuple(racks)
        self._sources: dict[tuple[Source, int], _Evidence] = {(Source.PCS_STATUS, 0): _Evidence(settle, silence_s)}
        for rack in self._racks:
            self._sources[Source.RACK_STATUS, rack] = _Evidence(settle, silence_s)
            self._sources[Source.RACK_NOTICE, rack] = _Evidence(1, limits.evidence_age_s)
        self._tokens: dict[int, float] = {}
        self._answered = True

    def begin_anew(self, why: str) -> None:
        """Forget all evidence, and count what arrives only once a rack has answered a poll that is sent from now on.

        What comes before that answer may have been waiting for long in some queue.  What speaks against "off" counts.
        """
        for evidence in self._sources.values():
            evidence.bad(Objection(why, closed=evidence.speaks_for_on))
        self._tokens.clear()
        self._answered = False

    def poll_sent(self, token: int, now: float) -> None:
        """A poll with this random token has been sent: answers that echo it count for a while."""
        self._tokens = {t: at for t, at in self._tokens.items() if now - at <= self.limits.token_age_s}
        self._tokens[token] = now

    def on_rack_status(self, rack: int, status: BmsHvStatus, verdict: Verdict | None, now: float) -> None:
        """A usable BMS_HvStatus arrived.  After a loss it is fresh evidence, but the settling count starts anew."""
        self._judge((Source.RACK_STATUS, rack), rack_objection(status, self.limits), verdict, now)

    def on_pcs_status(self, status: PcsStatus, verdict: Verdict | None, now: float) -> None:
        """A usable PCS_Status arrived."""
        self._judge((Source.PCS_STATUS, 0), pcs_objection(status, self.limits), verdict, now)

    def on_notice(self, rack: int, notice: BmsHvNotice, now: float) -> None:
        """A usable BMS_HvNotice arrived."""
        asked_at = self._tokens.get(notice.token)
        evidence = self._sources.get((Source.RACK_NOTICE, rack))
        if evidence is None or asked_at is None or now - asked_at > self.limits.token_age_s:
            return  # not an answer to us: neither for nor against
        self._answered = True
        if notice.condition is HvNoticeCondition.DISCONNECTED:
            # However late it comes, it was true after we had asked: that is its age.
            evidence.good(max(asked_at, evidence.last_good_at or asked_at))
        else:
            closed = notice.condition is HvNoticeCondition.WELDED
            evidence.bad(Objection(f"the BMU notifies {notice.condition.name}", closed=closed))

    def on_bad_frame(self, source: Source, rack: int, verdict: Verdict | None) -> None:
        """A frame of this source must not be used: its E2E check failed or it could not be decoded."""
        evidence = self._sources.get((source, rack))
        if evidence is not None:
            evidence.bad(Objection(f"bad frame ({verdict.name if verdict else 'undecodable'})"))

    def _judge(self, key: tuple[Source, int], objection: Objection | None, verdict: Verdict | None, now: float) -> None:
        evidence = self._sources.get(key)
        if evidence is None:
            return
        if objection is not None:
            evidence.bad(objection)
        elif self._answered:
            evidence.good_status(now, self._cycle_s, some_lost=verdict is not Verdict.OK)

    def standings(self, now: float) -> tuple[Standing, ...]:
        """How every source's evidence stands, the PCS first."""
        return tuple(
            Standing(source, rack, evidence.missing(now), evidence.last_good_at)
            for (source, rack), evidence in self._sources.items()
        )

    def missing(self, now: float) -> tuple[str, ...]:
        """What is still missing for the proof, one text a source; empty when high voltage is proved off."""
        return tuple(
            f"{self._name(key)}: {text}" for key, evidence in self._sources.items() if (text := evidence.missing(now))
        )

    def lost(self, now: float) -> PlantRefusal | None:
        """The error for which a permit must end now; None while its evidence stands."""
        gone = [(key, evidence) for key, evidence in self._sources.items() if not evidence.is_fresh(now)]
        if not gone:
            return None
        why = "; ".join(f"{self._name(key)}: {evidence.missing(now)}" for key, evidence in gone)
        if any(evidence.speaks_for_on for _, evidence in gone):
            return HvClosed("high voltage is not off any more", why=why)
        return HvPermitRevoked("the proof that high voltage is off was lost", why=why)

    def not_proved(self, now: float) -> PlantRefusal:
        """The error for a proof that did not become complete in time: HvClosed if there is evidence for "on"."""
        why = "; ".join(self.missing(now))
        if self.speaks_for_on():
            return HvClosed("high voltage is on, or a contactor is", why=why)
        return HvOffNotProved("high voltage is not proved off", why=why)

    def speaks_for_on(self) -> bool:
        """Whether some source's last word is evidence that high voltage is on, or that a contactor is closed."""
        return any(evidence.speaks_for_on for evidence in self._sources.values())

    @staticmethod
    def _name(key: tuple[Source, int]) -> str:
        source, rack = key
        return source.value if source is Source.PCS_STATUS else f"rack {rack} {source.value}"
