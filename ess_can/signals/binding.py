"""How the dataclasses of `ess_can.signals.messages` and the DBC's messages belong together, and whether they agree.

The rules: field `link_voltage_v` is signal ``LinkVoltage`` with unit V, enumeration member ``ZERO_POWER`` is the value
``ZeroPower``, a bool is one bit with the values No and Yes, a number that may be None has the value ``Invalid``
outside its range, any other number uses all raw values.  On one of several multiplexer pages the signal's name ends
with the page: ``CellVoltageA_3``.  The first three bytes of an E2E-protected message are its header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import Enum, IntEnum
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

from ess_can.signals.layout import Layout
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellGroup,
    BmsCellSummary,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    Message,
    NodeInfo,
    PcsStatus,
)

if TYPE_CHECKING:
    from cantools.database.can.message import Message as DbcMessage
    from cantools.database.can.signal import Signal


class Each(Enum):
    """What a family has one message for."""

    STATION = "station"
    RACK = "rack"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Family:
    """The DBC messages that carry one dataclass: their common name, and the multiplexer pages that are its."""

    name: str
    each: Each = Each.STATION
    e2e: bool = False
    pages: tuple[int, ...] = ()


FAMILIES: Mapping[type[Message], Family] = {
    EmsPcsCommand: Family("EMS_PcsCommand", e2e=True),
    EmsHvStatusPoll: Family("EMS_HvStatusPoll"),
    EmsUpgradeNotice: Family("EMS_UpgradeNotice"),
    PcsStatus: Family("PCS_Status", e2e=True),
    BmsHvStatus: Family("BMS_HvStatus", Each.RACK, e2e=True),
    BmsHvNotice: Family("BMS_HvNotice", Each.RACK, e2e=True),
    BmsState: Family("BMS_State", Each.RACK),
    BmsCellSummary: Family("BMS_Cells", Each.RACK, pages=(0,)),
    BmsCellGroup: Family("BMS_Cells", Each.RACK, pages=(1, 2, 3, 4)),
    BmsAlarms: Family("BMS_Alarms", Each.RACK),
    NodeInfo: Family("Node_Info", Each.NODE),
}

PAGE = "Page"
_PAGE_MASK = 0xFF
E2E_HEADER: Mapping[str, tuple[int, int]] = {"E2eCrc": (0, 16), "E2eCounter": (16, 8)}
"""Name, start bit and length of the Profile 5 header's signals."""

_Conversion = tuple[Callable[[int], Any], Callable[[Any], int]]
_UNITS = {"v": "V", "a": "A", "kw": "kW", "s": "s", "percent": "%", "degc": "degC"}
_NO_YES = {0: "No", 1: "Yes"}
_INVALID = "Invalid"
_SATURATES = {(BmsHvNotice, "off_duration_s")}
"""Fields whose DBC maximum means "that or more"."""
_TYPE_HINTS: dict[type[Message], Mapping[str, Any]] = {}


class BoundField(NamedTuple):
    """One field and its signal, which is `shift` and `mask` away in the number that `Layout` makes of the bytes.

    `read` turns the signal's bits into the field's value and raises KeyError if the value table lacks them; `write` is
    the inverse and raises ValueError or OverflowError for a value that does not fit.  Of what it gives `mask` counts.
    """

    name: str
    signal: str
    shift: int
    mask: int
    read: Callable[[int], Any]
    write: Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class BoundMessage:
    """One dataclass on one page of one DBC message; `constants` has the bits that no field stands for."""

    message_type: type[Message]
    fields: tuple[BoundField, ...]
    constants: int


class _Mismatch(Exception):
    """One disagreement about a field; `bind` adds who disagrees and lists it, so it never leaves this module."""


def bind(message_type: type[Message], message: DbcMessage, page: int | None, problems: list[str]) -> BoundMessage:
    """Bind a dataclass to a page (None if not multiplexed) of a DBC message; disagreements go to `problems`."""
    family = FAMILIES[message_type]
    signals = {s.name: s for s in message.signals if not s.multiplexer_ids or page in s.multiplexer_ids}
    layout = Layout.of(message)
    used = set[str]()
    if page is not None:
        used.add(PAGE)
    if family.e2e:
        used.update(E2E_HEADER)
        problems.extend(_header_problems(message_type, message, signals))
    suffix = f"_{page}" if len(family.pages) > 1 else ""
    bound: list[BoundField] = []
    hints = _type_hints(message_type)
    for field in fields(message_type):
        where = f"{message_type.__name__}.{field.name}"
        if field.name == "page" and page is not None:
            bound.append(BoundField(field.name, PAGE, 0, _PAGE_MASK, int, int))
            continue
        name, unit = signal_name(field.name)
        name += suffix
        used.add(name)
        signal = signals.get(name)
        if signal is None:
            problems.append(f"{where} has no signal {message.name}.{name}")
            continue
        try:
            read, write = _conversion(hints[field.name], signal, unit, (message_type, field.name) in _SATURATES)
        except _Mismatch as mismatch:
            problems.append(f"{where} {mismatch}".replace("{signal}", f"{message.name}.{name}"))
        else:
            bound.append(BoundField(field.name, name, layout.shift(signal), (1 << signal.length) - 1, read, write))
    problems.extend(
        f"{message.name}.{name} has no field in {message_type.__name__}" for name in signals if name not in used
    )
    return BoundMessage(message_type, tuple(bound), page or 0)  # the page is in the first byte, see `page_problems`


def _type_hints(message_type: type[Message]) -> Mapping[str, Any]:
    """What the fields' annotations mean; a message type has many DBC messages."""
    hints = _TYPE_HINTS.get(message_type)
    if hints is None:
        hints = _TYPE_HINTS[message_type] = get_type_hints(message_type)
    return hints


def page_problems(ours: str, message: DbcMessage, pages: tuple[int, ...]) -> Iterator[str]:
    """Disagreements about the multiplexer: it is signal ``Page`` in the first byte, and both sides know its pages."""
    multiplexers = [(s.name, s.start, s.length) for s in message.signals if s.is_multiplexer]
    expected = [(PAGE, 0, 8)] if pages else []
    if multiplexers != expected:
        names = ", ".join(name for name, _, _ in multiplexers) or "none"
        yield f"{ours} needs {'Page in byte 0' if pages else 'none'} as multiplexer, {message.name} has {names}"
    known = {page for s in message.signals for page in s.multiplexer_ids or ()}
    if known != set(pages):
        yield f"{ours} has pages {sorted(pages)}, {message.name} has {sorted(known)}"


def signal_name(field_name: str) -> tuple[str, str]:
    """The signal's name and unit for a field's name: ``link_voltage_v`` gives ``LinkVoltage``, ``V``."""
    stem, _, suffix = field_name.rpartition("_")
    unit = _UNITS.get(suffix, "") if stem else ""
    return _camel(stem if unit else field_name), unit


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _header_problems(message_type: type[Message], message: DbcMessage, signals: Mapping[str, Signal]) -> Iterator[str]:
    for name, place in E2E_HEADER.items():
        signal = signals.get(name)
        if signal is None or (signal.start, signal.length) != place or signal.byte_order != "little_endian":
            yield (
                f"{message_type.__name__} is E2E-protected, but {message.name}.{name} is not at bit {place[0]}"
                f" with {place[1]} bits"
            )


def _conversion(hint: Any, signal: Signal, unit: str, saturates: bool) -> _Conversion:
    """The two directions of one field.  Raises _Mismatch with ``{signal}`` where the signal's name belongs."""
    if (signal.unit or "") != unit:
        raise _Mismatch(f"has unit {unit or 'none'}, {{signal}} has {signal.unit or 'none'}")
    values = {raw: str(value) for raw, value in (signal.choices or {}).items()}
    if hint is float or NoneType in get_args(hint):
        return _float(signal, values, optional=hint is not float, saturates=saturates)
    if signal.scale != 1 or signal.offset != 0 or signal.is_signed or signal.is_float:
        raise _Mismatch("is a whole number, {signal} is signed or scaled")
    if hint is bool:
        if signal.length != 1 or values != _NO_YES:
            raise _Mismatch("is a bool, {signal} is not one bit with the values No and Yes")
        return bool, bool
    if hint is int:
        if values:
            raise _Mismatch(f"is a number, {{signal}} has the values {', '.join(values.values())}")
        low, high = _raw_range(signal)
        if (low, high) != _raw_limits(signal):
            raise _Mismatch(f"is any number of {signal.length} bits, {{signal}} has the range {low} to {high}")
        return int, _bounded_int(low, high)
    return _enumeration(hint, signal, values)


def _enumeration(enumeration: type[IntEnum], signal: Signal, values: Mapping[int, str]) -> _Conversion:
    members = {member.value: _camel(member.name) for member in enumeration}
    if values != members:
        ours = ", ".join(f"{raw} {members[raw]}" for raw in members if values.get(raw) != members[raw])
        theirs = ", ".join(f"{raw} {values[raw]}" for raw in values if values[raw] != members.get(raw))
        raise _Mismatch(f"({enumeration.__name__}) has {ours or 'nothing'} where {{signal}} has {theirs or 'nothing'}")
    if max(members) > _raw_limits(signal)[1]:
        raise _Mismatch(f"({enumeration.__name__}) does not fit the {signal.length} bits of {{signal}}")

    def write(value: int) -> int:
        if value not in members:
            raise ValueError(f"{value!r} is not a valid {enumeration.__qualname__}")
        return value

    return {member.value: member for member in enumeration}.__getitem__, write


def _float(signal: Signal, values: Mapping[int, str], *, optional: bool, saturates: bool) -> _Conversion:
    if signal.is_float:
        raise _Mismatch("is a scaled whole number, {signal} is a floating-point number")
    low, high = _raw_range(signal)
    limits = _raw_limits(signal)
    if not limits[0] <= low < high <= limits[1]:
        raise _Mismatch(f"cannot use {{signal}}: its range exceeds its {signal.length} bits")
    if not optional:
        if values or (low, high) != limits:
            raise _Mismatch("must always be valid, {signal} has values or a range that say otherwise")
        return _float_reader(signal, low, high), _float_writer(signal, low, high, saturates)
    if list(values.values()) != [_INVALID]:
        raise _Mismatch(f"may be None, {{signal}} does not have the one value {_INVALID}")
    invalid = next(iter(values))
    if low <= invalid <= high or not limits[0] <= invalid <= limits[1]:
        raise _Mismatch(f"may be None, but {_INVALID} of {{signal}} is in its range or exceeds its bits")
    write_valid = _float_writer(signal, low, high, saturates)

    def write(value: float | None) -> int:
        return invalid if value is None else write_valid(value)

    return _float_reader(signal, low, high), write


def _raw_limits(signal: Signal) -> tuple[int, int]:
    if signal.is_signed:
        return -(1 << signal.length - 1), (1 << signal.length - 1) - 1
    return 0, (1 << signal.length) - 1


def _raw_range(signal: Signal) -> tuple[int, int]:
    if signal.minimum is None or signal.maximum is None:
        raise _Mismatch("needs a range, {signal} has none")
    return round(signal.scaled_to_raw(signal.minimum)), round(signal.scaled_to_raw(signal.maximum))


def _bounded_int(low: int, high: int) -> Callable[[int], int]:
    def write(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"the range is {low} to {high}")
        return value

    return write


def _float_reader(signal: Signal, low: int, high: int) -> Callable[[int], float | None]:
    scale, offset = signal.scale, signal.offset
    digits = _decimals(scale)
    sign = 1 << signal.length - 1 if signal.is_signed else 0

    def read(bits: int) -> float | None:
        raw = (bits ^ sign) - sign
        return round(float(raw * scale + offset), digits) if low <= raw <= high else None  # 3 * 0.1 is 0.3 here

    return read


def _decimals(scale: float) -> int:
    exponent = Decimal(str(scale)).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _float_writer(signal: Signal, low: int, high: int, saturates: bool) -> Callable[[float], int]:
    scale, offset, maximum = signal.scale, signal.offset, high * signal.scale + signal.offset

    def write(value: float) -> int:
        raw = round(((min(value, maximum) if saturates else value) - offset) / scale)
        if not low <= raw <= high:
            raise ValueError(f"the range is {signal.minimum} to {signal.maximum} {signal.unit or ''}")
        return raw

    return write
