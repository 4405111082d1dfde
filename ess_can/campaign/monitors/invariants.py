"""The rules that hold at every instant, and what is noted when one of them is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum


class Invariant(Enum):
    """A rule: its number, and the rule in one sentence."""

    PERMIT = (
        1,
        "Nothing is erased, written or activated unless high voltage is proved off by evidence of at most 250 ms.",
    )
    NODE_GATE = 2, "A node does not erase, write or activate without its own proof that high voltage is off."
    BREAK_CURRENT = 3, "No contactor is ordered open, or opens, above the current that it can break; emergencies apart."
    BOOTABLE = 4, "Every node holds at least one image that is verified, allowed and would boot."
    RUNNING_BANK = 5, "The bank that runs is never written, and the flash never has to refuse an operation."
    SIGNED = 6, "Only bytes that a verified signature covers are executed."
    ATOMIC_SELECTION = 7, "What boots changes by one record alone, and to an image only after all of it was read back."
    TRIAL_BOOTS = 8, "An image that is not confirmed boots no more often than it was given tries."
    ROLLBACK_COUNTER = 9, "The security counter never falls, and never exceeds that of the confirmed image."
    COMPLETE_SET = 10, "High voltage closes only with every node present, confirmed, of one set, and heard lately."
    PRECHARGE = 11, "No rack connects its string to the link before the link is charged to the string's voltage."
    LATCHES = 12, "Weld, fire and emergency latches stay, restarts included, until a named person clears them."
    HEARTBEAT = 13, "No contactor closes after the orders have fallen silent."
    SILENCE = 14, "Silence and invalid data are never taken for the proof that high voltage is off."
    LOCK = 15, "The PCS stays locked from the first change to a node until all nodes are confirmed or rolled back."
    RECORDED = 16, "The journal has the intent of every deed before it, and its result after it."
    ONCE = 17, "What must not happen twice takes effect once: a trial's tries, a confirmation, a raised counter."
    READ_FIRST = 18, "A gateway reads the plant before it acts on it."
    ONE_WRITER = 19, "One client at a time writes to a node, and one gateway commands the station."
    SUCCESS = 20, "Success means: read back, version read, confirmed, valid status, high voltage left as it has to be."
    TYPED_FAILURE = 21, "A failure has one typed error, and how the plant was left is on record."
    AUDIT_CHAIN = 22, "The journal's chain verifies and has no gap."
    DEADLINES = 23, "No wait goes on beyond its deadline."
    BOUNDED = 24, "Retries, frames, erasures and memory are bounded."
    SAFETY_FRAMES = 25, "No safety frame is late by more than one cycle because of a transfer."
    REPEATABLE = 26, "The same seed gives the same trace."
    LIVENESS = 27, "Once faults end, an upgrade comes to its end in bounded time."
    AVAILABILITY = 28, "A plant that is held safe accepts the next good upgrade."

    def __init__(self, number: int, sentence: str) -> None:
        self.number = number
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule was broken: when, in seconds of the loop, which, and what was seen."""

    at_s: float
    invariant: Invariant
    text: str

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {self.text} (invariant {self.invariant.number}: {self.invariant.sentence})"


_KEPT = 20
"""Violations kept of one invariant: a rule that is broken with every frame says no more after that."""


class Ledger:
    """What was seen, in order.

    `notes` are facts that excuse what would else be a violation: what came from outside the plant's software.
    """

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.notes: list[str] = []
        self._counts: Counter[Invariant] = Counter()

    def broken(self, at_s: float, invariant: Invariant, text: str) -> None:
        """Note a violation."""
        self._counts[invariant] += 1
        if self._counts[invariant] <= _KEPT:
            self.violations.append(Violation(at_s, invariant, text))

    def note(self, at_s: float, text: str) -> None:
        """Note a fact."""
        if len(self.notes) < _KEPT * len(Invariant):
            self.notes.append(f"{at_s:.3f} s: {text}")
