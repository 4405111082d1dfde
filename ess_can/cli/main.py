"""The `ess-can` command.  Subcommands are imported when they are used, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
from typing import Any

import click

from ess_can import __version__
from ess_can.cli.arguments import repeat_options

_COMMANDS = {
    "demo": ("ess_can.cli.demo", "Run a whole upgrade on a simulated plant."),
    "upgrade": ("ess_can.cli.upgrade", "Upgrade a station, or with --sim a simulated one."),
    "resume": ("ess_can.cli.resume", "Go on with an upgrade that did not end, or give it up."),
    "status": ("ess_can.cli.status", "Show what the plant says, and whether it may be upgraded now."),
    "history": ("ess_can.cli.history", "List the upgrades that were done from here, from the journal."),
    "report": ("ess_can.cli.report", "Show what was done in an upgrade, when, and with what evidence."),
    "monitor": ("ess_can.cli.monitor", "Show the plant live, by listening alone."),
    "doctor": ("ess_can.cli.doctor", "Look for everything that can be wrong, each with its remedy."),
    "inventory": ("ess_can.cli.inventory", "List the nodes with versions, banks and serial numbers."),
    "image": ("ess_can.cli.image", "Make, look at and check firmware files."),
    "sim": ("ess_can.cli.sim", "Run the simulated plant on a CAN bus."),
}


class _LazyGroup(click.Group):
    """A group that knows its commands' names and imports a command only to run it."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return super().make_context(info_name, repeat_options(args), parent, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Completion in bash: eval "$(_ESS_CAN_COMPLETE=bash_source ess-can)"; likewise zsh_source and fish_source.',
)
@click.version_option(__version__, "-V", "--version", prog_name="ess-can")
def main() -> None:
    """Remote firmware upgrade of battery energy storage systems over CAN.

    Exit codes: 0 done, 1 internal error, 2 usage, 3 interrupted, 5-19 adapter and bus, 20-39 upgrade file,
    40-69 the plant refuses, 70-89 transport and diagnostics, 90-99 the node's verdict, 100-109 rolled back or held
    open, 110-119 the journal, 120 a campaign found a violation.  docs/exit-codes.md lists every one.
    """
