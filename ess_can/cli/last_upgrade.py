"""What `status` says of the last upgrade: one that has not ended, or that failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ess_can.cli.journal_text import going_on, printable, resume_command, time_of
from ess_can.errors import EssCanError, HeldOpenByChoice
from ess_can.journal.entries import Entry, Kind, UpgradeRecord
from ess_can.journal.reader import JournalReader

_STOPPED = "stopped: "
_AS_WISHED = ("", HeldOpenByChoice("").name)


@dataclass(frozen=True, slots=True)
class LastUpgrade:
    """How far it came: its last phase and deed, how it stopped (empty if nothing was said), what to type (or None)."""

    record: UpgradeRecord
    phase: str
    last_deed: str
    stopped: str
    next_command: str | None

    @property
    def is_under_way(self) -> bool:
        """Whether it has set about something, and not ended: then the plant is to be found as it left it."""
        return not self.record.finished and self.last_deed != ""

    def document(self) -> dict[str, object]:
        """For --json."""
        return {
            "id": self.record.id,
            "release": self.record.release,
            "began_at": time_of(self.record.began_at),
            "ended_at": None if self.record.ended_at is None else time_of(self.record.ended_at),
            "result": self.record.result or None,
            "error": self.record.error or None,
            "phase": self.phase,
            "last_deed": self.last_deed,
            "stopped": self.stopped,
            "next_command": self.next_command,
        }

    def lines(self) -> list[str]:
        """For people."""
        record = self.record
        began = f"upgrade {record.id}, {printable(record.release)}, began {time_of(record.began_at)}"
        if record.ended_at is not None:
            return [f"{began} and ended as {record.result} ({record.error})"]
        if self.last_deed:
            came = f"it came as far as: {self.phase or 'the check'}; the last thing done: {self.last_deed}"
        else:
            came = "it has not changed anything yet"
        stopped = [self.stopped] if self.stopped else []
        return [
            f"{began} and has not ended",
            came,
            *stopped,
            going_on(self.next_command),
        ]


def last_upgrade(directory: Path, named: Path | None) -> LastUpgrade | None:
    """None if there was none, or if it ended well.  Raises the journal's errors."""
    with JournalReader.open(directory) as reader:
        reader.verify()  # as whoever upgrades does
        records = reader.upgrades()
        if not records or (records[-1].finished and records[-1].error in _AS_WISHED):
            return None
        entries = reader.entries(records[-1].id)
    phases = [entry.text for entry in entries if entry.kind is Kind.PHASE]
    deeds = [entry for entry in entries if entry.deed is not None]
    attempts = [number for number, entry in enumerate(entries) if entry.kind in (Kind.BEGAN, Kind.RESUMED)]
    stops = [entry.text for entry in entries[attempts[-1] :] if entry.text.startswith(_STOPPED)]
    return LastUpgrade(
        record=records[-1],
        phase=phases[-1] if phases else "",
        last_deed=_deed(deeds[-1]) if deeds else "",
        stopped=stops[-1] if stops else "",
        next_command=None if records[-1].finished else resume_command(named and named.absolute()),
    )


def _deed(entry: Entry) -> str:
    name = "" if entry.deed is None else entry.deed.value.replace("_", " ")
    state = {True: "done", False: "failed", None: "begun, how it ended is not on record"}[entry.ok]
    return f"{name}{f' {entry.node}' if entry.node else ''} ({state}{f'; {entry.text}' if entry.text else ''})"


def journal_says(directory: Path, named: Path | None) -> tuple[LastUpgrade | None, EssCanError | None]:
    """The last upgrade, and why it is not known."""
    try:
        return last_upgrade(directory, named), None
    except EssCanError as error:
        return None, error
