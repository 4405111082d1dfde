"""The options that describe a station: its racks, its keys, the secret of service 27."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ess_can.errors import FileUnreadable, UsageError

if TYPE_CHECKING:
    from ess_can.gateway.config import Afterwards, GatewayConfig
    from ess_can.identity import NodeAddress
    from ess_can.signals.dbc import StationCodec
    from ess_can.uds.access import CmacAccess

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class StationOptions:
    """A station as the command line describes it; `dbc` None is the built-in one."""

    racks: int | None = None
    comm_gateway: bool = True
    dbc: Path | None = None

    def expected(self) -> tuple[NodeAddress, ...]:
        """The nodes that must be present.  Raises UsageError if nobody said how many racks there are."""
        return expected_nodes(self.racks, self.comm_gateway)

    def codec(self) -> StationCodec:
        """The station's messages.  Raises DbcMismatch, FileUnreadable, UsageError."""
        return load_codec(self.dbc, self.racks)


def station_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the flags that describe the station to a command, which gets them as one argument `station`."""

    @functools.wraps(command)
    def with_station(*, racks: int | None, comm_gateway: bool, dbc: Path | None, **others: Any) -> R:
        return command(station=StationOptions(racks, comm_gateway, dbc), **others)

    wrapped: Callable[..., R] = with_station
    for option in reversed(
        (
            click.option(
                "--racks",
                type=click.IntRange(min=1),
                envvar="ESS_CAN_RACKS",
                show_envvar=True,
                help="How many racks the station has.",
            ),
            click.option(
                "--comm-gateway/--no-comm-gateway",
                default=True,
                show_default=True,
                help="Whether it has a comm gateway.",
            ),
            click.option("--dbc", type=click.Path(path_type=Path), help="DBC to use instead of the built-in one."),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


def expected_nodes(racks: int | None, comm_gateway: bool) -> tuple[NodeAddress, ...]:
    """The nodes that must be present.  Raises UsageError if nobody said how many racks there are."""
    from ess_can.identity import NodeAddress, NodeType

    if racks is None:
        raise UsageError(
            "the number of racks is not given",
            why="a silent rack must never be taken for an absent one",
            remedy="Say --racks N, or set ESS_CAN_RACKS.",
        )
    bmus = tuple(NodeAddress(NodeType.BMU, number) for number in range(1, racks + 1))
    return (*bmus, NodeAddress(NodeType.COMM_GATEWAY)) if comm_gateway else bmus


def load_codec(dbc: Path | None = None, racks: int | None = None) -> StationCodec:
    """The messages of a station with this many racks.

    Raises DbcMismatch, FileUnreadable, and UsageError if the DBC has not as many.
    """
    from ess_can.identity import NodeType
    from ess_can.signals.dbc import StationCodec

    codec = StationCodec.load(dbc)
    known = sum(node.node_type is NodeType.BMU for node in codec.nodes())
    if racks is not None and racks > known:
        raise UsageError(
            f"a station of {racks} racks does not fit the DBC",
            why=f"it describes {known}",
            remedy=f"Say --racks with at most {known}, or give --dbc a file that describes all of them.",
        )
    return codec


def gateway_config(
    racks: int | None, comm_gateway: bool, afterwards: Afterwards, limits_file: Path | None
) -> GatewayConfig:
    """The gateway's configuration for this station.  Raises UsageError, FileUnreadable."""
    from ess_can.gateway.config import GatewayConfig
    from ess_can.gateway.config_file import Limits, load_limits

    limits = Limits() if limits_file is None else load_limits(limits_file)
    return GatewayConfig(
        expected_nodes(racks, comm_gateway),
        limits.policy,
        limits.hv,
        limits.times,
        limits.bus,
        limits.physics,
        afterwards,
        serials=limits.serials,
    )


def afterwards_from(reconnect: bool, hold_open: bool) -> Afterwards:
    """How the plant is to be left.  Raises UsageError for both flags."""
    from ess_can.gateway.config import Afterwards

    if reconnect and hold_open:
        raise UsageError("--reconnect and --hold-open contradict each other")
    if reconnect:
        return Afterwards.CONNECT
    return Afterwards.HOLD_OPEN if hold_open else Afterwards.AS_FOUND


def load_access(secret_file: Path | None) -> CmacAccess:
    """The answer to service 27's challenge, from a file with 32 hexadecimal digits.  Raises UsageError."""
    from ess_can.uds.access import CmacAccess

    if secret_file is None:
        raise UsageError(
            "the access secret is not given",
            why="nodes let themselves be programmed only after authentication (service 27)",
            remedy="Pass --access-secret FILE with the site's secret: 32 hexadecimal digits.",
        )
    try:
        secret = bytes.fromhex(secret_file.read_text("ascii").strip())
    except OSError as error:
        raise FileUnreadable(
            f"{secret_file} cannot be read",
            why=error.strerror or str(error),
            remedy="Give --access-secret (or ESS_CAN_ACCESS_SECRET) the path of a file that can be read.",
        ) from error
    except ValueError as error:
        raise UsageError(f"{secret_file} does not hold a secret of 32 hexadecimal digits") from error
    return CmacAccess(secret)
