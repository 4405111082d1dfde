"""Our bits are cantools' bits: the codec against cantools' own encoding and decoding, for every message of the DBC."""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum

from cantools.database.can.database import Database
from cantools.database.can.message import Message as DbcMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.identity import NodeAddress
from ess_can.resources import dbc_path
from ess_can.signals.binding import FAMILIES, PAGE, signal_name
from ess_can.signals.dbc import Route, StationCodec
from ess_can.signals.messages import Message, NodeInfo
from tests.property.test_signals import MESSAGES

CODEC = StationCodec.load()
DATABASE = Database(strict=True)
DATABASE.add_dbc_string(dbc_path().read_text("ascii"))
INVALID = {
    (message.name, signal.name): next(raw for raw, name in signal.choices.items() if str(name) == "Invalid")
    for message in DATABASE.messages
    for signal in message.signals
    if signal.choices and "Invalid" in map(str, signal.choices.values()) and len(signal.choices) == 1
}
"""The raw value of every number that may be invalid."""
ROUTES = [route for message_type in FAMILIES for route in CODEC.routes(message_type)]
SETTINGS = settings(max_examples=400, deadline=None, derandomize=True)

Value = int | float | IntEnum | None


def signal_of(message: Message, field: str) -> str:
    """The DBC's name for a field."""
    page = getattr(message, "page", None)
    if page is not None and field == "page":
        return PAGE
    return signal_name(field)[0] + ("" if page is None else f"_{page}")


def raw(name: str, signal_name: str, value: Value) -> int:
    """The raw value by the DBC's scaling, in decimal arithmetic."""
    if value is None:
        return INVALID[name, signal_name]
    signal = DATABASE.get_message_by_name(name).get_signal_by_name(signal_name)
    exact = (Decimal(str(float(value))) - Decimal(str(signal.offset))) / Decimal(str(signal.scale))
    assert exact == exact.to_integral_value()
    return int(exact)


def values(message: Message) -> dict[str, Value]:
    return {signal_of(message, field): getattr(message, field) for field in type(message).__dataclass_fields__}


def raw_values(message: DbcMessage, data: bytes) -> dict[str, int]:
    """What cantools finds in the bytes, before scaling."""
    found = message.decode(data, decode_choices=False, scaling=False)
    assert isinstance(found, dict)
    return {name: value for name, value in found.items() if isinstance(value, int)}


@SETTINGS
@given(MESSAGES, st.data())
def test_cantools_encodes_the_same_bytes(message: Message, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(CODEC.routes(type(message))))
    index: int | NodeAddress | None = route.node if isinstance(message, NodeInfo) else route.index
    assert index is not None
    dbc = DATABASE.get_message_by_name(route.name)
    signals = {name: raw(route.name, name, value) for name, value in values(message).items()}
    if dbc.is_multiplexed():
        signals.setdefault(PAGE, 0)
    if route.e2e_data_id is not None:
        signals |= {"E2eCrc": 0, "E2eCounter": 0}
    assert CODEC.encode(message, index) == dbc.encode(signals, scaling=False, strict=False)


@SETTINGS
@given(st.sampled_from(ROUTES), st.binary(min_size=8, max_size=8), st.integers(0, 4))
def test_cantools_decodes_the_same_values(route: Route, content: bytes, page: int) -> None:
    dbc = DATABASE.get_message_by_name(route.name)
    data = content[: route.length]
    if dbc.is_multiplexed():
        data = bytes((page,)) + data[1:]
    decoded = CODEC.decode(route.can_id, data)
    theirs = raw_values(dbc, data)
    signals = {signal.name: signal for signal in dbc.signals}
    if decoded is None:  # a value that its table lacks, and cantools knows none for it either
        tables = {name: signals[name].choices for name in theirs}
        assert any(table and len(table) > 1 and theirs[name] not in table for name, table in tables.items())
        return
    for name, value in values(decoded.message).items():
        signal = signals[name]
        if value is not None:
            assert raw(route.name, name, value) == theirs[name]
        else:
            assert signal.minimum is not None
            assert signal.maximum is not None
            number = theirs[name] * Decimal(str(signal.scale)) + Decimal(str(signal.offset))
            assert not Decimal(str(signal.minimum)) <= number <= Decimal(str(signal.maximum))
