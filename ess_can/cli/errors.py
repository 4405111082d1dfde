"""One way for every command to end with an error."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from ess_can.errors import EssCanError

P = ParamSpec("P")
R = TypeVar("R")


def handle_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an EssCanError into a message and its exit code.

    For people two lines on stderr; if the command's parameter `as_json` is true, one JSON document on stdout.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EssCanError as error:
            report_error(error, as_json=bool(kwargs.get("as_json")))
            raise click.exceptions.Exit(error.exit_code) from error

    return wrapper


def report_error(error: EssCanError, *, as_json: bool) -> None:
    """Print what happened, why, and what to do."""
    if as_json:
        document = {
            "result": "error",
            "exit_code": error.exit_code,
            "error": {
                "name": error.name,
                "message": str(error),
                "blame": error.blame.value,
                "remedy": error.remedy,
            },
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"error {error.name}: {error}", err=True)
    click.echo(f"what to do: {error.remedy}", err=True)
