"""What is left out on the command line comes from python-can's own configuration, and what is given wins."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ess_can.bus.clock import until
from ess_can.cli.bus_options import BusOptions
from ess_can.errors import InterfaceUnavailable
from tests.unit.cli.run import python

VARIABLES = ("CAN_INTERFACE", "CAN_CHANNEL", "CAN_BITRATE", "CAN_CONFIG")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of one's own, and no CAN_* in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def heard_by(given: BusOptions, channel: str) -> bool:
    """Whether this opens python-can's `virtual` interface on this channel."""
    from can import Bus, Message

    async def run() -> bool:
        opened = given.open()
        heard: list[int] = []
        opened.subscribe(None, lambda frame, _at: heard.append(frame.can_id))
        opened.start()
        with Bus(channel, "virtual", ignore_config=True) as other:
            other.send(Message(arbitration_id=0x123, is_extended_id=False))
            await until(lambda: bool(heard), 5.0)
        opened.close()
        return heard == [0x123]

    return asyncio.run(run())


def test_without_any_configuration_the_interface_cannot_be_opened() -> None:
    with pytest.raises(InterfaceUnavailable, match="no interface was named"):
        BusOptions().open()


@pytest.mark.parametrize("file", [".canrc", ".can", "can.conf"])
def test_the_file_in_the_home_directory(home: Path, file: str) -> None:
    (home / file).write_text("[default]\ninterface = virtual\nchannel = from the file\n")
    assert heard_by(BusOptions(), "from the file")


def test_the_environment_wins_against_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".canrc").write_text("[default]\ninterface = nosuch\nchannel = from the file\n")
    monkeypatch.setenv("CAN_INTERFACE", "virtual")
    monkeypatch.setenv("CAN_CHANNEL", "from the environment")
    assert heard_by(BusOptions(), "from the environment")


def test_flags_win_against_both(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".canrc").write_text("[default]\ninterface = nosuch\nchannel = from the file\n")
    monkeypatch.setenv("CAN_CHANNEL", "from the environment")
    assert heard_by(BusOptions(interface="virtual", channel="from the flag"), "from the flag")


def test_a_flag_and_a_file_together(home: Path) -> None:
    (home / ".canrc").write_text("[default]\ninterface = virtual\nchannel = from the file\n")
    assert heard_by(BusOptions(channel="from the flag"), "from the flag")


def test_a_whole_command_by_the_file_alone(home: Path) -> None:
    (home / ".canrc").write_text("[default]\ninterface = virtual\nchannel = nobody is there\n")
    ended = python(["-m", "ess_can", "status", "--racks", "1", "--json"], cwd=home)
    assert json.loads(ended.stdout)["error"]["name"] == "BUS_SILENT"
