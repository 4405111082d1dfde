"""The words of the journal: entries, what upgrades they tell of, and the chain that ties them together.

An entry's digest is SHA-256 over the digest of the entry before it (32 zero bytes before the first) and the entry's
canonical bytes: a JSON array of seq, upgrade, at, kind, deed, node, text, ok, answers and facts, in this order and as
they are stored, without spaces, and with everything that is not ASCII escaped as ``\\uXXXX``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

CHAIN_START: Final = bytes(32)
"""What stands before the first entry's digest."""


class Deed(Enum):
    """Everything that changes the plant."""

    RAMP_DOWN = "ramp_down"
    OPEN_CONTACTORS = "open_contactors"
    LOCK = "lock"
    ANNOUNCE = "announce"
    TRANSFER = "transfer"
    VERIFY = "verify"
    ACTIVATE = "activate"
    RESTART = "restart"
    CONFIRM = "confirm"
    REVERT = "revert"
    UNLOCK = "unlock"
    CLOSE = "close"
    HAND_BACK = "hand_back"
    HOLD_OPEN = "hold_open"


class Kind(Enum):
    """What an entry is."""

    BEGAN = "began"
    RESUMED = "resumed"
    FOUND = "found"
    PHASE = "phase"
    INTENT = "intent"
    RESULT = "result"
    EVIDENCE = "evidence"
    NOTE = "note"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal.

    `seq` counts from 1 without a gap, and is the order; `at` (UTC) is what the wall clock said, for people only.  A
    RESULT `answers` the seq of its INTENT, and repeats `deed` and `node` of it; `ok` is whether the deed was done.
    `facts` is JSON text: of BEGAN and ENDED what makes up the `UpgradeRecord`, else empty.
    """

    seq: int
    upgrade: str
    at: datetime
    kind: Kind
    deed: Deed | None = None
    node: str = ""
    text: str = ""
    ok: bool | None = None
    answers: int | None = None
    facts: str = ""
    digest: bytes = CHAIN_START

    def chained(self, previous: bytes) -> bytes:
        """The digest that it must have behind an entry with the digest `previous`."""
        fields = [
            *(self.seq, self.upgrade, time_text(self.at), self.kind.value, self.deed and self.deed.value),
            *(self.node, self.text, self.ok, self.answers, self.facts),
        ]
        return hashlib.sha256(previous + json.dumps(fields, separators=(",", ":")).encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class UpgradeRecord:
    """What the journal says of one upgrade as a whole.

    `id` is its number in this journal; `file_sha256` (32 bytes) is that of the kept file.  `found` is how high voltage
    was connected before (empty until known), `options` the command line's options as JSON text.  `result`, `error` (its
    name) and `report` (the JSON document of ``upgrade --json``) are empty until it ended.
    """

    id: str
    began_at: datetime
    ended_at: datetime | None
    release: str
    file_sha256: bytes
    found: str
    options: str
    result: str
    error: str
    report: str

    @property
    def finished(self) -> bool:
        """Whether it came to an end, good or bad."""
        return self.ended_at is not None


def time_text(at: datetime) -> str:
    """ISO 8601 in UTC with microseconds, such as ``2031-05-04T03:02:01.000000Z``."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def storable(text: str) -> str:
    """`text` as it is kept: what is no Unicode (half of a surrogate pair, as in some file names) is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
