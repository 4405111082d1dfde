"""Who may boot another image at its next restart."""

from __future__ import annotations

from ess_can.gateway.armed_trials import ArmedTrials
from ess_can.uds.target import BootState
from tests.support.scripted_plant import BMU1, BMU2, OLD


def test_nobody_unless_there_is_a_reason() -> None:
    armed = ArmedTrials()
    armed.told(BMU1, BootState(0, 0, 1, OLD))
    assert armed.nodes == ()


def test_a_node_that_says_so_itself() -> None:
    armed = ArmedTrials()
    armed.told(BMU2, BootState(0, 0, 1, OLD, armed=True))
    assert armed.nodes == (BMU2,)


def test_it_takes_more_than_a_node_that_does_not_say_so() -> None:
    armed = ArmedTrials()
    armed.suspect(BMU2, BMU1)
    armed.told(BMU1, BootState(0, 0, 1, OLD))
    assert list(armed.nodes) == [BMU1, BMU2]
    armed.ended(BMU1)
    armed.ended(BMU1)
    assert list(armed.nodes) == [BMU2]
