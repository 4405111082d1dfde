"""What a sequence of entries means: the upgrades they tell of, and what was intended without a result."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from ess_can.journal.entries import Deed, Entry, Kind, UpgradeRecord


@dataclass(frozen=True, slots=True)
class BeganFacts:
    """The `facts` of a BEGAN entry.  `supersedes`: the upgrade whose place it takes; its end stands right before."""

    release: str
    file_sha256: bytes
    options: str
    supersedes: str = ""

    def text(self) -> str:
        """As they are stored."""
        facts = {"release": self.release, "file_sha256": self.file_sha256.hex(), "options": self.options}
        return json.dumps({**facts, "supersedes": self.supersedes} if self.supersedes else facts)

    @classmethod
    def parse(cls, text: str) -> BeganFacts:
        """Raises ValueError."""
        found = _strings(text, ("release", "file_sha256", "options"), ("supersedes",))
        return cls(found[0], bytes.fromhex(found[1]), *found[2:])


@dataclass(frozen=True, slots=True)
class EndedFacts:
    """The `facts` of an ENDED entry."""

    result: str
    error: str
    report: str

    def text(self) -> str:
        """As they are stored."""
        return json.dumps({"result": self.result, "error": self.error, "report": self.report})

    @classmethod
    def parse(cls, text: str) -> EndedFacts:
        """Raises ValueError."""
        return cls(*_strings(text, ("result", "error", "report")))


def _strings(text: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[str]:
    found = json.loads(text)
    if not isinstance(found, dict) or set(found) - set(optional) != set(keys):
        raise ValueError(f"not the facts {', '.join(keys)}")
    values = [found[key] for key in (*keys, *optional) if key in found]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"not the facts {', '.join(keys)}")
    return values


class History:
    """Takes entries one after the other.  At most one upgrade is unfinished at a time."""

    def __init__(self) -> None:
        self.upgrades: dict[str, UpgradeRecord] = {}
        self.open_intents: dict[int, Entry] = {}
        self._unfinished = ""
        self._last: dict[Deed, Entry] = {}
        self._just_ended = ""

    def copy(self) -> History:
        """One that goes its own way from here."""
        other = History()
        other.upgrades = dict(self.upgrades)
        other.open_intents = dict(self.open_intents)
        other._unfinished = self._unfinished
        other._last = dict(self._last)
        other._just_ended = self._just_ended
        return other

    @property
    def unfinished(self) -> UpgradeRecord | None:
        """The upgrade that began and did not end."""
        return self.upgrades.get(self._unfinished)

    @property
    def next_id(self) -> str:
        """The name of the next upgrade."""
        return str(len(self.upgrades) + 1)

    def last(self, deed: Deed) -> Entry | None:
        """The unfinished upgrade's newest entry about `deed`: an INTENT, or the RESULT of one.

        Until it has one of its own, that of the upgrade which it superseded: what that one did to the plant stands.
        """
        return self._last.get(deed) if self._unfinished else None

    def check(self, entry: Entry) -> None:
        """Raises ValueError if `entry` cannot follow what was taken."""
        record = self.unfinished
        if entry.kind is Kind.BEGAN:
            if record is not None:
                raise ValueError(f"upgrade {record.id} has not ended")
            if entry.upgrade != self.next_id:
                raise ValueError(f"the next upgrade is {self.next_id}, not {entry.upgrade or '?'}")
            supersedes = BeganFacts.parse(entry.facts).supersedes
            if supersedes and supersedes != self._just_ended:
                raise ValueError(f"upgrade {supersedes} did not end right before")
            return
        if record is None or entry.upgrade != record.id:
            raise ValueError(f"upgrade {entry.upgrade or '?'} is not under way")
        match entry.kind:
            case Kind.INTENT:
                if entry.deed is None:
                    raise ValueError("an intent of nothing")
            case Kind.RESULT:
                intent = self.intent(entry.answers)
                if (entry.deed, entry.node) != (intent.deed, intent.node) or entry.ok is None:
                    raise ValueError(f"the result of another deed than {intent.seq}")
            case Kind.ENDED:
                EndedFacts.parse(entry.facts)

    def take(self, entry: Entry) -> None:
        """The next entry.  Raises ValueError if it cannot follow what was taken, which then stays as it is."""
        self.check(entry)
        match entry.kind:
            case Kind.BEGAN:
                self._begin(entry, BeganFacts.parse(entry.facts))
            case Kind.INTENT:
                self.open_intents[entry.seq] = entry
            case Kind.RESULT:
                self.open_intents.pop(entry.answers or 0)
            case Kind.FOUND:
                self._replace(replace(self.upgrades[entry.upgrade], found=entry.text))
            case Kind.ENDED:
                self._end(entry, EndedFacts.parse(entry.facts))
        self._just_ended = entry.upgrade if entry.kind is Kind.ENDED else ""
        if entry.deed is not None:
            self._last[entry.deed] = entry

    def intent(self, seq: int | None) -> Entry:
        """The unfinished upgrade's intent with this `seq`.  Raises ValueError if there is none without a result."""
        intent = self.open_intents.get(0 if seq is None else seq)
        if intent is None:
            raise ValueError(f"{seq} is no intent without a result")
        return intent

    def _begin(self, entry: Entry, facts: BeganFacts) -> None:
        self._unfinished = entry.upgrade
        if not facts.supersedes:
            self._last.clear()
        self._replace(
            UpgradeRecord(
                id=entry.upgrade,
                began_at=entry.at,
                ended_at=None,
                release=facts.release,
                file_sha256=facts.file_sha256,
                found=self.upgrades[facts.supersedes].found if facts.supersedes else "",
                options=facts.options,
                result="",
                error="",
                report="",
            )
        )

    def _end(self, entry: Entry, facts: EndedFacts) -> None:
        record = self.upgrades[entry.upgrade]
        self._replace(replace(record, ended_at=entry.at, result=facts.result, error=facts.error, report=facts.report))
        self._unfinished = ""
        self.open_intents.clear()

    def _replace(self, record: UpgradeRecord) -> None:
        self.upgrades[record.id] = record
