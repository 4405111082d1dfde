from __future__ import annotations

import pytest

from ess_can.errors import AccessDenied, UsageError
from ess_can.uds.access import CHALLENGE_LENGTH, AccessGuard, AccessState, CmacAccess, NoAccess
from ess_can.uds.target import Nrc
from tests.support.fake_target import SECRET, SERIAL, FakeStore
from tests.support.uds_server import Challenges

WRONG = bytes(16)


def guard(store: FakeStore, now: float = 0.0, challenges: Challenges | None = None) -> AccessGuard:
    return AccessGuard(CmacAccess(SECRET), SERIAL, challenges or Challenges(), store, now)


def seed_of(one: AccessGuard, now: float = 0.0) -> bytes:
    seed = one.request_seed(now)
    assert isinstance(seed, bytes)
    return seed


def right(seed: bytes) -> bytes:
    return CmacAccess(SECRET).answer(seed, SERIAL)


def fail(one: AccessGuard, times: int, now: float = 0.0) -> list[Nrc | None]:
    verdicts = []
    for _ in range(times):
        seed_of(one, now)
        verdicts.append(one.send_key(WRONG, now))
    return verdicts


def test_cmac_matches_the_vectors_of_rfc_4493() -> None:
    # RFC 4493 section 4, examples 2 (16 bytes) and 3 (40 bytes)
    cmac = CmacAccess(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    message = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411")
    assert cmac.answer(message[:16], b"").hex() == "070a16b46b4d4144f79bdd9dd04a287c"
    assert cmac.answer(message[:16], message[16:]).hex() == "dfa66747de9ae63030ca32611497c827"


def test_a_secret_of_another_length_is_refused_and_a_secret_is_never_shown() -> None:
    with pytest.raises(UsageError):
        CmacAccess(bytes(15))
    assert SECRET.hex() not in repr(CmacAccess(SECRET))
    assert "secret" not in repr(CmacAccess(SECRET))


def test_the_right_key_unlocks_until_locked_again() -> None:
    one = guard(FakeStore())
    assert one.send_key(right(seed_of(one)), 0.0) is None
    assert one.unlocked
    assert one.request_seed(0.0) == bytes(CHALLENGE_LENGTH)  # nothing to prove any more
    one.lock()
    assert not one.unlocked


def test_u10_a_challenge_has_128_bits_and_serves_for_one_key() -> None:
    one = guard(FakeStore())
    first = seed_of(one)
    assert len(first) * 8 == 128
    assert one.send_key(WRONG, 0.0) is Nrc.INVALID_KEY
    assert one.send_key(right(first), 0.0) is Nrc.REQUEST_SEQUENCE_ERROR
    assert not one.unlocked


def test_u10_a_recorded_key_does_not_fit_the_next_challenge() -> None:
    one = guard(FakeStore())
    recorded = right(seed_of(one))
    assert one.send_key(recorded, 0.0) is None
    one.lock()
    assert one.send_key(recorded, 0.0) is Nrc.REQUEST_SEQUENCE_ERROR
    seed_of(one)
    assert one.send_key(recorded, 0.0) is Nrc.INVALID_KEY


def test_a_new_challenge_and_a_lock_void_the_one_before() -> None:
    one = guard(FakeStore())
    first = seed_of(one)
    seed_of(one)
    assert one.send_key(right(first), 0.0) is Nrc.INVALID_KEY
    last = seed_of(one)
    one.lock()
    assert one.send_key(right(last), 0.0) is Nrc.REQUEST_SEQUENCE_ERROR


def test_the_key_of_another_node_does_not_fit() -> None:
    one = guard(FakeStore())
    assert one.send_key(CmacAccess(SECRET).answer(seed_of(one), b"BMU-0002"), 0.0) is Nrc.INVALID_KEY


@pytest.mark.parametrize("broken", [bytes(16), bytes(range(15))])
def test_a_broken_source_of_challenges_gives_no_challenge(broken: bytes) -> None:
    one = AccessGuard(CmacAccess(SECRET), SERIAL, lambda _: broken, FakeStore(), 0.0)
    assert one.request_seed(0.0) is Nrc.CONDITIONS_NOT_CORRECT
    assert one.send_key(right(broken), 0.0) is Nrc.REQUEST_SEQUENCE_ERROR


def test_u9_three_wrong_keys_start_the_delay() -> None:
    one = guard(FakeStore())
    assert fail(one, 3) == [Nrc.INVALID_KEY, Nrc.INVALID_KEY, Nrc.EXCEEDED_NUMBER_OF_ATTEMPTS]
    assert one.request_seed(9.999) is Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED
    assert one.send_key(WRONG, 9.999) is Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED
    assert one.send_key(right(seed_of(one, 10.0)), 10.0) is None


def test_u9_after_the_delay_each_wrong_key_starts_it_again() -> None:
    one = guard(FakeStore())
    fail(one, 3)
    assert fail(one, 1, now=10.0) == [Nrc.EXCEEDED_NUMBER_OF_ATTEMPTS]
    assert one.request_seed(19.999) is Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED


def test_u9_a_right_key_clears_the_count() -> None:
    store = FakeStore()
    one = guard(store)
    fail(one, 2)
    assert one.send_key(right(seed_of(one)), 0.0) is None
    assert store.state == AccessState()
    one.lock()
    assert fail(one, 2) == [Nrc.INVALID_KEY, Nrc.INVALID_KEY]


def test_u9_count_and_delay_survive_a_reset_and_the_delay_runs_again_in_full() -> None:
    store = FakeStore()
    fail(guard(store), 2)
    assert fail(guard(store), 1) == [Nrc.EXCEEDED_NUMBER_OF_ATTEMPTS]
    restarted = guard(store, now=100.0)
    assert restarted.request_seed(109.999) is Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED
    restarted.restart(109.999)
    assert restarted.request_seed(119.998) is Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED
    seed_of(restarted, 119.999)


def test_u9_an_attempt_is_on_record_before_it_is_judged() -> None:
    store = FakeStore()

    class Watching:
        def answer(self, challenge: bytes, serial: bytes) -> bytes:
            assert store.state == AccessState(failed_attempts=1)
            return WRONG

    one = AccessGuard(Watching(), SERIAL, Challenges(), store, 0.0)
    seed_of(one)
    assert one.send_key(WRONG, 0.0) is None
    assert store.history == [AccessState(1), AccessState()]


def test_a_client_without_a_secret_cannot_authenticate() -> None:
    with pytest.raises(AccessDenied):
        NoAccess().answer(bytes(16), SERIAL)
