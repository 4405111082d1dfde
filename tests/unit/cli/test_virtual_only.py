"""The simulator's guard, and how the bus that it looks at is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ess_can.bus.link_facts import LinkFacts
from ess_can.cli.bus_options import BusOptions
from ess_can.cli.virtual_only import require_virtual
from ess_can.errors import UsageError
from tests.unit.cli.run import document, run


def link(kind: str | None) -> LinkFacts:
    return LinkFacts(name="vcan0", is_can=True, kind=kind, up=True, operstate="UP", mtu=16, txqueuelen=10)


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own python-can configuration."""
    for name in ("CAN_INTERFACE", "CAN_CHANNEL", "CAN_BITRATE", "CAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("interface", ["virtual", "udp_multicast"])
def test_what_never_leaves_the_computer_passes(interface: str) -> None:
    require_virtual(BusOptions(interface=interface))


@pytest.mark.parametrize("kind", ["vcan", "vxcan"])
def test_a_virtual_link_passes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ess_can.bus.link_facts.read_link", lambda _name: link(kind))
    require_virtual(BusOptions(interface="socketcan", channel="can7"))


@pytest.mark.parametrize("kind", ["can", "slcan", None])
def test_a_real_link_is_refused_whatever_it_is_called(kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ess_can.bus.link_facts.read_link", lambda _name: link(kind))
    with pytest.raises(UsageError) as caught:
        require_virtual(BusOptions(interface="socketcan", channel="vcan0"))
    assert "vcan0 is of" in caught.value.why


def test_a_link_that_exists_and_cannot_be_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ess_can.bus.link_facts.read_link", lambda _name: None)
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "lo"), (2, "vcan0")])
    with pytest.raises(UsageError, match="virtual buses only"):
        require_virtual(BusOptions(interface="socketcan", channel="vcan0"))
    require_virtual(BusOptions(interface="socketcan", channel="vcan1"))  # there is none: opening it says so


@pytest.mark.parametrize("channel", [None, ""])
def test_every_interface_at_once_is_refused(channel: str | None) -> None:
    with pytest.raises(UsageError):
        require_virtual(BusOptions(interface="socketcan", channel=channel))


def test_the_configuration_decides_what_is_not_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert BusOptions().resolved() == BusOptions()
    (tmp_path / "can.conf").write_text("[default]\ninterface = pcan\nchannel = PCAN_USBBUS1\n")
    assert BusOptions().resolved() == BusOptions(interface="pcan", channel="PCAN_USBBUS1")
    assert BusOptions(interface="virtual").resolved() == BusOptions(interface="virtual", channel="PCAN_USBBUS1")
    monkeypatch.setenv("CAN_INTERFACE", "virtual")
    monkeypatch.setenv("CAN_CHANNEL", "0")
    assert BusOptions(bitrate=250_000).resolved() == BusOptions(interface="virtual", channel="0", bitrate=250_000)


def test_the_configuration_is_asked_as_opening_will(tmp_path: Path) -> None:
    (tmp_path / "can.conf").write_text("[default]\ninterface = virtual\n[real]\ninterface = pcan\nchannel = 1\n")
    other = BusOptions(bus_kwargs=("config_context=real",)).resolved()
    assert (other.interface, other.channel) == ("pcan", "1")
    old = BusOptions(bus_kwargs=("bustype=kvaser",)).resolved()
    assert old.interface == "kvaser"
    assert BusOptions(bus_kwargs=("ignore_config=True",)).resolved().interface is None


def test_what_the_configuration_names_is_guarded_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_INTERFACE", "pcan")
    result = run("sim", "plant", "--duration", 0.1, "--json")
    assert (result.exit_code, document(result)["error"]["name"]) == (2, "USAGE_ERROR")
    monkeypatch.setenv("CAN_INTERFACE", "virtual")
    monkeypatch.setenv("CAN_CHANNEL", "test_virtual_only")
    result = run("sim", "pcs", "--duration", 0.1, "--json")
    assert result.exit_code == 0
    assert " on virtual test_virtual_only;" in result.stderr
