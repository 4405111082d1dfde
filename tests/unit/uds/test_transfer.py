from __future__ import annotations

import pytest

from ess_can.uds.target import Nrc
from ess_can.uds.transfer import FAILURES, TRANSITIONS, DataTransfer, Step, TransferState


def test_the_table_is_total() -> None:
    assert set(TRANSITIONS) == set(TransferState)
    assert all(set(row) == set(Step) for row in TRANSITIONS.values())


def test_every_state_is_reachable_from_idle() -> None:
    reached, fresh = {TransferState.IDLE}, {TransferState.IDLE}
    while fresh:
        ahead = {to for state in fresh for to in TRANSITIONS[state].values() if isinstance(to, TransferState)}
        ahead |= {FAILURES[step] for state in fresh for step in FAILURES if TRANSITIONS[state][step] not in Nrc}
        fresh = ahead - reached
        reached |= fresh
    assert reached == set(TransferState)


def test_u15_activation_is_in_order_only_after_the_memory_check() -> None:
    allowed = {state for state in TransferState if isinstance(TRANSITIONS[state][Step.ACTIVATE], TransferState)}
    assert allowed == {TransferState.VERIFIED}
    into = {(state, step) for state in TransferState for step in Step if TRANSITIONS[state][step] is _VERIFIED}
    assert {step for _, step in into} == {Step.VERIFY, Step.ACTIVATE}


_VERIFIED = TransferState.VERIFIED


def test_a_step_out_of_order_changes_nothing() -> None:
    transfer = DataTransfer()
    transfer.succeed(Step.BLOCK)
    transfer.fail(Step.ACTIVATE)
    assert transfer.state is TransferState.IDLE


def test_u3_t14_the_block_counter_starts_at_one_and_wraps_to_zero() -> None:
    transfer = DataTransfer()
    transfer.begin(0, 1000, 16)
    seen = []
    for _ in range(258):
        counter = next(c for c in range(256) if transfer.block_refusal(c, 1) is None)
        transfer.accept_block(1)
        seen.append(counter)
    assert seen == [*range(1, 256), 0, 1, 2]


@pytest.mark.parametrize(("length", "refusal"), [(0, 0x13), (1, None), (16, None), (17, 0x13)])
def test_a_block_has_at_least_one_byte_and_at_most_what_34_said(length: int, refusal: int | None) -> None:
    transfer = DataTransfer()
    transfer.begin(0, 1000, 16)
    assert transfer.block_refusal(1, length) == refusal


def test_u12_more_than_announced_is_refused() -> None:
    transfer = DataTransfer()
    transfer.begin(0, 20, 16)
    transfer.accept_block(16)
    assert transfer.block_refusal(2, 4) is None
    assert transfer.block_refusal(2, 5) is Nrc.TRANSFER_DATA_SUSPENDED
    assert not transfer.complete
    transfer.accept_block(4)
    assert transfer.complete
