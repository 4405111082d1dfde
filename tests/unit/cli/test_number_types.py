from __future__ import annotations

import click
import pytest

from ess_can.cli.number_types import Finite


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "x"])
def test_what_is_no_finite_number_of_the_range_is_refused(value: str) -> None:
    with pytest.raises(click.BadParameter):
        Finite(min=0).convert(value, None, None)


def test_a_number_is_taken() -> None:
    assert Finite(min=0, min_open=True).convert("0.5", None, None) == 0.5
