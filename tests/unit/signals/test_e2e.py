"""AUTOSAR E2E Profile 5: public vectors, what the CRC finds, and the verdicts."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from ess_can.signals.e2e import E2eMonitor, E2eSender, Verdict, check, protect

DATA_ID = 0x1234
FRAME = protect(bytes.fromhex("0000005aa50ff03c"), DATA_ID, 77)
BITS = 64


def flipped(*bits: int) -> bytes:
    return (int.from_bytes(FRAME, "little") ^ sum(1 << bit for bit in bits)).to_bytes(8, "little")


def syndrome(bit: int) -> int:
    """By how much one flipped bit moves stored against computed CRC; by linearity errors add by exclusive or."""
    wrong = flipped(bit)
    difference = 0
    for frame in (FRAME, wrong):
        stored = int.from_bytes(frame[:2], "little")
        computed = int.from_bytes(protect(frame, DATA_ID, frame[2])[:2], "little")
        difference ^= stored ^ computed
    return difference


@pytest.mark.parametrize(("counter", "frame"), [(0, "1cca000000000000"), (1, "cf8d010000000000")])
def test_public_vectors(counter: int, frame: str) -> None:
    assert protect(bytes(8), DATA_ID, counter).hex() == frame
    assert check(bytes.fromhex(frame), DATA_ID)


def test_the_crc_is_ccitt_false() -> None:
    # the catalogue's check value is the CRC of "123456789": counter and data are its start, the data ID its end
    protected = protect(b"\0\0" + b"1234567", int.from_bytes(b"89", "little"), ord("1"))
    assert protected[:2] == (0x29B1).to_bytes(2, "little")


def test_what_was_in_the_header_does_not_matter() -> None:
    assert protect(bytes.fromhex("ffffff0102030405"), 1, 2) == protect(bytes.fromhex("0000000102030405"), 1, 2)


def test_protect_takes_bytearrays_and_leaves_them() -> None:
    data = bytearray(8)
    assert protect(data, DATA_ID, 0).hex() == "1cca000000000000"
    assert data == bytes(8)
    assert check(bytearray(FRAME), DATA_ID)


@pytest.mark.parametrize(
    ("data", "data_id", "counter"),
    [(b"\0\0", 0, 0), (bytes(8), -1, 0), (bytes(8), 0x10000, 0), (bytes(8), 0, -1), (bytes(8), 0, 256)],
)
def test_protect_refuses_what_cannot_be_protected(data: bytes, data_id: int, counter: int) -> None:
    with pytest.raises(ValueError, match=r"room|range"):
        protect(data, data_id, counter)


@pytest.mark.parametrize("length", range(3))
def test_a_frame_without_a_header_fails(length: int) -> None:
    assert not check(bytes(length), DATA_ID)


def test_every_other_data_id_fails() -> None:
    assert [data_id for data_id in range(0x10000) if check(FRAME, data_id)] == [DATA_ID]


def test_all_43744_errors_of_one_to_three_bits_are_found() -> None:
    tried = 0
    for count in (1, 2, 3):
        for bits in combinations(range(BITS), count):
            tried += 1
            assert not check(flipped(*bits), DATA_ID)
    assert tried == 43_744


def test_64_of_635376_four_bit_errors_are_missed() -> None:
    syndromes = [syndrome(bit) for bit in range(BITS)]
    assert 0 not in syndromes
    pairs: dict[int, list[tuple[int, int]]] = {}
    for first, second in combinations(range(BITS), 2):
        pairs.setdefault(syndromes[first] ^ syndromes[second], []).append((first, second))
    assert 0 not in pairs
    # four bits cancel where two pairs have one syndrome; each such four is found by its three ways to pair up
    ways = Counter(frozenset(one + other) for same in pairs.values() for one, other in combinations(same, 2))
    missed = {bits for bits in ways if len(bits) == 4}
    assert set(ways.values()) == {3}
    assert len(missed) == 64
    assert sum(1 for _ in combinations(range(BITS), 4)) == 635_376
    # the real check agrees, on those and on every 97th of the others
    assert all(check(flipped(*bits), DATA_ID) for bits in missed)
    for number, quad in enumerate(combinations(range(BITS), 4)):
        if number % 97 == 0 and frozenset(quad) not in missed:
            assert not check(flipped(*quad), DATA_ID)


def test_the_senders_counter_wraps() -> None:
    sender = E2eSender(DATA_ID)
    frames = [sender.protect(bytes(8)) for _ in range(258)]
    assert [frame[2] for frame in frames] == [*range(256), 0, 1]
    assert all(check(frame, DATA_ID) for frame in frames)


def test_a_sender_and_a_monitor_agree_over_the_wrap() -> None:
    sender, monitor = E2eSender(DATA_ID), E2eMonitor(DATA_ID)
    assert {monitor.receive(sender.protect(bytes(8)), 0.0) for _ in range(600)} == {Verdict.OK}
    assert monitor.consecutive_ok == 600


def frame_with(counter: int) -> bytes:
    return protect(bytes(8), DATA_ID, counter)


def test_the_reference_sequence_with_max_delta_1() -> None:
    monitor = E2eMonitor(DATA_ID, max_delta=1)
    corrupt = bytearray(frame_with(2))
    corrupt[5] ^= 0x10
    received: list[bytes | None] = [frame_with(counter) for counter in (0, 1, 1, 3, 4, 0, 1)]
    received += [bytes(corrupt), protect(bytes(8), DATA_ID + 1, 2), None, frame_with(2)]
    assert [monitor.receive(data, 0.0) for data in received] == [
        Verdict.OK,
        Verdict.OK,
        Verdict.REPEATED,
        Verdict.WRONG_SEQUENCE,
        Verdict.OK,
        Verdict.WRONG_SEQUENCE,
        Verdict.OK,
        Verdict.ERROR,
        Verdict.ERROR,
        Verdict.NO_NEW_DATA,
        Verdict.OK,
    ]


@pytest.mark.parametrize("max_delta", [1, 3])
def test_every_step_of_the_counter(max_delta: int) -> None:
    for delta in range(256):
        monitor = E2eMonitor(DATA_ID, max_delta)
        monitor.receive(frame_with(200), 0.0)
        verdict = monitor.receive(frame_with((200 + delta) % 256), 0.0)
        if delta == 0:
            assert verdict is Verdict.REPEATED
        elif delta == 1:
            assert verdict is Verdict.OK
        elif delta <= max_delta:
            assert verdict is Verdict.OK_SOME_LOST
        else:
            assert verdict is Verdict.WRONG_SEQUENCE


def test_who_joins_late_trusts_the_second_frame() -> None:
    monitor = E2eMonitor(DATA_ID)
    assert monitor.receive(frame_with(100), 0.0) is Verdict.WRONG_SEQUENCE
    assert monitor.last_good_at is None
    assert monitor.receive(frame_with(101), 0.1) is Verdict.OK
    assert monitor.last_good_at == 0.1


def test_only_ok_in_a_row_counts_for_a_permit() -> None:
    monitor = E2eMonitor(DATA_ID, max_delta=2)
    rows = []
    for counter in (0, 1, 2, 4, 5, 5, 6, 9, 10):
        monitor.receive(frame_with(counter), 0.0)
        rows.append(monitor.consecutive_ok)
    assert rows == [1, 2, 3, 0, 1, 0, 1, 0, 1]
    monitor.receive(None, 0.0)
    assert monitor.consecutive_ok == 1
    monitor.receive(bytes(8), 0.0)
    assert monitor.consecutive_ok == 0


def test_the_age_runs_from_the_last_good_frame() -> None:
    monitor = E2eMonitor(DATA_ID, max_delta=2)
    assert monitor.age(5.0) == float("inf")
    monitor.receive(frame_with(0), 1.0)
    monitor.receive(frame_with(2), 2.0)  # some lost, but good
    assert monitor.age(2.25) == 0.25
    for bad in (frame_with(2), frame_with(9), bytes(8), b"", None):
        monitor.receive(bad, 3.0)
    assert monitor.last_good_at == 2.0


def test_an_error_keeps_the_last_counter() -> None:
    monitor = E2eMonitor(DATA_ID)
    monitor.receive(frame_with(0), 0.0)
    assert monitor.receive(b"\0\0\x09" + bytes(5), 0.0) is Verdict.ERROR
    assert monitor.receive(frame_with(1), 0.0) is Verdict.OK


def test_a_frame_that_never_left_is_taken_back() -> None:
    sender = E2eSender(DATA_ID)
    first = sender.protect(bytes(8))
    sender.take_back()
    assert sender.protect(bytes(8)) == first
    sender.take_back()
    sender.take_back()
    assert sender.protect(bytes(8))[2] == 255
