"""Thresholds and time limits from a TOML file with the tables ``[policy]``, ``[hv]``, ``[times]``, ``[bus]`` and
``[expected]``.

The keys are the fields of `PolicyLimits`, `HvLimits`, `TimeLimits`, `BusLimits` and `ExpectedTimes`; what is not given
keeps its default.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import TypeVar

from ess_can.errors import FileUnreadable, UsageError
from ess_can.gateway.config import BusLimits, ExpectedTimes, HvLimits, PolicyLimits, TimeLimits

L = TypeVar("L", PolicyLimits, HvLimits, TimeLimits, BusLimits, ExpectedTimes)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may set."""

    policy: PolicyLimits = field(default_factory=PolicyLimits)
    hv: HvLimits = field(default_factory=HvLimits)
    times: TimeLimits = field(default_factory=TimeLimits)
    bus: BusLimits = field(default_factory=BusLimits)
    expected: ExpectedTimes = field(default_factory=ExpectedTimes)


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
    unknown = sorted(set(document) - {"policy", "hv", "times", "bus", "expected"})
    if unknown:
        why = "tables are policy, hv, times, bus and expected"
        raise UsageError(f"{path} has what nobody reads: {', '.join(unknown)}", why=why)
    return Limits(
        _table(path, "policy", document.get("policy", {}), PolicyLimits),
        _table(path, "hv", document.get("hv", {}), HvLimits),
        _table(path, "times", document.get("times", {}), TimeLimits),
        _table(path, "bus", document.get("bus", {}), BusLimits),
        _table(path, "expected", document.get("expected", {}), ExpectedTimes),
    )


def _table(path: Path, name: str, values: object, limits: type[L]) -> L:
    where = f"{path} [{name}]"
    if not isinstance(values, dict):
        raise UsageError(f"{where} is not a table")
    known = {f.name: type(f.default) for f in fields(limits)}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{where} {key} is not known", why=f"known are {', '.join(known)}")
        if known[key] is bool:
            if not isinstance(value, bool):
                raise UsageError(f"{where} {key} is neither true nor false", why=repr(value))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UsageError(f"{where} {key} is not a number", why=repr(value))
        elif known[key] is int and not isinstance(value, int):
            raise UsageError(f"{where} {key} is not a whole number", why=repr(value))
    return limits(**values)
