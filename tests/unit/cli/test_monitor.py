from __future__ import annotations

import pytest

from ess_can.bus.link_facts import LinkFacts, parse_ip_links
from tests.unit.bus.link_outputs import CAN0_250
from tests.unit.cli.run import document, record_senders, run


def test_for_people() -> None:
    result = run("monitor", "--sim")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "ess-can monitor  simulated plant  heard for 3.0 s"
    assert "rack 2    closed" in result.stdout
    assert "  bmu2          bmu           1.0.0" in result.stdout
    assert "not proved: 0 of 5 sources hold" in result.stdout
    assert max(len(line) for line in lines) <= 80


def test_blocks_of_lines_every_so_often() -> None:
    result = run("monitor", "--sim", "--duration", 10, "--every", 4)
    heads = [line for line in result.stdout.splitlines() if line.startswith("ess-can monitor")]
    assert [head.split()[-2] for head in heads] == ["4.0", "8.0", "10.0"]


def test_for_programs() -> None:
    result = run("monitor", "--sim", "--racks", 1, "--json")
    told = document(result)
    assert (result.exit_code, result.stderr, told["exit_code"], told["result"]) == (0, "", 0, "ok")
    assert told["listened_s"] == pytest.approx(3.0, abs=0.02)
    assert told["bus"]["frames"] == pytest.approx(3 * told["bus"]["frames_per_s"], rel=0.1)
    assert 0 < told["bus"]["load_percent"] < 5
    assert (told["bus"]["unknown_frames"], told["bus"]["unusable_frames"]) == (0, 0)
    assert told["pcs"]["state"] == "running"
    assert [rack["rack"] for rack in told["racks"]] == [1]
    assert {node["name"]: (node["version"], node["dbc_ok"]) for node in told["nodes"]} == {
        "comm_gateway": ("1.0.0", True),
        "bmu1": ("1.0.0", True),
    }
    for verdicts in told["e2e"]:
        assert verdicts["ok"] > 50
        assert (verdicts["lost"], verdicts["wrong_sequence"], verdicts["last"]) == (0, 0, "ok")


def test_it_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    senders = record_senders(monkeypatch)
    assert run("monitor", "--sim").exit_code == 0
    assert "PCS" in senders
    assert "EMS" not in senders


def test_a_silent_bus() -> None:
    result = run("monitor", "-i", "virtual", "-c", "test_monitor", "--duration", 0.2, "--json")
    told = document(result)
    assert (result.exit_code, told["exit_code"], told["error"]["name"]) == (14, 14, "BUS_SILENT")
    assert (told["pcs"], told["racks"], told["nodes"]) == (None, [], [])
    for_people = run("monitor", "-i", "virtual", "-c", "test_monitor", "--duration", 0.2)
    assert for_people.exit_code == 14
    assert "bus       silent" in for_people.stdout
    assert for_people.stderr.startswith("error BUS_SILENT")


def test_a_bus_that_is_not_there() -> None:
    result = run("monitor", "-i", "socketcan", "-c", "nonsense0", "--json")
    told = document(result)
    assert (told["error"]["name"], result.exit_code) == ("INTERFACE_UNAVAILABLE", 11)


def test_the_bit_rate_is_that_of_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    from ess_can.bus import link_facts
    from ess_can.cli.bus_options import BusOptions
    from ess_can.cli.monitor import _bit_timing

    def read_link(name: str) -> LinkFacts | None:
        return parse_ip_links(CAN0_250)[0] if name == "can0" else None

    monkeypatch.setattr(link_facts, "read_link", read_link)
    for options, bitrate, source in (
        (BusOptions("socketcan", "can0"), 250_000, "as set"),
        (BusOptions("socketcan", "can0", bitrate=125_000), 125_000, "by -b"),
        (BusOptions("socketcan", "can7"), 500_000, "assumed"),
        (BusOptions("pcan", "can0"), 500_000, "assumed"),
    ):
        timing, told = _bit_timing(options)
        assert (timing.bitrate, told) == (bitrate, source)


@pytest.mark.parametrize("arguments", [("--duration", 0), ("--every", 0), ("--duration", "nan")])
def test_what_makes_no_sense(arguments: tuple[object, ...]) -> None:
    assert run("monitor", "--sim", *arguments).exit_code == 2
