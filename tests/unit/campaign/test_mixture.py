from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from ess_can.campaign.faults import FaultKind, parse_fault
from ess_can.campaign.mixture import NOT_BY_CHANCE, Comeback, Mixture, mixture_of, plain

_PROGRAM = """
from ess_can.campaign.mixture import mixture_of
print([mixture_of(seed).faults for seed in range(60)])
"""
MIXTURES = [mixture_of(seed) for seed in range(3000)]


def test_a_seed_means_the_same_in_every_process() -> None:
    told = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        told.add(done.stdout.strip())
    assert told == {str([mixture.faults for mixture in MIXTURES[:60]])}


def test_every_kind_of_fault_has_its_turn() -> None:
    kinds = Counter(parse_fault(text).kind for mixture in MIXTURES for text in mixture.faults)
    assert set(kinds) == set(FaultKind) - NOT_BY_CHANCE
    assert min(kinds.values()) > 30


def test_there_are_up_to_four_faults_and_sometimes_none() -> None:
    counts = Counter(len(mixture.faults) for mixture in MIXTURES)
    assert set(counts) == {0, 1, 2, 3, 4}
    assert counts[0] < 0.1 * len(MIXTURES)


def test_no_kind_comes_twice_in_a_run() -> None:
    for mixture in MIXTURES:
        kinds = [parse_fault(text).kind for text in mixture.faults]
        assert len(kinds) == len(set(kinds))


def test_most_faults_strike_where_it_matters() -> None:
    texts = " ".join(text for mixture in MIXTURES for text in mixture.faults)
    for phase in ("PROGRAM", "TRIAL_BOOT", "CONFIRM", "RECONNECT", "ROLL_BACK"):
        assert texts.count(f"@{phase}+") > 50


def test_what_is_told_of_a_fault_is_what_is_read() -> None:
    for mixture in MIXTURES[:500]:
        for text in mixture.faults:
            assert parse_fault(text).text == text


def test_racks_and_nodes_are_those_of_the_site() -> None:
    for mixture in MIXTURES:
        names = {str(node) for node in mixture.site.plant.addresses}
        for text in mixture.faults:
            family, _, rest = text.partition(":")
            if family in ("node", "flash", "firmware"):
                assert rest.partition(":")[0] in names


def test_restarts_come_late_and_soon() -> None:
    after = [seconds for mixture in MIXTURES for seconds in mixture.restarts]
    assert min(after) < 0.2
    assert max(after) > 19
    assert {len(mixture.restarts) for mixture in MIXTURES} == {1, 2, 3}


def test_somebody_resumes_gives_up_or_takes_over() -> None:
    for comebacks in (
        Counter(mixture.restarted_by for mixture in MIXTURES),
        Counter(mixture.healed_by for mixture in MIXTURES),
    ):
        assert min(comebacks[comeback] for comeback in Comeback) > 0.15 * len(MIXTURES)
        assert comebacks[Comeback.RESUME] > 0.5 * len(MIXTURES)


def test_some_faults_are_in_the_second_attempt_where_there_is_one() -> None:
    in_the_second = [text for mixture in MIXTURES for text in mixture.faults if "@2:" in text or "kill#2:" in text]
    assert len(in_the_second) > 100
    assert any("kill#2:" in text for text in mixture_of(8984).faults)  # two deaths are rare
    for mixture in MIXTURES:
        if set(mixture.faults) & set(in_the_second):
            first = [text for text in mixture.faults if text not in in_the_second]
            assert any(text.startswith(("gateway:kill", "gateway:power")) for text in first)


def test_a_plain_mixture() -> None:
    assert plain("bus:silent@1") == Mixture(1, plain().site, ("bus:silent@1",))


@pytest.mark.parametrize("kind", NOT_BY_CHANCE, ids=lambda kind: kind.name)
def test_what_nobody_survives_does_not_come_by_chance(kind: FaultKind) -> None:
    assert not any(parse_fault(text).kind is kind for mixture in MIXTURES for text in mixture.faults)
