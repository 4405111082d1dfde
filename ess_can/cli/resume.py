"""`ess-can resume`: go on with an upgrade that did not come to its end, or give it up."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import handle_upgrade_errors
from ess_can.cli.journal_option import journal_directory, journal_option
from ess_can.cli.upgrade_job import UpgradeJob, upgrade_options
from ess_can.errors import EssCanError, NothingToResume

if TYPE_CHECKING:
    from ess_can.journal.entries import UpgradeRecord
    from ess_can.journal.journal import Journal
    from ess_can.trust.verify import VerifiedUpgrade


class _WithRecordedOptions(click.Command):
    """A command whose options default to those that the unfinished upgrade was begun with."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        named = typed.get("journal")
        with suppress(EssCanError, OSError):  # the command itself meets the same trouble, and says so
            ctx.default_map = _recorded(journal_directory(None if named is None else Path(str(named))))
        return super().parse_args(ctx, args)


@click.command(cls=_WithRecordedOptions)
@journal_option
@click.option("--roll-back", is_flag=True, help="Give it up: nodes go back to their confirmed images.")
@upgrade_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_upgrade_errors
def resume(job: UpgradeJob, journal: Path | None, roll_back: bool, as_json: bool) -> None:
    """Go on with the upgrade that stands unfinished in the journal.

    How far it came is read from the plant: what a node holds already is not sent again, and nodes on trial go back
    first.  All options default to what the upgrade was begun with, and the file is the journal's own copy of it.
    High voltage is left as it was found before the first attempt.
    """
    from ess_can.cli.finish import finish
    from ess_can.cli.journal_text import resume_command
    from ess_can.cli.report_text import ProgressPrinter
    from ess_can.cli.stopwatch import Stopwatch, wall_clock
    from ess_can.journal.journal import Journal

    stopwatch = Stopwatch()
    directory = journal_directory(journal)
    with closing(Journal.open(directory, wall_clock)) as kept:
        record = kept.unfinished()
        if record is None:
            raise NothingToResume("no upgrade stands unfinished", why=f"in the journal {directory}")
        release = _release(job, kept, record, needed=not roll_back)
        with ProgressPrinter(silent=as_json) as progress:
            report, trace_hash = job.run(release, kept, progress, roll_back=roll_back)
        finish(
            report,
            as_json=as_json,
            wall_time_s=stopwatch.elapsed_s(),
            trace_hash=trace_hash,
            resume=resume_command(journal and journal.absolute()),
            head=kept.head,
        )


def _release(job: UpgradeJob, journal: Journal, record: UpgradeRecord, *, needed: bool) -> VerifiedUpgrade | None:
    """The release that it was begun with.  One that expired meanwhile had not when it was begun.

    Raises the errors of an upgrade file, and those of the journal, unless it is not `needed`.
    """
    try:
        return job.open(journal.kept_file(record.id), record.began_at.date())
    except EssCanError:
        if needed:
            raise
        return None


def _recorded(directory: Path) -> dict[str, object]:
    """The options of the unfinished upgrade.  Raises the journal's errors."""
    from ess_can.journal.reader import JournalReader

    with JournalReader.open(directory) as reader:
        options = next((record.options for record in reader.upgrades() if not record.finished), "")
    with suppress(ValueError):  # begun by a program that kept none
        found = json.loads(options)
        if isinstance(found, dict):
            return found
    return {}
