"""What the demo's seconds are spent on, from the first order to high voltage restored, by the plant's true state.

`python -m benchmarks.demo_overhead` prints the same figures.
"""

from __future__ import annotations

import pytest

from benchmarks.demo_overhead import LIMIT_SHARE, Overhead, demo
from benchmarks.plant_timeline import Part, length, merged, within, without
from ess_can.gateway.config import HvLimits, TimeLimits
from ess_can.gateway.phases import Phase
from ess_can.signals.messages import BmsHvStatus
from ess_can.sim.hv_evidence import EvidenceSpec
from tests.scenario.support import station_codec

OTHER_SHARE = 0.01
"""Of what neither wire, physics nor a rule of the interlock asks for."""
POLL_S = 0.01


@pytest.fixture(scope="module")
def figure() -> Overhead:
    return demo()


def test_every_second_is_accounted_for(figure: Overhead) -> None:
    assert sum(figure.parts.values()) + figure.overhead_s == pytest.approx(figure.total_s)
    assert sum(seconds for _, seconds in figure.idle) == pytest.approx(figure.overhead_s)
    assert figure.parts[Part.WIRE] > 0.5 * figure.total_s
    assert figure.parts[Part.DISCHARGE] > 4.0
    assert figure.parts[Part.BOOT] == pytest.approx(0.8, abs=0.01)


def test_what_no_rule_asks_for_is_next_to_nothing(figure: Overhead) -> None:
    assert figure.other_share <= OTHER_SHARE
    assert dict(figure.idle)[Phase.PROGRAM] < 0.005
    assert dict(figure.idle)[Phase.CONFIRM] < 0.005


def test_on_a_larger_plant_the_rules_hardly_count(figure: Overhead) -> None:
    """Their time is the same however many racks there are."""
    larger = demo(5)
    assert larger.racks == 5
    assert larger.share <= LIMIT_SHARE == 0.03 < figure.share
    assert larger.overhead_s == pytest.approx(figure.overhead_s, rel=0.1)
    assert larger.other_share <= OTHER_SHARE


def test_a_rule_takes_no_longer_than_it_says(figure: Overhead) -> None:
    """The proof: a rack's own settling time, ten good statuses, the first of them up to a cycle later."""
    cycle_s = station_codec().route(BmsHvStatus).cycle_s or 0.0
    proof_s = EvidenceSpec().off_settling_s + HvLimits().consecutive_good * cycle_s
    assert proof_s - cycle_s - POLL_S <= figure.proof_s <= proof_s + POLL_S
    soak_s = TimeLimits().trial_soak_s
    assert soak_s - 0.05 <= figure.trial_s <= soak_s + POLL_S  # what the nodes are asked meanwhile is wire time


def test_spans_of_time() -> None:
    busy = merged([(4.0, 5.0), (1.0, 2.0), (1.5, 3.0)])
    assert busy == [(1.0, 3.0), (4.0, 5.0)]
    left = without([(0.0, 2.0), (2.5, 6.0)], busy)
    assert left == [(0.0, 1.0), (3.0, 4.0), (5.0, 6.0)]
    assert length(left) == 3.0
    assert within(left, 0.5, 3.5) == 1.0
