"""The end of every command that upgrades: the report, and the exit code."""

from __future__ import annotations

import click

from ess_can.cli.image_text import print_json
from ess_can.cli.report_text import print_report, report_document
from ess_can.gateway.report import Report


def finish(report: Report, *, as_json: bool, wall_time_s: float, trace_hash: str | None) -> None:
    """Print the report and exit with its code."""
    if as_json:
        print_json(report_document(report, wall_time_s=wall_time_s, trace_hash=trace_hash))
    else:
        print_report(report, wall_time_s=wall_time_s, trace_hash=trace_hash)
    raise click.exceptions.Exit(report.exit_code)
