"""The vocabulary of the station's messages."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from ess_can.identity import NodeType, Version
from ess_can.signals import messages
from ess_can.signals.binding import FAMILIES, signal_name
from ess_can.signals.messages import BmsAlarms, EmsHvStatusPoll, ImageState, Message, NodeInfo

MESSAGE_TYPES = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]


def test_every_message_type_has_a_family() -> None:
    assert set(FAMILIES) == set(MESSAGE_TYPES)


@pytest.mark.parametrize("message_type", MESSAGE_TYPES)
def test_messages_are_frozen_and_have_slots(message_type: type[Message]) -> None:
    assert is_dataclass(message_type)
    assert set(message_type.__slots__) == {field.name for field in fields(message_type)}
    assert message_type.__doc__


def test_a_message_cannot_be_changed() -> None:
    poll = EmsHvStatusPoll(token=1)
    with pytest.raises(FrozenInstanceError):
        poll.token = 2  # type: ignore[misc]  # that is what is tried


def test_no_alarm_is_active_by_default() -> None:
    alarms = BmsAlarms()
    assert not any(getattr(alarms, field.name) for field in fields(alarms))


def test_node_info_gives_the_version() -> None:
    info = NodeInfo(NodeType.BMU, 1, 3, ImageState.TRIAL, 0x1234, 7, 1, 2, 345)
    assert info.version == Version(1, 2, 345)


@pytest.mark.parametrize(
    ("field", "signal", "unit"),
    [
        ("link_voltage_v", "LinkVoltage", "V"),
        ("cell_voltage_a_v", "CellVoltageA", "V"),
        ("current_a", "Current", "A"),
        ("power_setpoint_kw", "PowerSetpoint", "kW"),
        ("off_duration_s", "OffDuration", "s"),
        ("soc_percent", "Soc", "%"),
        ("cell_temperature_min_degc", "CellTemperatureMin", "degC"),
        ("hv_off", "HvOff", ""),
        ("token", "Token", ""),
        ("v", "V", ""),
    ],
)
def test_fields_name_their_signal_and_unit(field: str, signal: str, unit: str) -> None:
    assert signal_name(field) == (signal, unit)
