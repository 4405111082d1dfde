"""`--trace`: the file that a command's frames go to, and what is said of it when the command ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.output import printed

if TYPE_CHECKING:
    from ess_can.bus.trace import TraceWriter
    from ess_can.errors import TraceUnwritable

SIMULATED_START_S = 1_767_225_600.0
"""When simulations in virtual time begin by their traces: 2026-01-01 00:00 UTC, so that a seed gives the same bytes."""

_META = f"{__name__}.writer"


@contextmanager
def trace_file(path: Path | None, started_at_wall_s: float) -> Iterator[TraceWriter | None]:
    """A trace that is begun on the running loop and closed however the block ends; None without a path.

    Raises UsageError, TraceUnwritable.
    """
    if path is None:
        yield None
        return
    from ess_can.bus.trace import open_trace

    writer = open_trace(path, started_at_wall_s, _warn)
    try:
        yield writer
    finally:
        writer.close()
        context = click.get_current_context(silent=True)
        if context is not None:
            context.meta[_META] = writer


def _warn(error: TraceUnwritable) -> None:
    printed(lambda: click.echo(f"warning {error.name}: {error}; the command goes on without it", err=True))


def trace_document() -> dict[str, object]:
    """The key `trace` for a command's JSON document; nothing if the command wrote no trace."""
    writer = _written()
    if writer is None:
        return {}
    return {
        "trace": {
            "file": str(writer.path),
            "frames": writer.frames,
            "complete": writer.failure is None,
            "tshark": _tshark(writer) or None,
        }
    }


def print_trace() -> None:
    """Say on stderr what was written and how to look at it; nothing if the command wrote no trace."""
    writer = _written()
    if writer is None:
        return
    # Of a trace that failed, frames that were recorded may still have been in memory.
    trace = "trace:" if writer.failure is None else "trace (incomplete): at most"
    click.echo(f"{trace} {writer.frames} frames in {writer.path}", err=True)
    command = _tshark(writer)
    if command:
        click.echo(f"look at its diagnostics with: {command}", err=True)


def _written() -> TraceWriter | None:
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_META)


def _tshark(writer: TraceWriter) -> str:
    from ess_can.bus.trace import tshark_command
    from ess_can.signals.dbc import StationCodec

    codec = StationCodec.load(click.get_current_context().params.get("dbc"))  # the option --dbc of most commands
    return tshark_command(writer.path, [codec.diagnostic_ids(node) for node in codec.nodes()])
