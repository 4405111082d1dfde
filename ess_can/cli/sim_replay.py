"""`ess-can sim replay`: one run of a campaign again, told line by line."""

from __future__ import annotations

import click

from ess_can.cli.errors import handle_errors


@click.command()
@handle_errors
def replay() -> None:
    """Run one seed of a campaign again, and tell what happens when."""
