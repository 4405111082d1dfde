"""One way for every command to end with an error."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import click

from ess_can.cli.image_text import print_json
from ess_can.cli.output import OUTPUT_CLOSED, abandon_closed_output, printed
from ess_can.cli.trace_file import print_trace
from ess_can.errors import EssCanError, Interrupted

P = ParamSpec("P")
R = TypeVar("R")


def handle_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an error into a message and its exit code; a Ctrl-C into INTERRUPTED, a defect of ours into exit code 1.

    For people two lines on stderr; if the command's parameter `as_json` is true, one JSON document on stdout.  However
    the command ends, people are told of its trace.  One whose output was closed ends with OUTPUT_CLOSED, and no word.
    """
    return _wrap(command, error_document)


def handle_upgrade_errors(command: Callable[P, R]) -> Callable[P, R]:
    """`handle_errors` for commands that end with an upgrade's report: the document has all of the report's keys."""

    def document(error: EssCanError) -> dict[str, object]:
        from ess_can.gateway.report import Report
        from ess_can.gateway.report_document import report_document

        return {**report_document(Report(error=error), wall_time_s=0.0, trace_hash=None), **error_document(error)}

    return _wrap(command, document)


def _wrap(command: Callable[P, R], document: Callable[[EssCanError], dict[str, object]]) -> Callable[P, R]:
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EssCanError as caught:
            error = caught
        except KeyboardInterrupt:
            error = Interrupted("interrupted", remedy="`ess-can status` tells how the plant is.")
        except (click.exceptions.Exit, click.exceptions.Abort, click.ClickException):
            raise
        except Exception as bug:  # whatever it is: scripts still get their document and their exit code
            if isinstance(bug, BrokenPipeError) and abandon_closed_output():
                raise click.exceptions.Exit(OUTPUT_CLOSED) from bug
            text = traceback.format_exc()
            printed(lambda: click.echo(text, err=True))
            error = EssCanError("internal error", why=f"{type(bug).__name__}: {bug}")
        printed(partial(tell, error, as_json=bool(kwargs.get("as_json"))))
        raise click.exceptions.Exit(error.exit_code)

    def tell(error: EssCanError, *, as_json: bool) -> None:
        if as_json:
            print_json(document(error))
        else:
            click.echo(f"error {error.name}: {error}", err=True)
            click.echo(f"what to do: {error.remedy}", err=True)

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run(*args, **kwargs)
        finally:
            if not kwargs.get("as_json"):
                printed(print_trace)

    return wrapper


def error_document(error: EssCanError) -> dict[str, object]:
    """An error as the JSON document of a command that came to nothing."""
    return {"result": "error", "exit_code": error.exit_code, "error": describe(error)}


def describe(error: EssCanError) -> dict[str, object]:
    """What happened, who has to act, and what to do, for --json."""
    return error.describe()
