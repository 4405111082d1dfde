from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from ess_can.cli.load_options import LoadOptions, load_options
from ess_can.gateway.config import BusLimits, GatewayConfig
from tests.support.scripted_plant import BMU1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", LoadOptions()),
        ("--max-bus-load 40", LoadOptions(40.0)),
        ("--yield-to-traffic", LoadOptions(yields=True)),
        ("--max-bus-load 12.5 --no-yield-to-traffic", LoadOptions(12.5, yields=False)),
    ],
)
def test_a_command_gets_one_argument_for_the_load(arguments: str, expected: LoadOptions) -> None:
    seen: list[LoadOptions] = []

    @click.command()
    @load_options
    def command(load: LoadOptions) -> None:
        seen.append(load)

    CliRunner().invoke(command, arguments.split(), catch_exceptions=False)
    assert seen == [expected]


@pytest.mark.parametrize("percent", ["0", "-1", "101", "much"])
def test_what_is_no_percentage(percent: str) -> None:
    @click.command()
    @load_options
    def command(load: LoadOptions) -> None:
        raise AssertionError(load)

    assert CliRunner().invoke(command, ["--max-bus-load", percent]).exit_code == 2


def test_the_command_line_goes_before_the_file() -> None:
    config = GatewayConfig((BMU1,), bus=BusLimits(30.0, yield_to_traffic=True))
    assert LoadOptions().applied_to(config) == config
    assert LoadOptions(40.0).applied_to(config).bus == BusLimits(40.0, yield_to_traffic=True)
    assert LoadOptions(yields=False).applied_to(config).bus == BusLimits(30.0)
