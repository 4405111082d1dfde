"""Write the communications gateway's register map as C: one Modbus register for each telemetry signal of the DBC.

Usage: gen_register_map.py DBC OUTPUT

The PCS's status and what the racks send are taken.  Registers are sorted by identifier, so
that the firmware finds those of a received frame by bisection; a register's number is its place in the table.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import cantools.database
from cantools.database.can import Database, Message, Signal
from gen_dbc_header import signal_entry

NAME_LENGTH = 32
UNIT_LENGTH = 8
E2E_SIGNALS = ("E2eCrc", "E2eCounter")
PREFIXES = ("BMS_", "PCS_", "Node_Info_BMU")


def entry(message: Message, signal: Signal) -> str:
    """The C initialiser of one register."""
    if signal.length > 16:
        raise SystemExit(f"{message.name}.{signal.name} does not fit into a register")
    name = f"{message.name.removeprefix('Node_').removeprefix('BMS_')}.{signal.name}"
    unit = signal.unit or ""
    if len(name) >= NAME_LENGTH or len(unit) >= UNIT_LENGTH:
        raise SystemExit(f"{name} [{unit}] is too long for the register table")
    pages = signal.multiplexer_ids
    scale = Fraction(str(signal.scale))
    return (
        f'    {{.id = 0x{message.frame_id:03X}, .page = {pages[0] if pages else "NO_PAGE"}, .name = "{name}", '
        f'.unit = "{unit}", .exponent = {exponent(scale)}, .signal = {signal_entry(signal)}}},'
    )


def exponent(scale: Fraction) -> int:
    """How many decimals a reader must show."""
    decimals = 0
    while (scale * 10**decimals).denominator != 1:
        decimals += 1
    return -decimals


def main() -> None:
    """Read the DBC, write the table."""
    dbc, output = map(Path, sys.argv[1:])
    database = cantools.database.load_string(dbc.read_text(), database_format="dbc")
    if not isinstance(database, Database):
        raise SystemExit(f"{dbc} is not a CAN database")
    lines = [
        entry(message, signal)
        for message in sorted(database.messages, key=lambda m: m.frame_id)
        if message.name.startswith(PREFIXES)
        for signal in message.signals
        if signal.name not in (*E2E_SIGNALS, "Token", "Page")
    ]
    head = [
        "/* Generated from dbc/ess.dbc by gen_register_map.py; not to be edited. */",
        '#include "registers.h"',
        "",
        f"const uint16_t register_count = {len(lines)};",
        f"const struct register_entry register_map[{len(lines)}] = {{",
    ]
    output.write_text("\n".join([*head, *lines, "};", ""]))


if __name__ == "__main__":
    main()
