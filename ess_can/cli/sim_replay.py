"""`ess-can sim replay`: one run of a campaign again, told line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import describe, handle_errors
from ess_can.cli.image_text import print_json
from ess_can.errors import EssCanError, InvariantViolated

if TYPE_CHECKING:
    from ess_can.campaign.result import RunResult
    from ess_can.campaign.timeline import Timeline

_HELP = "help"


@click.command()
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Which run.")
@click.option(
    "--faults",
    multiple=True,
    metavar="TEXT",
    help="These faults instead of the seed's own; `--faults help` lists what there is, `--faults none` has none.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@handle_errors
def replay(seed: int, faults: tuple[str, ...], as_json: bool) -> None:
    """Run one seed of a campaign again, exactly as it ran there, and tell what happened when.

    Times are those of the simulated plant, in seconds since its power was switched on.  The exit code is 0 if nothing
    was wrong with the run, whatever its faults did.
    """
    from ess_can.campaign.faults import fault_help
    from ess_can.campaign.run import replay_seed

    if faults == (_HELP,):
        click.echo(fault_help())
        return
    chosen = None if not faults else () if faults == ("none",) else faults
    result, timeline = replay_seed(seed, chosen)
    error = _error(result)
    if as_json:
        print_json(replay_document(result, timeline, error))
    else:
        _print(result, timeline)
        if error is not None:
            click.echo(f"\nerror {error.name}: {error}", err=True)
            click.echo(f"what to do: {error.remedy}", err=True)
    raise click.exceptions.Exit(0 if error is None else error.exit_code)


def _error(result: RunResult) -> EssCanError | None:
    if result.good:
        return None
    return InvariantViolated(
        f"something is wrong with the run of seed {result.seed}",
        why=result.wrong,
        remedy="Please report it as a bug, with this command.",
    )


def replay_document(result: RunResult, timeline: Timeline, error: EssCanError | None) -> dict[str, object]:
    """The run as one JSON document; docs/json.md describes it."""
    return {
        "result": "ok" if error is None else "error",
        "exit_code": 0 if error is None else error.exit_code,
        "error": None if error is None else describe(error),
        "seed": result.seed,
        "plant": result.plant,
        "faults": list(result.faults),
        "took_effect": list(result.took_effect),
        "ended": result.ended,
        "errors": list(result.errors),
        "kills": result.kills,
        "violations": list(result.violations),
        "without_final_state": result.stuck,
        "not_healed": result.unhealed,
        "virtual_s": round(result.virtual_s, 6),
        "trace_hash": result.trace_hash,
        "timeline": [{"at": round(line.at, 6), "who": line.who, "what": line.what} for line in timeline.lines],
    }


def _print(result: RunResult, timeline: Timeline) -> None:
    click.echo(f"Seed {result.seed}: {result.plant}.")
    click.echo("Faults: " + (", ".join(result.faults) or "none") + ".\n")
    for folded in timeline.folded():
        at, who, what = folded.line
        again = f" ({folded.times} times, until {folded.until:.3f} s)" if folded.times > 1 else ""
        click.echo(f"[{at:10.3f} s] {who:<12} {what}{again}")
    click.echo(f"\nended                {result.ended or 'without a final state'}")
    click.echo(f"errors               {', '.join(result.errors) or 'none'}")
    click.echo(f"faults in effect     {', '.join(result.took_effect) or 'none'}")
    click.echo(f"gateway killed       {result.kills} times")
    click.echo(f"good upgrade after   {result.unhealed or 'done'}")
    click.echo(f"broken rules         {len(result.violations)}")
    for text in result.violations:
        click.echo(f"  {text}")
    if result.stuck:
        click.echo(f"  {result.stuck}")
    click.echo(f"trace                {result.trace_hash[:16]} (the same seed gives the same)")
