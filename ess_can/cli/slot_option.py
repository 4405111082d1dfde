"""The option that tells how large the nodes' image slots are."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")


def slot_option(command: Callable[P, R]) -> Callable[P, R]:
    """``--slot-kib``, the parameter `slot_kib`."""
    option = click.option(
        "--slot-kib",
        type=click.IntRange(min=1),
        default=896,
        show_default=True,
        metavar="KIB",
        help="Size of the nodes' image slots: a larger image is refused.",
    )
    return option(command)
