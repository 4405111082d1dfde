from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ess_can.bus import interfaces, link_facts, machine_facts
from ess_can.bus.interfaces import Found
from ess_can.bus.link_facts import LinkFacts, parse_ip_links
from ess_can.bus.machine_facts import MachineFacts
from ess_can.can.frame import CanFrame
from ess_can.cli import embedded
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.dbc import StationCodec
from ess_can.sim.plant import Plant, PlantSpec
from tests.unit.bus.link_outputs import CAN0_BUS_OFF, VCAN_DOWN
from tests.unit.cli.run import document, record_senders, run

NO_CAN = "OSError: [Errno 97] Address family not supported by protocol"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the machine says: `no_can`, and as many interfaces as are put in, by name."""
    said: dict[str, str] = {"no_can": ""}
    original = machine_facts.read_machine

    def read_machine(interface: str | None, channel: str | None, folder: Path) -> MachineFacts:
        return replace(original(interface, channel, folder), no_can=said["no_can"], in_container=False)

    def read_link(name: str) -> LinkFacts | None:
        return next(iter(parse_ip_links(said.get(name, ""))), None)

    monkeypatch.setattr(machine_facts, "read_machine", read_machine)
    monkeypatch.setattr(link_facts, "read_link", read_link)
    return said


def findings(told: Any) -> dict[tuple[str, str], Any]:
    return {(one["group"], one["name"]): one for one in told["findings"]}


def test_a_simulated_plant_is_well() -> None:
    result = run("doctor", "--sim", "--racks", 2, "--transmit")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["machine", "interface", "bus", "plant", lines[-1]]
    assert lines[-1].endswith("Next: ess-can status --sim --racks 2")
    assert "comm_gateway, bmu1, bmu2 and the PCS" in result.stdout
    assert "comm_gateway answers: it runs 1.0.0" in result.stdout


def test_for_programs() -> None:
    result = run("doctor", "--sim", "--json")
    told = document(result)
    assert (result.exit_code, told["exit_code"], told["result"], told["error"]) == (0, 0, "ok", None)
    assert told["next_command"] == "ess-can status --sim"
    found = findings(told)
    assert found["plant", "transmission"]["outcome"] == "not applicable"
    assert found["bus", "traffic"]["outcome"] == "ok"
    for one in told["findings"]:
        assert one["outcome"] in ("ok", "warning", "problem", "not applicable")
        assert (one["outcome"] == "problem") == (one["error"] is not None) == (one["exit_code"] != 0)
        assert one["outcome"] != "warning" or one["remedy"]


def test_it_sends_nothing_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    senders = record_senders(monkeypatch)
    assert run("doctor", "--sim").exit_code == 0
    assert "PCS" in senders
    assert "EMS" not in senders
    assert run("doctor", "--sim", "--transmit").exit_code == 0
    assert "EMS" in senders


def test_it_asks_nobody_whom_somebody_else_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    original = embedded.make_plant

    def make_plant(spec: PlantSpec, codec: StationCodec) -> Plant:
        plant = original(spec, codec)
        tester = plant.wire.controller("tester")
        request = CanFrame(codec.diagnostic_ids(NodeAddress(NodeType.BMU, 1))[0], b"\x02\x3e\x80")
        asyncio.get_running_loop().call_later(2.5, tester.send, request)
        return plant

    monkeypatch.setattr(embedded, "make_plant", make_plant)
    seen = findings(document(run("doctor", "--sim", "--transmit", "--json")))["plant", "transmission"]["seen"]
    assert seen.startswith("nothing was sent: somebody else sends UDS_Request_BMU1")


def test_a_silent_bus() -> None:
    result = run("doctor", "-i", "virtual", "-c", "test_doctor", "--racks", 1, "--transmit", "--json")
    told = document(result)
    assert (result.exit_code, told["error"]["name"], told["result"]) == (14, "BUS_SILENT", "error")
    found = findings(told)
    assert found["interface", "named"]["seen"] == "virtual, channel test_doctor by the command line"
    assert found["interface", "opening"]["outcome"] == "ok"
    assert found["plant", "transmission"]["seen"] == "nothing was sent: no node is heard that could be asked"
    assert told["next_command"] is None
    assert told["error"]["remedy"]


def test_a_kernel_without_can(kernel: dict[str, str]) -> None:
    kernel["no_can"] = NO_CAN
    result = run("doctor", "-i", "socketcan", "-c", "can0")
    assert result.exit_code == 11
    assert "CAN sockets    this kernel has no CAN sockets (AF_CAN): OSError: [Errno 97]" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 problem. Next: modprobe can-raw vcan"


def test_an_interface_that_does_not_exist(kernel: dict[str, str]) -> None:
    result = run("doctor", "-i", "socketcan", "-c", "vcan7", "--json")
    told = document(result)
    assert (result.exit_code, told["error"]["name"]) == (11, "INTERFACE_UNAVAILABLE")
    assert told["next_command"].startswith("ip link add dev vcan7 type vcan")
    assert findings(told)["bus", "traffic"]["outcome"] == "not applicable"


@pytest.mark.parametrize(
    ("channel", "link", "name", "exit_code"),
    [("vcan0", VCAN_DOWN, "INTERFACE_DOWN", 7), ("can0", CAN0_BUS_OFF, "BUS_OFF", 13)],
)
def test_links_in_trouble(kernel: dict[str, str], channel: str, link: str, name: str, exit_code: int) -> None:
    kernel[channel] = link
    result = run("doctor", "-i", "socketcan", "-c", channel, "--json")
    told = document(result)
    assert (result.exit_code, told["error"]["name"]) == (exit_code, name)
    assert told["next_command"].startswith(f"ip link set {channel} ")


def test_nobody_says_which_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    import can
    import can.util

    monkeypatch.setattr(can.util, "CONFIG_FILES", [])
    monkeypatch.setattr(can, "rc", {})
    for name in ("CAN_INTERFACE", "CAN_CHANNEL", "CAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    result = run("doctor")
    assert result.exit_code == 11
    assert result.stdout.splitlines()[-1] == "1 problem. Next: ess-can doctor --list"


def test_an_adapter_that_does_not_open() -> None:
    told = document(run("doctor", "-i", "nonsense", "--json"))
    assert told["error"]["name"] == "INTERFACE_UNAVAILABLE"
    assert "opening" in {one["name"] for one in told["findings"] if one["error"]}
    last = run("doctor", "-i", "nonsense").stdout.splitlines()[-1]
    assert "Next: Name an interface that python-can knows: " in last
    assert "ess-can doctor" not in last


def test_a_dbc_that_does_not_fit(tmp_path: Path) -> None:
    other = tmp_path / "other.dbc"
    other.write_text('VERSION ""\nBU_: EMS\n', "ascii")
    result = run("doctor", "--sim", "--dbc", other, "--json")
    told = document(result)
    assert (result.exit_code, told["error"]["name"]) == (16, "DBC_MISMATCH")


def test_a_serial_port_that_is_not_there() -> None:
    result = run("doctor", "-i", "slcan", "-c", "/dev/ttyNONSENSE0")
    assert result.exit_code == 11
    assert "there is no serial port /dev/ttyNONSENSE0" in result.stdout


def test_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (Found("socketcan", "can0", "can, up, 500 kbit/s"), Found("pcan", "PCAN_USBBUS1", ""))
    monkeypatch.setattr(interfaces, "interfaces", lambda: found)
    result = run("doctor", "--list")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "-i socketcan -c can0   can, up, 500 kbit/s\n-i pcan -c PCAN_USBBUS1\n"
    told = document(run("doctor", "--list", "--json"))
    assert told["interfaces"][1] == {"interface": "pcan", "channel": "PCAN_USBBUS1", "note": None}


def test_an_output_without_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    from ess_can.cli import doctor as module

    assert module._ticks("utf-8")["ok"] == "\N{CHECK MARK}"
    assert module._ticks("cp1252")["ok"] == module._ticks("nonsense")["ok"] == "ok"
