"""What a sequence of entries means: the upgrades they tell of, and what was intended without a result."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from ess_can.journal.entries import Deed, Entry, Kind, UpgradeRecord


@dataclass(frozen=True, slots=True)
class BeganFacts:
    """The `facts` of a BEGAN entry."""

    release: str
    file_sha256: bytes
    options: str

    def text(self) -> str:
        """As they are stored."""
        return json.dumps({"release": self.release, "file_sha256": self.file_sha256.hex(), "options": self.options})

    @classmethod
    def parse(cls, text: str) -> BeganFacts:
        """Raises ValueError."""
        found = _strings(text, ("release", "file_sha256", "options"))
        return cls(found[0], bytes.fromhex(found[1]), found[2])


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


def _strings(text: str, keys: tuple[str, str, str]) -> tuple[str, str, str]:
    found = json.loads(text)
    if not isinstance(found, dict) or set(found) != set(keys) or not all(isinstance(found[key], str) for key in keys):
        raise ValueError(f"not the facts {', '.join(keys)}")
    return found[keys[0]], found[keys[1]], found[keys[2]]


class History:
    """Takes entries one after the other.  At most one upgrade is unfinished at a time."""

    def __init__(self) -> None:
        self.upgrades: dict[str, UpgradeRecord] = {}
        self.open_intents: dict[int, Entry] = {}
        self._unfinished = ""
        self._last: dict[Deed, Entry] = {}

    @property
    def unfinished(self) -> UpgradeRecord | None:
        """The upgrade that began and did not end."""
        return self.upgrades.get(self._unfinished)

    @property
    def next_id(self) -> str:
        """The name of the next upgrade."""
        return str(len(self.upgrades) + 1)

    def last(self, deed: Deed) -> Entry | None:
        """The unfinished upgrade's newest entry about `deed`: an INTENT, or the RESULT of one."""
        return self._last.get(deed)

    def check(self, entry: Entry) -> None:
        """Raises ValueError if `entry` cannot follow what was taken."""
        record = self.unfinished
        if entry.kind is Kind.BEGAN:
            if record is not None:
                raise ValueError(f"upgrade {record.id} has not ended")
            if entry.upgrade != self.next_id:
                raise ValueError(f"the next upgrade is {self.next_id}, not {entry.upgrade or '?'}")
            BeganFacts.parse(entry.facts)
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
        self._replace(
            UpgradeRecord(
                id=entry.upgrade,
                began_at=entry.at,
                ended_at=None,
                release=facts.release,
                file_sha256=facts.file_sha256,
                found="",
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
        self._last.clear()

    def _replace(self, record: UpgradeRecord) -> None:
        self.upgrades[record.id] = record
