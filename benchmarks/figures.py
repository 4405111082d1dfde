"""What a benchmark gives: figures beside their targets and beside the peer's, and how a table of them looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum


class Better(Enum):
    """Which figures are good."""

    HIGH = "at least"
    LOW = "at most"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `name` is the target's (W1), `case` which of its cases.

    Of `peer` the ratio is how many times better ours is; None where there is no such peer.
    """

    name: str
    what: str
    case: str
    value: float
    target: float
    better: Better
    unit: str = ""
    peer: float | None = None
    peer_name: str = ""
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.better is Better.HIGH else self.value <= self.target

    @property
    def ratio(self) -> float | None:
        """How many times as good as the peer; None without one."""
        if self.peer is None or not self.peer or not self.value:
            return None
        return self.value / self.peer if self.better is Better.HIGH else self.peer / self.value


@dataclass(frozen=True, slots=True)
class Failure:
    """A theme that could not be measured."""

    theme: str
    why: str


_HEADER = ("", "measured", "", "figure", "target", "met", "peer", "ratio", "")


def table(figures: Sequence[Figure]) -> str:
    """A plain table, one figure a line, aligned for a terminal."""
    rows = [_HEADER, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def markdown(figures: Sequence[Figure]) -> str:
    """The same for a document."""
    lines = ["| " + " | ".join(_HEADER) + " |", "|" + " --- |" * len(_HEADER)]
    lines += ["| " + " | ".join(_row(figure)) + " |" for figure in figures]
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    sign = ">=" if figure.better is Better.HIGH else "<="
    peer = "" if figure.peer is None else f"{number(figure.peer)} {figure.peer_name}".rstrip()
    return (
        figure.name,
        figure.what,
        figure.case,
        f"{number(figure.value)} {figure.unit}".rstrip(),
        f"{sign} {figure.target:g}",
        "yes" if figure.met else "NO",
        peer,
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        figure.note,
    )


def plain(value: object) -> object:
    """A measurement for JSON: a dataclass with its kind and the figures that it works out itself."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        members = vars(type(value)).items()
        names = [each.name for each in fields(value)] + [name for name, each in members if isinstance(each, property)]
        return {"kind": type(value).__name__} | {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value


def number(value: float) -> str:
    """Four digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
