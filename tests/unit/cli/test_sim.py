from __future__ import annotations

import pytest

from tests.unit.cli.run import document, run


@pytest.mark.parametrize(
    "arguments", [(), ("-i", "socketcan", "-c", "can0"), ("-i", "pcan"), ("-c", "can0"), ("-i", "slcan", "-c", "COM3")]
)
def test_a_bus_that_may_be_real_is_refused(arguments: tuple[str, ...]) -> None:
    result = run("sim", *arguments, "--duration", 0.1, "--json")
    assert result.exit_code == 2
    told = document(result)
    assert told["error"]["name"] == "USAGE_ERROR"
    assert "--real-bus" in told["error"]["remedy"]


def test_real_bus_and_vcan_get_as_far_as_opening() -> None:
    for arguments in (("-i", "socketcan", "-c", "vcan7"), ("-i", "nonsense", "--real-bus")):
        assert run("sim", *arguments, "--duration", 0.1).exit_code == 11


def test_it_runs_for_the_given_time_and_sums_up() -> None:
    result = run("sim", "-i", "virtual", "-c", "test_sim", "--racks", 1, "--duration", 0.3, "--json")
    assert result.exit_code == 0
    assert result.stderr == "Simulated plant with 1 rack on virtual test_sim; Ctrl-C ends it.\nThe plant runs.\n"
    told = document(result)
    assert (told["result"], told["exit_code"], told["error"], told["lost"]) == ("ok", 0, None, 0)
    assert told["frames"] > 10
    assert {node["name"]: node["version"] for node in told["nodes"]} == {"bmu1": "1.0.0", "comm_gateway": "1.0.0"}
