from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ess_can.campaign.moments import Moment
from ess_can.gateway.phases import Phase

SECONDS = st.floats(0, 1e9, allow_nan=False)
MOMENTS = st.builds(
    Moment, SECONDS, st.none() | st.sampled_from(Phase), st.none() | SECONDS, st.none() | st.integers(1, 99)
)


@given(MOMENTS)
def test_a_moment_reads_as_it_is_written(moment: Moment) -> None:
    assert Moment.parse(moment.text) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("3.5", Moment(3.5)),
        ("PROGRAM+0.2~4", Moment(0.2, Phase.PROGRAM, 4.0)),
        ("TRIAL_BOOT", Moment(0.0, Phase.TRIAL_BOOT)),
        ("2:ROLL_BACK+0.1", Moment(0.1, Phase.ROLL_BACK, attempt=2)),
        ("3:1~2", Moment(1.0, None, 2.0, 3)),
    ],
)
def test_moments(text: str, moment: Moment) -> None:
    assert Moment.parse(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "nan",
        "inf",
        "NO_PHASE+1",
        "PROGRAM+",
        "1~",
        "1~-2",
        "PROGRAM-1",
        "0:1",
        "x:1",
        ":1",
        "-1:1",
        "2:",
        "2:2:1",
    ],
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Moment.parse(text)


@pytest.mark.parametrize("text", ["0:1", "x:1", ":1", "-1:1", "2:", "2:2:1"])
def test_what_is_no_attempt(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Moment.parse(text)
