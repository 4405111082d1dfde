"""The options that keep an upgrade from taking all of the bus."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ess_can.gateway.config import GatewayConfig

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A cap on the bus load as the command line names it; None leaves it to the configuration file."""

    max_percent: float | None = None
    yields: bool | None = None

    def applied_to(self, config: GatewayConfig) -> GatewayConfig:
        """The configuration with what was given here in place of what its file says.  Raises UsageError."""
        limits = config.bus
        if self.max_percent is not None:
            limits = replace(limits, max_load_percent=self.max_percent)
        if self.yields is not None:
            limits = replace(limits, yield_to_traffic=self.yields)
        return replace(config, bus=limits)


def load_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the flags to a command, which gets them as one argument `load`."""

    @functools.wraps(command)
    def with_load(*, max_bus_load: float | None, yield_to_traffic: bool | None, **others: Any) -> R:
        return command(load=LoadOptions(max_bus_load, yield_to_traffic), **others)

    wrapped: Callable[..., R] = with_load
    for option in reversed(
        (
            click.option(
                "--max-bus-load",
                type=click.FloatRange(min=0, max=100, min_open=True),
                metavar="PERCENT",
                help="Requests to nodes take at most this share of the bus's time; no cap unless given.",
            ),
            click.option(
                "--yield-to-traffic/--no-yield-to-traffic",
                default=None,
                help="Take what others leave: all traffic together stays within --max-bus-load, 90 % unless given; "
                "5 % of the bus are taken in any case.  Listens to everything, so that no hardware filter applies.",
            ),
        )
    ):
        wrapped = option(wrapped)
    return wrapped
