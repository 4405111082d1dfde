from __future__ import annotations

import logging
from pathlib import Path

import can
import can.util
import pytest

from ess_can.bus import interfaces as module
from ess_can.bus.interfaces import Found, Setting, interfaces, named_bus


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No configuration but what a test writes; gives the folder of the files."""
    for name in ("CAN_INTERFACE", "CAN_CHANNEL", "CAN_BITRATE", "CAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(can.util, "CONFIG_FILES", [str(tmp_path / "can.conf"), str(tmp_path / ".canrc")])
    monkeypatch.setattr(can, "rc", {})
    return tmp_path


def test_nothing_names_a_bus() -> None:
    named = named_bus(None, None, None)
    assert (named.interface, named.channel, named.bitrate, named.broken) == (None, None, None, "")


def test_where_each_setting_is_from(no_configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_configuration / "can.conf").write_text("[default]\ninterface = pcan\nchannel = A\nbitrate = 125000\n")
    (no_configuration / ".canrc").write_text("[default]\nchannel = B\n")
    named = named_bus(None, None, None)
    assert named.interface == Setting("pcan", str(no_configuration / "can.conf"))
    assert named.channel == Setting("B", str(no_configuration / ".canrc"))
    assert named.bitrate == Setting("125000", str(no_configuration / "can.conf"))
    monkeypatch.setenv("CAN_CHANNEL", "C")
    named = named_bus("socketcan", None, None)
    assert named.interface == Setting("socketcan", "the command line")
    assert named.channel is not None
    assert (named.channel.value, "CAN_INTERFACE" in named.channel.source) == ("C", True)


def test_it_agrees_with_what_python_can_makes_of_it(no_configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_configuration / "can.conf").write_text("[default]\ninterface = pcan\nchannel = A\n")
    (no_configuration / ".canrc").write_text("[default]\ninterface = virtual\n")
    monkeypatch.setenv("CAN_CHANNEL", "C")
    named = named_bus(None, None, None)
    theirs = can.util.load_config()
    assert named.interface is not None
    assert named.channel is not None
    assert (named.interface.value, named.channel.value) == (theirs["interface"], theirs["channel"])


def test_a_configuration_that_cannot_be_read(no_configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_configuration / ".canrc").write_text("interface = virtual\n")
    assert "MissingSectionHeaderError" in named_bus(None, None, None).broken
    monkeypatch.setenv("CAN_CONFIG", "{")
    named = named_bus("virtual", None, None)
    assert "JSONDecodeError" in named.broken
    assert named.interface == Setting("virtual", "the command line")


def test_listing_is_quiet_and_never_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    level = logging.getLogger("can").level
    monkeypatch.setattr(module, "can_links", lambda: ("can0",))
    found = interfaces()
    assert found[0].interface == "socketcan"
    assert found[-1].interface == "udp_multicast"
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("can").level == level

    def fail(_names: object) -> list[dict[str, str]]:
        raise OSError("no driver")

    monkeypatch.setattr(can, "detect_available_configs", fail)
    assert {one.interface for one in interfaces()} <= {"socketcan", "slcan", "udp_multicast"}
    monkeypatch.setattr(can, "detect_available_configs", lambda _: [{"interface": "pcan", "channel": "PCAN_USBBUS1"}])
    assert Found("pcan", "PCAN_USBBUS1", "") in interfaces()
