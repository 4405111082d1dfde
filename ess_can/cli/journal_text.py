"""How the journal looks to people."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path

from ess_can.journal.entries import Entry, Kind, UpgradeRecord


def resume_command(journal: Path | None) -> str:
    """The command for an upgrade that has not ended, in the journal that was named or the usual one."""
    return "ess-can resume" if journal is None else f"ess-can resume --journal {shlex.quote(str(journal))}"


def going_on(command: str | None) -> str:
    """How the command for an upgrade that has not ended is told."""
    return f"to go on with it, unless it is running now: {command}"


def time_of(at: datetime) -> str:
    """To the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def report_of(record: UpgradeRecord) -> dict[str, object] | None:
    """The report that the upgrade ended with, as `upgrade --json` prints it."""
    try:
        report = json.loads(record.report)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def nodes_text(record: UpgradeRecord) -> str:
    """What the nodes ran at the end, such as ``bmu1 1.1.0, bmu2 silent``; empty if it is not known."""
    nodes = (report_of(record) or {}).get("nodes")
    if not isinstance(nodes, list):
        return ""
    return printable(
        ", ".join(f"{node.get('name')} {node.get('runs') or 'silent'}" for node in nodes if isinstance(node, dict))
    )


def entry_text(entry: Entry) -> str:
    """What an entry says, without seq and time."""
    deed = "" if entry.deed is None else entry.deed.value.replace("_", " ")
    subject = f"{entry.node}: {deed}" if entry.node else deed
    match entry.kind:
        case Kind.INTENT:
            head = f"intends   {subject}"
        case Kind.RESULT:
            head = f"{'did' if entry.ok else 'FAILED':<10}{subject}"
        case kind:
            return printable(f"{kind.value:<10}{entry.text}".rstrip())
    return printable(head + (f" ({entry.text})" if entry.text else ""))


def printable(text: str) -> str:
    """`text` in one line, without what a terminal would take for an order."""
    return "".join(one if one.isprintable() else " " for one in text)
