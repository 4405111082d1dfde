"""The end of every command that upgrades: the report, and the exit code."""

from __future__ import annotations

import click

from ess_can.cli.image_text import print_json
from ess_can.cli.output import OUTPUT_CLOSED, printed
from ess_can.cli.report_text import print_errors, print_report
from ess_can.gateway.report import Report
from ess_can.gateway.report_document import report_document


def finish(
    report: Report,
    *,
    as_json: bool,
    wall_time_s: float,
    trace_hash: str | None,
    resume: str | None = None,
    head: str | None = None,
) -> None:
    """Print the report and exit with its code.

    `resume` is the command that goes on with what is left, `head` the digest of the last entry of a journal on disk.
    If the output was closed meanwhile, errors still go to stderr, and only a code that would be 0 is OUTPUT_CLOSED.
    """
    resume = resume if report.resumable else None

    def show() -> None:
        if as_json:
            print_json(
                report_document(report, wall_time_s=wall_time_s, trace_hash=trace_hash, resume=resume, head=head)
            )
            return
        print_report(report, wall_time_s=wall_time_s, trace_hash=trace_hash)
        if head is not None and report.upgrade_id:
            click.echo(f"head       {head}")

    complete = printed(show)
    if not as_json:
        complete &= printed(lambda: print_errors(report, resume=resume))
    raise click.exceptions.Exit(report.exit_code if complete else report.exit_code or OUTPUT_CLOSED)
