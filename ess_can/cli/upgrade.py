"""`ess-can upgrade`: the job itself."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import handle_upgrade_errors
from ess_can.cli.journal_option import journal_directory, journal_option
from ess_can.cli.upgrade_job import UpgradeJob, recorded_options, upgrade_options, was_typed

if TYPE_CHECKING:
    from ess_can.journal.journal import Journal


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@upgrade_options
@journal_option
@click.option("-n", "--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_upgrade_errors
def upgrade(file: Path, job: UpgradeJob, journal: Path | None, dry_run: bool, as_json: bool) -> None:
    """Upgrade every node of the station that FILE is for.

    High voltage is taken off first and put back afterwards.  Nothing skips the checks of high voltage, signature and
    compatibility.  What is done is in the journal before it is done: an upgrade that did not come to its end is gone on
    with by `ess-can resume`, or by the same command again.
    """
    from ess_can.cli.finish import finish
    from ess_can.cli.journal_text import resume_command
    from ess_can.cli.report_text import ProgressPrinter
    from ess_can.cli.stopwatch import Stopwatch, today

    stopwatch = Stopwatch()
    release = job.open(file, today())
    options = recorded_options(click.get_current_context())
    with closing(_journal(journal, in_memory=job.sim and not was_typed("journal"))) as kept:
        with ProgressPrinter(silent=as_json) as progress:
            report, trace_hash = job.run(release, kept, progress, options=options, dry_run=dry_run)
        finish(
            report,
            as_json=as_json,
            wall_time_s=stopwatch.elapsed_s(),
            trace_hash=trace_hash,
            resume=None if kept.directory is None else resume_command(journal and journal.absolute()),
            head=None if kept.directory is None else kept.head,
        )


def _journal(named: Path | None, *, in_memory: bool) -> Journal:
    """The journal on the disk.  A simulated plant goes with its process, and so does its journal unless it is named."""
    from ess_can.cli.stopwatch import wall_clock
    from ess_can.journal.journal import Journal

    return Journal.in_memory(wall_clock) if in_memory else Journal.open(journal_directory(named), wall_clock)
