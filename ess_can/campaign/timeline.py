"""What happened in a run, line by line: when, who, what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ess_can.gateway.progress import Decided, Estimated, Event, NodeStepEntered, Noted, PhaseEntered, Transferred


class Line(NamedTuple):
    """Something that happened at a time of the run, in virtual seconds."""

    at: float
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """A line, and how often it came in a row."""

    line: Line
    times: int
    until: float


class Timeline:
    """Lines as they come in; `lines` has them in the order of their times, those of one instant as they came."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def add(self, at: float, who: str, what: str) -> None:
        """Something happened."""
        self._lines.append(Line(at, who, what))

    def on_event(self, event: Event) -> None:
        """The gateway told of its progress."""
        text = event_text(event)
        if text:
            self.add(event.at, "gateway", text)

    @property
    def lines(self) -> list[Line]:
        """All lines."""
        return sorted(self._lines, key=lambda line: line.at)

    def folded(self) -> Iterator[Repeated]:
        """All lines, those that say the same in a row as one."""
        last: Line | None = None
        times, until = 0, 0.0
        for line in self.lines:
            if last is not None and (line.who, line.what) == (last.who, last.what):
                times, until = times + 1, line.at
                continue
            if last is not None:
                yield Repeated(last, times, until)
            last, times, until = line, 1, line.at
        if last is not None:
            yield Repeated(last, times, until)


def event_text(event: Event) -> str:
    """An event of the gateway in words; nothing for those that say how far a transfer is."""
    match event:
        case PhaseEntered(phase=phase, detail=detail):
            return f"phase {phase.value}" + (f" ({detail})" if detail else "")
        case NodeStepEntered(node=node, step=step, detail=detail):
            return f"{node}: {step.value}" + (f" ({detail})" if detail else "")
        case Noted(text=text):
            return f"note: {text}"
        case Decided(text=text):
            return f"decided: {text}"
        case Transferred() | Estimated():
            return ""
