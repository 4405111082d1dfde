"""`ess-can report`: one upgrade, from what the journal has of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import describe, handle_errors
from ess_can.cli.image_text import print_json
from ess_can.cli.journal_option import journal_directory, journal_option
from ess_can.errors import AuditBroken

if TYPE_CHECKING:
    from ess_can.journal.entries import Entry, UpgradeRecord


@click.command()
@click.argument("name", metavar="ID|last")
@journal_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_errors
def report(name: str, journal: Path | None, as_json: bool) -> None:
    """Show what was done in an upgrade, when, and with what evidence.

    `ess-can history` lists the upgrades.  The exit code is 0 unless the journal does not verify.
    """
    from ess_can.cli.history import upgrade_document
    from ess_can.journal.reader import JournalReader

    with JournalReader.open(journal_directory(journal)) as reader:
        record = reader.upgrade(name)
        entries, head = reader.entries(record.id), reader.head()
        broken: AuditBroken | None = None
        try:
            reader.verify()
        except AuditBroken as error:
            broken = error
    exit_code = 0 if broken is None else broken.exit_code
    if as_json:
        print_json(
            {
                "result": "ok" if broken is None else "error",
                "exit_code": exit_code,
                "error": None if broken is None else describe(broken),
                "head": head,
                "upgrade": upgrade_document(record, journal),
                "entries": [_document(entry) for entry in entries],
            }
        )
    else:
        _print(record, entries, journal)
        click.echo(f"head       {head}")
        if broken is not None:
            click.echo(f"\nerror {broken.name}: {broken}", err=True)
            click.echo(f"what to do: {broken.remedy}", err=True)
    raise click.exceptions.Exit(exit_code)


def _print(record: UpgradeRecord, entries: list[Entry], journal: Path | None) -> None:
    from ess_can.cli.journal_text import entry_text, going_on, nodes_text, printable, resume_command, time_of

    click.echo(f"upgrade    {record.id}, {printable(record.release)}")
    click.echo(f"file       SHA-256 {record.file_sha256.hex()}")
    click.echo(f"found      high voltage {printable(record.found) or 'not yet looked at'}")
    click.echo()
    for entry in entries:
        click.echo(f"{entry.seq:>6}  {time_of(entry.at)}  {entry_text(entry)}")
    click.echo()
    if record.finished:
        click.echo(f"result     {printable(record.result)}{f', {printable(record.error)}' if record.error else ''}")
        if nodes := nodes_text(record):
            click.echo(f"nodes      {nodes}")
    else:
        click.echo(f"result     not ended; {going_on(resume_command(journal))}")


def _document(entry: Entry) -> dict[str, object]:
    from ess_can.journal.entries import time_text

    return {
        "seq": entry.seq,
        "at": time_text(entry.at),
        "kind": entry.kind.value,
        "deed": None if entry.deed is None else entry.deed.value,
        "node": entry.node or None,
        "text": entry.text,
        "ok": entry.ok,
        "answers": entry.answers,
        "digest": entry.digest.hex(),
    }
