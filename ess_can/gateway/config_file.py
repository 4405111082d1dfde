"""Thresholds and time limits from a TOML file: a table for each field of `Limits`, with that one's fields as keys.

What is not given keeps its default.  The table of serial numbers has nodes as keys.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import TypeVar, get_type_hints

from ess_can.errors import FileUnreadable, UsageError
from ess_can.gateway.config import BusLimits, HvLimits, PolicyLimits, StationPhysics, TimeLimits
from ess_can.identity import NodeAddress

L = TypeVar("L", PolicyLimits, HvLimits, TimeLimits, BusLimits, StationPhysics)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may set."""

    policy: PolicyLimits = field(default_factory=PolicyLimits)
    hv: HvLimits = field(default_factory=HvLimits)
    times: TimeLimits = field(default_factory=TimeLimits)
    bus: BusLimits = field(default_factory=BusLimits)
    physics: StationPhysics = field(default_factory=StationPhysics)
    serials: tuple[tuple[NodeAddress, str], ...] = ()


def load_limits(path: Path) -> Limits:
    """Read the file.  Raises FileUnreadable, or UsageError for anything that it does not understand."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise FileUnreadable(
            f"{path} cannot be read",
            why=error.strerror or str(error),
            remedy="Give --config the path of a readable TOML file, or leave it out for the usual limits.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML", why=str(error)) from error
    usual = Limits()
    tables = [each.name for each in fields(usual)]
    unknown = sorted(set(document) - set(tables))
    if unknown:
        raise UsageError(f"{path} has what nobody reads: {', '.join(unknown)}", why=f"tables are {', '.join(tables)}")
    serials = _serials(f"{path} [serials]", document.pop("serials", {}))
    given = {name: _table(f"{path} [{name}]", table, getattr(usual, name)) for name, table in document.items()}
    return replace(usual, **given, serials=serials)


def _serials(where: str, values: object) -> tuple[tuple[NodeAddress, str], ...]:
    """The serial number of each node that is named."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} is not a table")
    serials = list[tuple[NodeAddress, str]]()
    for key, value in values.items():
        try:
            address = NodeAddress.parse(key)
        except ValueError as error:
            raise UsageError(f"{where} {key} is no node", why=str(error)) from error
        if not isinstance(value, str) or not value:
            raise UsageError(f"{where} {key} is no serial number", why=f"{value!r} is no text")
        serials.append((address, value))
    return tuple(serials)


def _table(where: str, values: object, usual: L) -> L:
    """`usual` with these values in place of its own."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} is not a table")
    kinds = get_type_hints(type(usual))
    for key, value in values.items():
        if key not in kinds:
            raise UsageError(f"{where} {key} is not known", why=f"known are {', '.join(kinds)}")
        if kinds[key] is bool:
            if not isinstance(value, bool):
                raise UsageError(f"{where} {key} is neither true nor false", why=repr(value))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UsageError(f"{where} {key} is not a number", why=repr(value))
        elif kinds[key] in (int, int | None) and not isinstance(value, int):
            raise UsageError(f"{where} {key} is not a whole number", why=repr(value))
    return replace(usual, **values)
