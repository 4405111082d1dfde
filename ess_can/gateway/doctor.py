"""What a doctor finds: the words for it, and the verdict over all of it.  Judging only; reading is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ess_can.errors import EssCanError


class Outcome(Enum):
    """How one check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_APPLICABLE = "not applicable"


class Group(Enum):
    """What a check is about, in the order in which they are looked at."""

    MACHINE = "machine"
    INTERFACE = "interface"
    BUS = "bus"
    PLANT = "plant"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.  `seen` is what was found; `command` what to type about it, if there is such a command.

    `error` is set exactly for a problem.
    """

    group: Group
    name: str
    outcome: Outcome
    seen: str
    remedy: str = ""
    command: str = ""
    error: EssCanError | None = None


def ok(group: Group, name: str, seen: str) -> Finding:
    """Nothing is wrong."""
    return Finding(group, name, Outcome.OK, seen)


def not_applicable(group: Group, name: str, seen: str) -> Finding:
    """There was nothing to judge."""
    return Finding(group, name, Outcome.NOT_APPLICABLE, seen)


def warning(group: Group, name: str, seen: str, remedy: str, command: str = "") -> Finding:
    """It works, but not well."""
    return Finding(group, name, Outcome.WARNING, seen, remedy, command)


def problem(group: Group, name: str, error: EssCanError, command: str = "") -> Finding:
    """It does not work."""
    return Finding(group, name, Outcome.PROBLEM, str(error), error.remedy, command, error)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found, in the order in which it was looked at."""

    findings: tuple[Finding, ...]

    def of(self, outcome: Outcome) -> tuple[Finding, ...]:
        """The findings that ended so."""
        return tuple(finding for finding in self.findings if finding.outcome is outcome)

    @property
    def error(self) -> EssCanError | None:
        """The gravest problem: the first, because what follows in the order mostly follows from it."""
        problems = self.of(Outcome.PROBLEM)
        return problems[0].error if problems else None

    def next_command(self, when_well: str) -> str:
        """What to type next: what mends the gravest problem, empty if no command does; `when_well` without problem."""
        problems = self.of(Outcome.PROBLEM)
        return problems[0].command if problems else when_well

    def next_step(self, when_well: str) -> str:
        """`next_command`, or in its place what to do about the gravest problem."""
        problems = self.of(Outcome.PROBLEM)
        return self.next_command(when_well) or problems[0].remedy

    @property
    def summary(self) -> str:
        """One sentence."""
        problems, warnings = len(self.of(Outcome.PROBLEM)), len(self.of(Outcome.WARNING))
        if not problems and not warnings:
            return "Nothing is wrong."
        counts = [
            f"{count} {word}{'s' * (count > 1)}"
            for count, word in ((problems, "problem"), (warnings, "warning"))
            if count
        ]
        return f"{' and '.join(counts)}{'' if problems else '; it works'}."


def diagnosis(findings: Iterable[Finding]) -> Diagnosis:
    """Put findings into their order: by group, and within a group as they came."""
    order = list(Group)
    return Diagnosis(tuple(sorted(findings, key=lambda finding: order.index(finding.group))))
