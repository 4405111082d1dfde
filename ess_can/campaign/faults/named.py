"""The form that most faults' texts have: ``NAME[=AMOUNT]@MOMENT``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.moments import Moment, number_text, positive

K = TypeVar("K")

_FORM = re.compile(r"([a-z][a-z-]*)(?:=([^@]+))?@(.+)")


def parse_named(text: str, names: Mapping[str, FaultKind]) -> tuple[FaultKind, float | None, Moment]:
    """Kind, amount and moment.  Raises ValueError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not NAME@MOMENT or NAME=AMOUNT@MOMENT")
    name, amount, moment = match.groups()
    return look_up(name, names), None if amount is None else positive(amount), Moment.parse(moment)


def named_text(kind: FaultKind, names: Mapping[str, FaultKind], amount: float | None, at: Moment) -> str:
    """As `parse_named` reads it."""
    return f"{name_of(kind, names)}{'' if amount is None else '=' + number_text(amount)}@{at.text}"


def look_up(name: str, names: Mapping[str, K]) -> K:
    """What has this name.  Raises ValueError."""
    if name not in names:
        raise ValueError(f"{name!r} is none of {', '.join(names)}")
    return names[name]


def name_of(thing: K, names: Mapping[str, K]) -> str:
    """The name of what `look_up` finds."""
    return next(name for name, named in names.items() if named == thing)
