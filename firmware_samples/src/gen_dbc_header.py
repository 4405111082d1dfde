"""Write the C header of the station bus's messages and signals from the DBC.

Usage: gen_dbc_header.py DBC OUTPUT

Messages that differ in their final number only (``BMS_HvStatus_1`` ... ``BMS_HvStatus_8``) become one array with one
set of signals.  Diagnostic channels are left out: the applications do not serve them.
"""

from __future__ import annotations

import hashlib
import re
import sys
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import cantools.database
from cantools.database.can import Database, Message, Signal

INVALID = "Invalid"


def c_name(name: str) -> str:
    """``BMS_HvStatus`` as ``BMS_HV_STATUS``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def attribute(message: Message, name: str) -> int:
    """An integer or enumeration attribute of a message, or its default, as a number."""
    specifics = message.dbc
    if specifics is None or name not in specifics.attributes:
        return 0
    value = specifics.attributes[name].value
    choices = specifics.attributes[name].definition.choices
    return list(choices).index(value) if choices and isinstance(value, str) else int(value)


def invalid_value(signal: Signal) -> int | None:
    """The raw value that the DBC calls Invalid."""
    return next((int(raw) for raw, text in (signal.choices or {}).items() if str(text) == INVALID), None)


def message_entry(message: Message) -> str:
    """One initialiser of `struct can_message`."""
    return (
        f"{{.id = 0x{message.frame_id:03X}, .length = {message.length}, "
        f".e2e = {'true' if attribute(message, 'E2EProfile') else 'false'}, "
        f".e2e_data_id = 0x{attribute(message, 'E2EDataId'):04X}, "
        f".cycle_ms = {attribute(message, 'GenMsgCycleTime')}}}"
    )


def signal_entry(signal: Signal) -> str:
    """One initialiser of `struct can_signal`."""
    if signal.byte_order != "little_endian" or signal.length > 32:
        raise SystemExit(f"{signal.name}: only little-endian signals of up to 32 bits are supported")
    scale = Fraction(str(signal.scale))
    offset = Fraction(str(signal.offset)) * 1000
    invalid = invalid_value(signal)
    low, high = (
        (-(1 << (signal.length - 1)), (1 << (signal.length - 1)) - 1)
        if signal.is_signed
        else (0, (1 << min(signal.length, 31)) - 1)  # raw values are int32_t
    )
    if signal.minimum is not None and signal.maximum is not None:
        low = max(low, round((Fraction(str(signal.minimum)) * 1000 - offset) / scale / 1000))
        high = min(high, round((Fraction(str(signal.maximum)) * 1000 - offset) / scale / 1000))
    return (
        f"{{.start = {signal.start}, .length = {signal.length}, "
        f".is_signed = {'true' if signal.is_signed else 'false'}, "
        f".has_invalid = {'false' if invalid is None else 'true'}, "
        f".raw_min = {low}, .raw_max = {high}, .invalid = {invalid or 0}, "
        f".scale_num = {scale.numerator}, .scale_den = {scale.denominator}, .offset_milli = {int(offset)}}}"
    )


def layout(message: Message) -> list[str]:
    """What must be equal among the messages of one group."""
    return [f"{signal.name} {signal.multiplexer_ids} {signal_entry(signal)}" for signal in message.signals]


def group_lines(base: str, messages: list[Message]) -> list[str]:
    """The C declarations of one group of messages."""
    first = messages[0]
    for other in messages[1:]:
        if layout(other) != layout(first):
            raise SystemExit(f"{other.name} is laid out unlike {first.name}")
    name = c_name(base)
    lines = [f"static const struct can_message {name}[{len(messages)}] = {{"]
    lines += [f"    {message_entry(message)}," for message in messages]
    lines.append("};")
    for signal in first.signals:
        prefix = f"{name}_{c_name(signal.name)}"
        lines.append(f"static const struct can_signal {prefix} = {signal_entry(signal)};")
        values = {c_name(str(text)): int(raw) for raw, text in (signal.choices or {}).items()}
        named = [f"{prefix}_{text} = {raw}" for text, raw in values.items() if text not in ("NO", "YES", "INVALID")]
        if named:
            lines.append(f"enum {{ {', '.join(named)} }};")
    return [*lines, ""]


def header(database: Database, fingerprint: int) -> str:
    """The whole header."""
    lines = [
        "/* Generated from dbc/ess.dbc by gen_dbc_header.py; not to be edited. */",
        "#ifndef ESS_DBC_H",
        "#define ESS_DBC_H",
        "",
        '#include "signal.h"',
        "",
        "/* The first 14 bits of the SHA-256 of the DBC file. */",
        f"#define DBC_FINGERPRINT 0x{fingerprint:04X}u",
        "",
    ]
    plain = [m for m in database.messages if not attribute(m, "DiagRequest") and not attribute(m, "DiagResponse")]

    def base(message: Message) -> str:
        return re.sub(r"_?\d+$", "", message.name)

    for name, group in groupby(sorted(plain, key=lambda m: (base(m), m.name)), key=base):
        lines += group_lines(name, list(group))
    return "\n".join([*lines, "#endif", ""])


def main() -> None:
    """Read the DBC, write the header."""
    dbc, output = map(Path, sys.argv[1:])
    raw = dbc.read_bytes()
    database = cantools.database.load_string(raw.decode(), database_format="dbc")
    if not isinstance(database, Database):
        raise SystemExit(f"{dbc} is not a CAN database")
    fingerprint = int.from_bytes(hashlib.sha256(raw).digest()[:2], "big") >> 2
    output.write_text(header(database, fingerprint))


if __name__ == "__main__":
    main()
