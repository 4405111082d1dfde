"""The HV-off gate: what counts as proof, what speaks against it, what ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.errors import HvClosed, HvOffNotProved, HvPermitRevoked
from ess_can.gateway.config import HvLimits
from ess_can.gateway.hv_gate import HvGate, Source, pcs_objection, rack_objection
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import BmsHvNotice, BmsHvStatus, ContactorState, HvNoticeCondition, PcsState, PcsStatus
from tests.support.scripted_plant import PCS_OFF, RACK_OFF

LIMITS = HvLimits()
CYCLE_S = 0.05
DISCONNECTED = HvNoticeCondition.DISCONNECTED


class TestRackObjection:
    def test_a_rack_that_is_off_has_none(self) -> None:
        assert rack_objection(RACK_OFF, LIMITS) is None

    @pytest.mark.parametrize("name", ["main_plus", "main_minus", "precharge"])
    @pytest.mark.parametrize("state", [ContactorState.CLOSED, ContactorState.MOVING, ContactorState.INVALID])
    def test_every_contactor_must_be_open(self, name: str, state: ContactorState) -> None:
        status = {
            "main_plus": replace(RACK_OFF, main_plus=state),
            "main_minus": replace(RACK_OFF, main_minus=state),
            "precharge": replace(RACK_OFF, precharge=state),
        }[name]
        objection = rack_objection(status, LIMITS)
        assert objection is not None
        assert state.name in objection.text
        assert objection.closed is (state is ContactorState.CLOSED)

    @pytest.mark.parametrize(
        ("status", "text", "closed"),
        [
            (replace(RACK_OFF, weld_plus=True), "welded", True),
            (replace(RACK_OFF, weld_minus=True), "welded", True),
            (replace(RACK_OFF, link_voltage_v=None), "invalid", False),
            (replace(RACK_OFF, current_a=None), "invalid", False),
            (replace(RACK_OFF, link_voltage_v=60.0), "link at 60.0 V", False),
            (replace(RACK_OFF, current_a=1.0), "1.0 A", False),
            (replace(RACK_OFF, current_a=-1.0), "-1.0 A", False),
            (replace(RACK_OFF, hv_off=False), "does not say HV off", False),
        ],
    )
    def test_what_speaks_against(self, status: BmsHvStatus, text: str, closed: bool) -> None:
        objection = rack_objection(status, LIMITS)
        assert objection is not None
        assert text in objection.text
        assert objection.closed is closed

    def test_just_below_the_limits_is_off(self) -> None:
        assert rack_objection(replace(RACK_OFF, link_voltage_v=59.9, current_a=-0.9), LIMITS) is None


class TestPcsObjection:
    def test_a_pcs_that_is_off_has_none(self) -> None:
        assert pcs_objection(PCS_OFF, LIMITS) is None

    @pytest.mark.parametrize("state", [state for state in PcsState if state is not PcsState.STANDBY])
    def test_only_standby_will_do(self, state: PcsState) -> None:
        objection = pcs_objection(replace(PCS_OFF, state=state), LIMITS)
        assert objection is not None
        assert state.name in objection.text

    @pytest.mark.parametrize(
        ("status", "text", "closed"),
        [
            (replace(PCS_OFF, contactors=ContactorState.CLOSED), "CLOSED", True),
            (replace(PCS_OFF, contactors=ContactorState.MOVING), "MOVING", False),
            (replace(PCS_OFF, contactors=ContactorState.INVALID), "INVALID", False),
            (replace(PCS_OFF, lock_acknowledged=False), "lock", False),
            (replace(PCS_OFF, dc_current_a=None), "current", False),
            (replace(PCS_OFF, dc_current_a=1.0), "current", False),
            (replace(PCS_OFF, dc_current_a=-1.0), "current", False),
        ],
    )
    def test_what_speaks_against(self, status: PcsStatus, text: str, closed: bool) -> None:
        objection = pcs_objection(status, LIMITS)
        assert objection is not None
        assert text in objection.text
        assert objection.closed is closed


class Bench:
    """A gate with two racks, fed cycle by cycle."""

    def __init__(self) -> None:
        self.gate = HvGate((1, 2), LIMITS, CYCLE_S)
        self.now = 100.0
        self.token = 0

    def poll(self) -> int:
        self.token += 1
        self.gate.poll_sent(self.token, self.now)
        return self.token

    def answer(self, token: int, condition: HvNoticeCondition = DISCONNECTED, racks: tuple[int, ...] = (1, 2)) -> None:
        for rack in racks:
            self.gate.on_notice(rack, BmsHvNotice(token, condition, 1.0), self.now)

    def cycle(
        self,
        *,
        rack_1: BmsHvStatus | None = RACK_OFF,
        pcs: PcsStatus | None = PCS_OFF,
        verdict: Verdict | None = Verdict.OK,
        answered: bool = True,
    ) -> None:
        self.now += CYCLE_S
        if rack_1 is not None:
            self.gate.on_rack_status(1, rack_1, verdict, self.now)
        self.gate.on_rack_status(2, RACK_OFF, Verdict.OK, self.now)
        if pcs is not None:
            self.gate.on_pcs_status(pcs, Verdict.OK, self.now)
        if answered:
            self.answer(self.poll())

    def cycles(self, count: int, *, answered: bool = True) -> None:
        for _ in range(count):
            self.cycle(answered=answered)

    @property
    def proved(self) -> bool:
        return not self.gate.missing(self.now)


class TestProof:
    def test_nothing_heard_is_no_proof_and_every_source_is_named(self) -> None:
        missing = HvGate((1, 2), LIMITS, CYCLE_S).missing(0.0)
        assert len(missing) == 5
        assert all(text.endswith("nothing was heard") for text in missing)
        assert {text.partition(":")[0] for text in missing} == {
            "PCS_Status",
            "rack 1 BMS_HvStatus",
            "rack 2 BMS_HvStatus",
            "rack 1 BMS_HvNotice",
            "rack 2 BMS_HvNotice",
        }

    def test_the_standing_of_every_source_is_told(self) -> None:
        bench = Bench()
        bench.cycles(10)
        standings = bench.gate.standings(bench.now)
        assert [(one.source, one.rack) for one in standings] == [
            (Source.PCS_STATUS, 0),
            (Source.RACK_STATUS, 1),
            (Source.RACK_NOTICE, 1),
            (Source.RACK_STATUS, 2),
            (Source.RACK_NOTICE, 2),
        ]
        assert {one.missing for one in standings} == {""}
        assert all(one.last_good_at is not None and bench.now - one.last_good_at <= 0.1 for one in standings)
        bench.gate.on_pcs_status(replace(PCS_OFF, state=PcsState.RUNNING), Verdict.OK, bench.now)
        assert bench.gate.standings(bench.now)[0].last_good_at is None
        assert bench.gate.standings(bench.now)[0].missing == "PCS is RUNNING, not STANDBY"

    def test_exactly_ten_good_cycles_are_needed(self) -> None:
        bench = Bench()
        bench.cycles(9)
        assert not bench.proved
        assert "only 9 of 10" in bench.gate.missing(bench.now)[0]
        bench.cycles(1)
        assert bench.proved
        assert bench.gate.lost(bench.now) is None

    def test_without_a_notice_there_is_no_proof(self) -> None:
        bench = Bench()
        bench.cycles(20, answered=False)
        assert len(bench.gate.missing(bench.now)) == 2

    def test_a_loss_starts_the_count_anew_before_the_proof(self) -> None:
        bench = Bench()
        bench.cycles(9)
        bench.cycle(verdict=Verdict.OK_SOME_LOST)
        assert not bench.proved
        bench.cycles(9)
        assert not bench.proved
        bench.cycles(1)
        assert bench.proved

    def test_a_loss_does_not_end_a_permit(self) -> None:
        bench = Bench()
        bench.cycles(10)
        bench.cycle(verdict=Verdict.OK_SOME_LOST)
        assert bench.gate.lost(bench.now) is None

    def test_messages_without_protection_never_prove_anything(self) -> None:
        bench = Bench()
        for _ in range(30):
            bench.cycle(verdict=None)
        assert not bench.proved

    def test_a_silence_starts_the_count_anew(self) -> None:
        bench = Bench()
        bench.cycles(10)
        bench.now += 0.3
        bench.cycles(9)
        assert not bench.proved
        bench.cycles(1)
        assert bench.proved

    def test_an_objection_starts_the_count_anew(self) -> None:
        bench = Bench()
        bench.cycles(9)
        bench.cycle(rack_1=replace(RACK_OFF, hv_off=False))
        bench.cycles(9)
        assert not bench.proved
        bench.cycles(1)
        assert bench.proved

    def test_racks_that_are_not_ours_change_nothing(self) -> None:
        bench = Bench()
        bench.cycles(10)
        bench.gate.on_rack_status(3, replace(RACK_OFF, weld_plus=True), Verdict.OK, bench.now)
        bench.gate.on_notice(3, BmsHvNotice(bench.token, HvNoticeCondition.WELDED, 0.0), bench.now)
        bench.gate.on_bad_frame(Source.RACK_STATUS, 3, None)
        assert bench.proved


class TestLoss:
    def proved(self) -> Bench:
        bench = Bench()
        bench.cycles(12)
        assert bench.proved
        return bench

    @pytest.mark.parametrize("source", list(Source))
    @pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.REPEATED, Verdict.WRONG_SEQUENCE, None])
    def test_one_bad_frame_ends_it_at_once(self, source: Source, verdict: Verdict | None) -> None:
        bench = self.proved()
        bench.gate.on_bad_frame(source, 0 if source is Source.PCS_STATUS else 1, verdict)
        error = bench.gate.lost(bench.now)
        assert isinstance(error, HvPermitRevoked)
        assert "bad frame" in error.why
        assert source.value in error.why

    def test_a_silent_rack_ends_it_after_three_missed_cycles(self) -> None:
        bench = self.proved()
        for _ in range(4):
            bench.cycle(rack_1=None)
        bench.now -= 0.0001
        assert bench.gate.lost(bench.now) is None
        error = bench.gate.lost(bench.now + 0.001)
        assert isinstance(error, HvPermitRevoked)
        assert "silent for 0.20 s" in error.why

    def test_a_silent_pcs_ends_it(self) -> None:
        bench = self.proved()
        for _ in range(5):
            bench.cycle(pcs=None)
        assert isinstance(bench.gate.lost(bench.now), HvPermitRevoked)

    def test_the_evidence_age_caps_a_slow_cycle(self) -> None:
        gate = HvGate((1,), LIMITS, 0.1)
        for n in range(10):
            gate.on_rack_status(1, RACK_OFF, Verdict.OK, n * 0.1)
            gate.on_pcs_status(PCS_OFF, Verdict.OK, n * 0.1)
        gate.poll_sent(7, 0.9)
        gate.on_notice(1, BmsHvNotice(7, DISCONNECTED, 0.0), 0.9)
        assert gate.missing(1.149) == ()
        assert len(gate.missing(1.151)) == 3

    def test_unanswered_polls_end_it_250_ms_after_the_last_answered_one(self) -> None:
        bench = self.proved()
        asked_at = bench.now
        for _ in range(5):
            bench.cycle(answered=False)
        assert bench.now - asked_at == pytest.approx(0.25)
        assert bench.gate.lost(bench.now - 0.0001) is None
        assert isinstance(bench.gate.lost(bench.now + 0.001), HvPermitRevoked)

    @pytest.mark.parametrize(
        "status", [replace(RACK_OFF, main_plus=ContactorState.CLOSED), replace(RACK_OFF, weld_minus=True)]
    )
    def test_a_closed_or_welded_contactor_is_hv_closed(self, status: BmsHvStatus) -> None:
        bench = self.proved()
        bench.cycle(rack_1=status)
        assert isinstance(bench.gate.lost(bench.now), HvClosed)

    def test_a_closed_pcs_contactor_is_hv_closed(self) -> None:
        bench = self.proved()
        bench.cycle(pcs=replace(PCS_OFF, contactors=ContactorState.CLOSED))
        assert isinstance(bench.gate.lost(bench.now), HvClosed)

    @pytest.mark.parametrize(
        ("condition", "kind"),
        [
            (HvNoticeCondition.WELDED, HvClosed),
            (HvNoticeCondition.UNKNOWN, HvPermitRevoked),
            (HvNoticeCondition.NOT_DISCONNECTED, HvPermitRevoked),
        ],
    )
    def test_a_notice_against_it_ends_it(self, condition: HvNoticeCondition, kind: type[Exception]) -> None:
        bench = self.proved()
        bench.answer(bench.poll(), condition, racks=(2,))
        error = bench.gate.lost(bench.now)
        assert isinstance(error, kind)
        assert condition.name in error.why

    def test_two_sources_that_contradict_each_other_prove_nothing(self) -> None:
        bench = self.proved()
        bench.cycle(pcs=replace(PCS_OFF, dc_current_a=20.0))
        assert isinstance(bench.gate.lost(bench.now), HvPermitRevoked)
        assert not bench.proved


class TestQueued:
    """Statuses that waited in their sender's queue, as on a bus that was jammed, and then come at once."""

    def burst(self, bench: Bench, count: int) -> None:
        for _ in range(count):
            bench.now += 0.00025
            for rack in (1, 2):
                bench.gate.on_rack_status(rack, RACK_OFF, Verdict.OK, bench.now)
            bench.gate.on_pcs_status(PCS_OFF, Verdict.OK, bench.now)
        bench.answer(bench.poll())

    def test_a_burst_counts_as_one(self) -> None:
        bench = Bench()
        self.burst(bench, 12)
        assert not bench.proved
        assert "only 1 of 10 good in a row" in bench.gate.missing(bench.now)[0]
        bench.cycles(8)
        assert not bench.proved
        bench.cycles(1)
        assert bench.proved

    def test_a_burst_after_nine_is_the_tenth_and_no_more(self) -> None:
        bench = Bench()
        bench.cycles(5)
        bench.now += 0.15
        self.burst(bench, 12)
        bench.cycles(3)
        assert not bench.proved
        bench.cycles(1)
        assert bench.proved

    def test_a_queue_that_is_worked_off_slowly_proves_no_sooner(self) -> None:
        bench = Bench()
        began_at = bench.now
        while not bench.proved:
            self.burst(bench, 1)
            bench.now += 0.03
        assert bench.now - began_at >= 8.5 * CYCLE_S

    @pytest.mark.parametrize("early", [1, -1])
    def test_statuses_that_come_a_little_early_or_late_count(self, early: int) -> None:
        bench = Bench()
        for n in range(10):
            bench.now += early * (-1) ** n * 0.012
            bench.cycle()
            bench.now -= early * (-1) ** n * 0.012
        assert bench.proved

    def test_the_first_of_a_burst_makes_the_evidence_no_newer_than_it_is(self) -> None:
        """It was due a cycle after the last one; the rest of the burst never comes."""
        bench = Bench()
        bench.cycles(12)
        last_at = bench.now
        bench.now += 0.1
        bench.cycle()  # each is but one step further in the sequence
        assert bench.gate.lost(last_at + 1.1 * CYCLE_S + 0.199) is None
        error = bench.gate.lost(last_at + 1.1 * CYCLE_S + 0.201)
        assert isinstance(error, HvPermitRevoked)

    def test_the_last_of_a_burst_is_new(self) -> None:
        bench = Bench()
        bench.cycles(12)
        bench.now += 0.15
        self.burst(bench, 3)
        assert bench.gate.lost(bench.now + 0.199) is None

    def test_a_sender_that_left_some_out_is_heard_as_new_after_a_while(self) -> None:
        bench = Bench()
        bench.cycles(12)
        bench.now += 0.05
        for _ in range(11):
            bench.cycle()
            assert bench.gate.lost(bench.now) is None
        assert bench.gate.standings(bench.now)[0].last_good_at == pytest.approx(bench.now)


class TestTokens:
    def statuses(self) -> Bench:
        bench = Bench()
        bench.cycles(10, answered=False)
        return bench

    def test_an_answer_to_nobody_counts_neither_for_nor_against(self) -> None:
        bench = self.statuses()
        bench.answer(0xABCDEF)
        assert not bench.proved
        bench.answer(bench.poll())
        assert bench.proved
        bench.answer(0xABCDEF, HvNoticeCondition.WELDED)
        assert bench.proved

    def test_a_stale_token_counts_for_nothing(self) -> None:
        bench = self.statuses()
        token = bench.poll()
        bench.now += LIMITS.token_age_s + 0.01
        bench.answer(token)
        assert all("nothing was heard" in text for text in bench.gate.missing(bench.now) if "Notice" in text)

    def test_a_late_answer_is_as_old_as_its_question(self) -> None:
        bench = self.statuses()
        token = bench.poll()
        bench.cycles(4, answered=False)
        bench.answer(token)
        assert bench.proved
        bench.cycles(2, answered=False)
        assert not bench.proved
        assert isinstance(bench.gate.lost(bench.now), HvPermitRevoked)

    def test_the_answer_to_an_older_poll_does_not_make_the_evidence_older(self) -> None:
        bench = self.statuses()
        old, new = bench.poll(), 0
        bench.cycles(4, answered=False)
        new = bench.poll()
        bench.answer(new)
        bench.answer(old)
        bench.cycles(3, answered=False)
        assert bench.proved

    def test_old_tokens_are_forgotten(self) -> None:
        bench = self.statuses()
        for _ in range(100):
            bench.poll()
            bench.now += 0.1
        assert len(bench.gate._tokens) <= 7


class TestNotProved:
    def test_it_names_what_is_missing(self) -> None:
        gate = HvGate((1,), LIMITS, CYCLE_S)
        error = gate.not_proved(0.0)
        assert isinstance(error, HvOffNotProved)
        assert "rack 1 BMS_HvStatus: nothing was heard" in error.why

    def test_evidence_for_on_makes_it_hv_closed(self) -> None:
        bench = Bench()
        bench.cycle(rack_1=replace(RACK_OFF, main_minus=ContactorState.CLOSED))
        assert isinstance(bench.gate.not_proved(bench.now), HvClosed)
        bench.cycle()
        assert isinstance(bench.gate.not_proved(bench.now), HvOffNotProved)
