from __future__ import annotations

import pytest

from tests.unit.cli.run import REPORT_KEYS, document, python, run


def test_the_demo_for_programs() -> None:
    first = run("demo", "--racks", 1, "--json")
    assert first.exit_code == 0
    assert first.stderr == ""
    told = document(first)
    assert set(told) == REPORT_KEYS
    assert (told["result"], told["exit_code"], told["error"], told["dry_run"]) == ("done", 0, None, False)
    assert [phase["name"] for phase in told["phases"]][:3] == ["status_check", "ramp_down", "open_contactors"]
    for phase, following in zip(told["phases"], told["phases"][1:], strict=False):
        assert phase["start"] <= phase["end"] == following["start"]
    (node,) = told["nodes"]
    assert (node["name"], node["type"]) == ("bmu1", "bmu")
    assert (node["from_version"], node["to_version"]) == ("1.0.0", "1.1.0")
    assert node["bytes"] == node["bytes_sent"] > 250_000
    assert 0.95 < node["wire_efficiency"] <= 1.0
    assert 0 < node["transfer_s"] < told["hv_off_s"] < told["bus_time_s"]
    assert told["wall_time_s"] > 0
    assert len(told["trace_hash"]) == 64


def test_the_demo_for_people_without_a_terminal() -> None:
    done = python(["-m", "ess_can", "demo", "--racks", "1", "--fd", "--seed", "7"], env={"NO_COLOR": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "Simulated plant: 1 rack and a PCS at 500 kbit/s CAN FD; release 'Sample bmu'."
    assert any("HV-off proof (about " in line and line.endswith(" s left)") for line in lines)
    assert any("100 % of 268 KiB" in line for line in lines)
    assert "Done: every node runs its new firmware." in lines
    assert "the same seed gives the same" in done.stdout


@pytest.mark.parametrize("arguments", [("-b", "0"), ("--data-bitrate", "-1"), ("--racks", "0"), ("--seed", "x")])
def test_values_that_make_no_sense(arguments: tuple[str, str]) -> None:
    result = run("demo", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
