"""`ess-can history`: the upgrades that were done from here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import handle_errors
from ess_can.cli.image_text import print_json
from ess_can.cli.journal_option import journal_directory, journal_option
from ess_can.errors import UsageError

if TYPE_CHECKING:
    from ess_can.journal.entries import UpgradeRecord

_DIGEST_DIGITS = 64


@click.command()
@journal_option
@click.option("--verify", is_flag=True, help="Check that no entry of the journal was changed, removed or added.")
@click.option("--head", default="", metavar="HEX", help="With --verify: a digest noted earlier must be among them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_errors
def history(journal: Path | None, verify: bool, head: str, as_json: bool) -> None:
    """List the upgrades in the journal, and the command for one that has not ended.

    Note the head that is printed in another place: with --verify --head it shows later whether the journal's end was
    cut off, or all of it written anew.
    """
    from ess_can.journal.reader import JournalReader

    _check_head(head, verify)
    directory = journal_directory(journal)
    with JournalReader.open(directory) as reader:
        entries = reader.verify(head) if verify else None
        records, newest = reader.upgrades(), reader.head()
    if as_json:
        print_json(
            {
                "result": "ok",
                "exit_code": 0,
                "error": None,
                "journal": str(directory),
                "head": newest,
                "verified_entries": entries,
                "upgrades": [upgrade_document(record, journal) for record in records],
            }
        )
        return
    _print(records, journal, directory)
    if entries is not None:
        click.echo(
            f"verified {entries} entries: each is as it was written{', the head given among them' if head else ''}"
        )
    click.echo(f"head {newest} (keep it elsewhere: `--verify --head` checks the journal against it)")


def _check_head(head: str, verify: bool) -> None:
    if head and not verify:
        raise UsageError("--head is of no use without --verify")
    if head and (len(head) != _DIGEST_DIGITS or set(head.lower()) - set("0123456789abcdef")):
        raise UsageError("--head is not a digest", why=f"it has 64 hexadecimal digits, not {head!r}")


def _print(records: list[UpgradeRecord], named: Path | None, directory: Path) -> None:
    from ess_can.cli.journal_text import going_on, nodes_text, printable, resume_command, time_of

    if not records:
        click.echo(f"The journal {directory} has no upgrades.")
        return
    releases = [printable(record.release) for record in records]
    width = max(map(len, ["release", *releases]))
    click.echo(f"{'id':<5}{'began':<22}{'ended':<22}{'release':<{width + 2}}{'result':<15}{'error':<22}nodes".rstrip())
    for record, release in zip(records, releases, strict=True):
        ended = "not ended" if record.ended_at is None else time_of(record.ended_at)
        click.echo(
            f"{record.id:<5}{time_of(record.began_at):<22}{ended:<22}{release:<{width + 2}}"
            f"{printable(record.result) or '-':<15}{printable(record.error) or '-':<22}{nodes_text(record)}".rstrip()
        )
    if not records[-1].finished:
        click.echo(f"upgrade {records[-1].id} has not ended; {going_on(resume_command(named))}")


def upgrade_document(record: UpgradeRecord, named: Path | None) -> dict[str, object]:
    """An upgrade as the journal has it, for --json; `named` is the journal's directory if it is not the usual one."""
    from ess_can.cli.journal_text import report_of, resume_command
    from ess_can.journal.entries import time_text

    return {
        "id": record.id,
        "began_at": time_text(record.began_at),
        "ended_at": None if record.ended_at is None else time_text(record.ended_at),
        "release": record.release,
        "file_sha256": record.file_sha256.hex(),
        "hv_found": record.found or None,
        "result": record.result or None,
        "error": record.error or None,
        "report": report_of(record),
        "next_command": None if record.finished else resume_command(named),
    }
