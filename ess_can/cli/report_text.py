"""How an upgrade looks: while it runs and as a report, to people and to programs."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from ess_can.errors import Interrupted
from ess_can.gateway.phases import Phase
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.progress import Decided, Estimated, Event, NodeStepEntered, Noted, PhaseEntered, Transferred
from ess_can.gateway.report import NodeRecord, Report
from ess_can.identity import NodeAddress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ess_can.gateway.estimate import Estimate

_PLAIN_STEP_PERCENT = 25


class ProgressPrinter:
    """Prints progress: a live bar on a terminal, plain lines otherwise, nothing when `silent`.

    Times are those of the upgrade's loop, in seconds since its first event.
    """

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._began_at: float | None = None
        self._live: Progress | None = None
        self._tasks: dict[NodeAddress, TaskID] = {}
        self._next_percent: dict[NodeAddress, int] = {}
        self._estimate: Estimate | None = None

    def __enter__(self) -> Self:
        from ess_can.cli.console import SteadyConsole

        console = SteadyConsole()
        if not self._silent and console.is_terminal:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TextColumn("{task.fields[rate]}"),
                console=console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with suppress(OSError):  # a terminal that was closed
                self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._silent:
            return
        if self._began_at is None:
            self._began_at = event.at
        match event:
            case PhaseEntered(phase=phase, detail=detail):
                for node in list(self._tasks):
                    self._end_bar(node)
                self._line(event.at, phase.value, detail or self._time_left(phase))
            case Estimated(estimate=estimate):
                self._estimate = estimate
            case NodeStepEntered(node=node, step=step, detail=detail):
                self._end_bar(node)
                self._next_percent[node] = _PLAIN_STEP_PERCENT
                self._line(event.at, f"  {node}: {step.value}", detail)
            case Transferred():
                self._transferred(event)
            case Noted(text=text):
                self._line(event.at, f"  note: {text}", "")
            case Decided(text=text):
                self._line(event.at, f"  decision: {text}", "")

    def _time_left(self, phase: Phase) -> str:
        """From this phase on to the end of the upgrade, if that is known."""
        left = 0.0 if self._estimate is None else self._estimate.remaining_s(phase)
        return f"about {left:.0f} s left" if left else ""

    def _line(self, at: float, text: str, detail: str) -> None:
        line = f"[{at - (self._began_at or 0.0):8.2f} s] {text}" + (f" ({detail})" if detail else "")
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            click.echo(line)

    def _end_bar(self, node: NodeAddress) -> None:
        task = self._tasks.pop(node, None)
        if task is not None and self._live is not None:
            self._live.remove_task(task)

    def _transferred(self, event: Transferred) -> None:
        rate = f"{event.bytes_per_s / 1000:.1f} kB/s, ETA {event.eta_s:.0f} s"
        percent = 100 * event.done_bytes // event.total_bytes
        if self._live is not None:
            if event.node not in self._tasks:
                task = self._live.add_task(f"{event.node}: transfer", total=event.total_bytes, rate="")
                self._tasks[event.node] = task
            self._live.update(self._tasks[event.node], completed=event.done_bytes, rate=rate)
        due = self._next_percent.get(event.node, 0)
        if percent < due and event.done_bytes < event.total_bytes:
            return
        self._next_percent[event.node] = (percent // _PLAIN_STEP_PERCENT + 1) * _PLAIN_STEP_PERCENT
        if self._live is None:
            self._line(event.at, f"  {event.node}: {percent:3d} % of {_kib(event.total_bytes)}", rate)


_HEADLINES = {
    Phase.DONE: "Done: every node runs its new firmware.",
    Phase.NOTHING_TO_DO: "Nothing to do: every node runs this release already.",
    Phase.CHECKED: "Checked: the upgrade could start now. Nothing was sent that changes the plant.",
    Phase.REFUSED: "Refused: nothing was changed.",
    Phase.FAILED: "Failed: every node runs what it ran before, the plant was given back.",
    Phase.ROLLED_BACK: "Rolled back: every node runs what it ran before, the plant was given back.",
    Phase.HELD_OPEN: "Held open: the plant is proved open and locked.",
}


def _headline(report: Report) -> str:
    if report.result is Phase.HELD_OPEN and not report.proved_safe:
        return "Ended: the plant is NOT proved open and locked. Treat it as live until you have looked."
    return _HEADLINES[report.result]


_COLUMNS = f"  {'node':<14}{'before':<10}{'after':<10}{'image':>9}{'transfer':>10}{'rate':>12}{'of wire limit':>15}"


def print_report(report: Report, *, wall_time_s: float, trace_hash: str | None) -> None:
    """The report that a site engineer reads, on stdout; for its errors see `print_errors`."""
    click.echo()
    click.echo(_headline(report))
    click.echo()
    if report.nodes:
        click.echo(_COLUMNS)
        for node in report.nodes:
            click.echo(_node_line(node, report.result))
        click.echo()
    if report.result is Phase.CHECKED:
        _print_expected(report)
    if report.hv_off_s:
        click.echo(f"  high voltage off     {report.hv_off_s:.1f} s")
    if report.hv_before is not Connection.UNKNOWN:
        click.echo(f"  high voltage         {report.hv_before.value} before, {report.hv_after.value} after")
    if sent := sum(node.bytes_sent for node in report.nodes):
        click.echo(f"  firmware sent        {_kib(sent)}")
    simulated = " of simulated time" if trace_hash else ""
    click.echo(f"  duration             {report.bus_time_s:.1f} s{simulated}, {wall_time_s:.1f} s on the clock")
    if trace_hash:
        again = "" if isinstance(report.error, Interrupted) else " (the same seed gives the same)"
        click.echo(f"  trace                {trace_hash[:16]}{again}")


def print_errors(report: Report, *, resume: str | None = None) -> None:
    """Errors, and the command `resume` that goes on with what is left, on stderr."""
    if report.error is not None:
        click.echo(f"\nerror {report.error.name}: {report.error}", err=True)
        click.echo(f"what to do: {report.error.remedy}", err=True)
    if report.journal_error is not None and report.journal_error is not report.error:
        click.echo(f"\nnot all of it is on record, {report.journal_error.name}: {report.journal_error}", err=True)
        click.echo(f"what to do: {report.journal_error.remedy}", err=True)
    if resume is not None:
        click.echo(f"resume: {resume}", err=True)


def _print_expected(report: Report) -> None:
    expected, duration_s = report.expected, report.expected_duration_s
    if expected is None or duration_s is None:
        click.echo("  expected             unknown: the bit rate is not known")
        return
    click.echo(f"  expected transfer    {expected.transfer_s:.1f} s")
    click.echo(f"  expected HV-off      {expected.hv_off_s:.1f} s")
    click.echo(f"  expected duration    {duration_s:.1f} s, with the check")
    if expected.assumed:
        from ess_can.gateway.estimate import ASSUMED_FLASH as FLASH

        names = ", ".join(map(str, expected.assumed))
        sector = f"{FLASH.sector_erase_s:g} s to erase {_kib(FLASH.sector_bytes)}"
        click.echo(f"  assumed              {sector}, {FLASH.program_s_per_byte * 1e6:g} us to program a byte:")
        click.echo(f"                       {names} did not say")


def _node_line(node: NodeRecord, result: Phase) -> str:
    after = "silent" if node.runs is None else str(node.runs)
    if result is Phase.CHECKED:
        after = f"({node.to_version})"
    seconds = f"{node.transfer_s:.1f} s" if node.transfer_s else "-"
    rate = f"{node.bytes_sent / node.transfer_s / 1000:.1f} kB/s" if node.transfer_s else "-"
    efficiency = "-" if node.wire_efficiency is None else f"{100 * node.wire_efficiency:.1f} %"
    return (
        f"  {node.address!s:<14}{node.from_version!s:<10}{after:<10}{_kib(node.image_bytes):>9}"
        f"{seconds:>10}{rate:>12}{efficiency:>15}"
    )


def _kib(size: int) -> str:
    return f"{size / 1024:.0f} KiB" if size >= 10 * 1024 else f"{size / 1024:.1f} KiB"
