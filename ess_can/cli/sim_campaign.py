"""`ess-can sim campaign`: many simulated upgrades under random faults, on all cores."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from ess_can.cli.errors import describe, handle_errors
from ess_can.cli.image_text import print_json
from ess_can.errors import EssCanError, Interrupted, InvariantViolated

if TYPE_CHECKING:
    from collections import Counter

    from rich.progress import Progress, TaskID

    from ess_can.campaign.result import Finding, RunResult, Summary

_PLAIN_STEP_PERCENT = 10
_SHOWN = 20  # findings of a kind that people are shown; --json has all


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=1000, show_default=True, help="How many runs.")
@click.option("--seed", "first", type=click.IntRange(min=0), default=1, show_default=True, help="The first run's seed.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Processes; one for each core unless given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_errors
def campaign(seeds: int, first: int, jobs: int | None, as_json: bool) -> None:
    """Run many upgrades of simulated plants under random faults, and watch every rule of safety.

    Each seed is a plant, faults and their moments.  When the faults are over, each run must come to an end, and then a
    good upgrade must succeed.  The exit code is 0 if nothing was wrong with any of them.  The same seeds give the same
    summary, whatever the number of jobs.
    """
    from ess_can.campaign.campaign import cores, run_campaign
    from ess_can.campaign.result import Summary
    from ess_can.cli.stopwatch import Stopwatch

    jobs = jobs or cores()
    stopwatch, summary = Stopwatch(), Summary()
    interrupted = False
    with _Progress(seeds, silent=as_json) as progress:
        try:
            for result in run_campaign(first, seeds, jobs=jobs):
                summary.add(result)
                progress.show(result, summary)
        except KeyboardInterrupt:
            interrupted = True
    error = _error(summary, seeds, interrupted=interrupted)
    elapsed_s = stopwatch.elapsed_s()
    if as_json:
        print_json(summary_document(summary, error, first=first, seeds=seeds, jobs=jobs, wall_time_s=elapsed_s))
    else:
        _print_summary(summary, jobs, elapsed_s)
        if error is not None:
            click.echo(f"\nerror {error.name}: {error}", err=True)
            click.echo(f"what to do: {error.remedy}", err=True)
    raise click.exceptions.Exit(0 if error is None else error.exit_code)


def _error(summary: Summary, seeds: int, *, interrupted: bool) -> EssCanError | None:
    if not summary.good:
        found = summary.findings
        return InvariantViolated(
            f"{len(found)} findings in {summary.runs} runs",
            why=f"the first: seed {found[0].seed}, {found[0].text}",
            remedy=f"Replay it with `{replay_command(found[0])}`, and please report it as a bug.",
        )
    if interrupted:
        return Interrupted(
            f"interrupted after {summary.runs} of {seeds} runs", remedy="Go on with --seed at the next seed."
        )
    return None


def replay_command(finding: Finding) -> str:
    """What to type to see a run again."""
    return f"ess-can sim replay --seed {finding.seed}"


def summary_document(
    summary: Summary, error: EssCanError | None, *, first: int, seeds: int, jobs: int, wall_time_s: float
) -> dict[str, object]:
    """The summary as one JSON document; docs/json.md describes it."""
    return {
        "result": "ok" if error is None else "error",
        "exit_code": 0 if error is None else error.exit_code,
        "error": None if error is None else describe(error),
        "first_seed": first,
        "seeds": seeds,
        "runs": summary.runs,
        "kills": summary.kills,
        "ended": dict(sorted(summary.ended.items())),
        "faults": dict(sorted(summary.faults.items())),
        "errors": dict(sorted(summary.errors.items())),
        "edges": dict(sorted(summary.edges.items())),
        "violations": _findings(summary.violations),
        "without_final_state": _findings(summary.stuck),
        "not_healed": _findings(summary.unhealed),
        "virtual_s": round(summary.virtual_s, 1),
        "jobs": jobs,
        "wall_time_s": round(wall_time_s, 3),
    }


def _findings(findings: list[Finding]) -> list[dict[str, object]]:
    return [{"seed": one.seed, "text": one.text, "replay": replay_command(one)} for one in findings]


def _print_summary(summary: Summary, jobs: int, wall_time_s: float) -> None:
    rate = summary.runs / wall_time_s if wall_time_s else 0.0
    click.echo(
        f"\n{summary.runs} runs in {wall_time_s:.1f} s with {jobs} jobs: {rate:.1f} runs/s, "
        f"{summary.virtual_s / 3600:.1f} h of simulated time, the gateway killed {summary.kills} times"
    )
    _print_counts("ended", summary.ended)
    _print_counts("faults that took effect", summary.faults)
    _print_counts("errors reached", summary.errors)
    for title, findings in (
        ("broken rules", summary.violations),
        ("without a final state", summary.stuck),
        ("no good upgrade afterwards", summary.unhealed),
    ):
        click.echo(f"{title}: {len(findings)}")
        for one in findings[:_SHOWN]:
            click.echo(f"  seed {one.seed}: {one.text}\n    {replay_command(one)}")
        if len(findings) > _SHOWN:
            click.echo(f"  and {len(findings) - _SHOWN} more: --json lists all")


def _print_counts(title: str, counts: Counter[str]) -> None:
    click.echo(f"{title}:")
    for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        click.echo(f"  {count:>7} {name}")


class _Progress:
    """A live bar on a terminal, a line at every tenth otherwise, nothing when `silent`; findings at once."""

    def __init__(self, seeds: int, *, silent: bool) -> None:
        self._seeds = seeds
        self._silent = silent
        self._next_percent = _PLAIN_STEP_PERCENT
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        from ess_can.cli.console import SteadyConsole

        console = SteadyConsole()
        if not self._silent and console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[found]}"),
                console=console,
                transient=True,
            )
            self._task = self._live.add_task("runs", total=self._seeds, found="nothing found")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, result: RunResult, summary: Summary) -> None:
        """One more run is over."""
        if self._silent:
            return
        found = len(summary.findings)
        if not result.good:
            self._line(f"seed {result.seed}: {result.wrong}")
        if self._live is not None and self._task is not None:
            self._live.update(
                self._task, completed=summary.runs, found=f"{found} findings" if found else "nothing found"
            )
        elif 100 * summary.runs >= self._next_percent * self._seeds:
            self._next_percent = (
                100 * summary.runs // self._seeds // _PLAIN_STEP_PERCENT * _PLAIN_STEP_PERCENT + _PLAIN_STEP_PERCENT
            )
            self._line(f"{summary.runs} of {self._seeds} runs, {found} findings")

    def _line(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            click.echo(text)
