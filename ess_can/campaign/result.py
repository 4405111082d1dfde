"""What came of a simulated upgrade under faults, and of many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run: an upgrade under faults, then healed and brought to an end, then a good upgrade.

    `plant` and `faults` say in words what the seed made.  `ended` is how the last attempt at the first upgrade ended,
    by the name of its final phase; `errors` are the names of the errors of all attempts, in order; `kills` is how often
    the gateway died.  `took_effect` are the kinds of fault that did something; `edges` are the changes of state that
    were seen, such as ``phase PROGRAM TRIAL_BOOT``.  `violations` are broken rules.  `stuck` says why no final phase
    was reached once the faults were gone, `unhealed` why the good upgrade afterwards failed; empty if they did not.
    `frames`, `steps` and `entries` are how long the first attempt was: frames on the wire, steps of the gateway's
    tasks, entries in its journal.
    """

    seed: int
    plant: str
    faults: tuple[str, ...]
    ended: str
    errors: tuple[str, ...]
    kills: int
    took_effect: tuple[str, ...]
    edges: tuple[str, ...]
    violations: tuple[str, ...]
    stuck: str
    unhealed: str
    trace_hash: str
    virtual_s: float
    frames: int
    steps: int
    entries: int

    @property
    def wrong(self) -> str:
        """What is wrong with this run; empty if, whatever the faults did, no rule was broken and it ended well."""
        return "; ".join(filter(None, (*self.violations, self.stuck, self.unhealed)))

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with this run."""
        return not self.wrong


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with the run of a seed."""

    seed: int
    what: str
    text: str


@dataclass(slots=True)
class Summary:
    """What came of many runs.  The same runs give the same summary; in which order they came matters to `findings`."""

    runs: int = 0
    kills: int = 0
    virtual_s: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    edges: Counter[str] = field(default_factory=Counter)
    violations: list[Finding] = field(default_factory=list)
    stuck: list[Finding] = field(default_factory=list)
    unhealed: list[Finding] = field(default_factory=list)

    @classmethod
    def of(cls, results: Iterable[RunResult]) -> Summary:
        """The summary of these runs."""
        summary = cls()
        for result in results:
            summary.add(result)
        return summary

    def add(self, result: RunResult) -> None:
        """Count one run."""
        self.runs += 1
        self.kills += result.kills
        self.virtual_s += result.virtual_s
        self.ended[result.ended or "none"] += 1
        self.faults.update(result.took_effect)
        self.errors.update(result.errors)
        self.edges.update(result.edges)
        self.violations += [Finding(result.seed, "violation", text) for text in result.violations]
        if result.stuck:
            self.stuck.append(Finding(result.seed, "no final state", result.stuck))
        if result.unhealed:
            self.unhealed.append(Finding(result.seed, "not healed", result.unhealed))

    @property
    def findings(self) -> list[Finding]:
        """Everything that is wrong: broken rules, runs without a final state, runs after which no upgrade succeeds."""
        return [*self.violations, *self.stuck, *self.unhealed]

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with any run."""
        return not self.findings
