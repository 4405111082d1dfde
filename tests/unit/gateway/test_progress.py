import pytest

from ess_can.gateway.progress import Event, Noted, Transferred, ignore, never_failing
from tests.support.scripted_plant import BMU1


def test_the_rest_takes_as_long_as_the_measured_rate_says() -> None:
    assert Transferred(0.0, BMU1, 250, 1000, 50.0).eta_s == 15.0
    assert Transferred(0.0, BMU1, 1000, 1000, 50.0).eta_s == 0.0


def test_without_a_rate_nobody_knows() -> None:
    assert Transferred(0.0, BMU1, 0, 1000, 0.0).eta_s == float("inf")


def test_a_callback_may_do_nothing() -> None:
    ignore(Noted(0.0, "nothing"))


def test_a_listener_that_fails_is_not_told_anything_more() -> None:
    told: list[Event] = []

    def breaks_at_the_second(event: Event) -> None:
        told.append(event)
        if len(told) == 2:
            raise BrokenPipeError("nobody reads")

    tell = never_failing(breaks_at_the_second)
    for number in range(4):
        tell(Noted(float(number), "something"))
    assert [event.at for event in told] == [0.0, 1.0]


def test_an_interruption_in_a_listener_is_no_failure_of_it() -> None:
    def interrupted(_event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        never_failing(interrupted)(Noted(0.0, "something"))
