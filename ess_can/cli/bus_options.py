"""The options that name a CAN bus: python-can's own flags, and its configuration where they are not given."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ess_can.errors import UsageError

if TYPE_CHECKING:
    import can

    from ess_can.bus.kernel_isotp import IsoTpTransport
    from ess_can.bus.load_limit import LoadLimit
    from ess_can.bus.port import Bus
    from ess_can.bus.python_can import PythonCanBus
    from ess_can.can.timing import BitTiming
    from ess_can.isotp import IsoTpParams

R = TypeVar("R")

DEFAULT_BITRATE = 500_000
DEFAULT_DATA_BITRATE = 2_000_000


@dataclass(frozen=True, slots=True)
class BusOptions:
    """A bus as the command line names it; None leaves a setting to python-can's configuration."""

    interface: str | None = None
    channel: str | None = None
    bitrate: int | None = None
    fd: bool = False
    data_bitrate: int | None = None
    timing: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    bus_kwargs: tuple[str, ...] = ()
    trace: Path | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Bus]:
        """The bus, opened and started on the running loop; traced if that was asked for.

        Raises InterfaceUnavailable, TraceUnwritable, UsageError.
        """
        from ess_can.bus.trace import TracedBus
        from ess_can.cli.stopwatch import wall_clock_s
        from ess_can.cli.trace_file import trace_file

        bus = self.open()
        try:
            bus.start()
            with trace_file(self.trace, wall_clock_s()) as writer:
                yield bus if writer is None else TracedBus(bus, writer)
        finally:
            bus.close()

    def open(self) -> PythonCanBus:
        """Open it.  Raises InterfaceUnavailable, UsageError."""
        from ess_can.bus.python_can import open_bus

        # python-can warns about optional packages; what matters reaches the user as an error.
        logging.getLogger("can").addHandler(logging.NullHandler())
        return open_bus(
            self.interface,
            self.channel,
            bitrate=self.bitrate,
            fd=self.fd or None,
            data_bitrate=self.data_bitrate,
            timing=self._timing(),
            filters=[_filter(text) for text in self.filters] or None,
            bus_kwargs=dict(_pair(text, "--bus-kwargs") for text in self.bus_kwargs),
        )

    def resolved(self) -> BusOptions:
        """Interface, channel and bit rate as python-can's configuration has them where they are not given here.

        They stay None where that names none, or is no configuration.
        """
        from can.util import load_config

        kwargs: dict[str, Any] = dict(_pair(text, "--bus-kwargs") for text in self.bus_kwargs)
        if kwargs.pop("ignore_config", False):
            return self
        context = kwargs.pop("config_context", None)
        given = {"interface": self.interface, "channel": self.channel}
        try:
            found = load_config(
                config=kwargs | {name: value for name, value in given.items() if value is not None}, context=context
            )
        except Exception:  # python-can raises whatever it likes; opening says what is wrong
            return self
        interface, channel, bitrate = found.get("interface"), found.get("channel"), found.get("bitrate")
        data_bitrate = found.get("data_bitrate")
        return replace(
            self,
            interface=None if interface is None else str(interface),
            channel=None if channel is None else str(channel),
            bitrate=bitrate if self.bitrate is None and isinstance(bitrate, int) else self.bitrate,
            data_bitrate=data_bitrate
            if self.data_bitrate is None and isinstance(data_bitrate, int)
            else self.data_bitrate,
        )

    def _timing(self) -> can.BitTiming | can.BitTimingFd | None:
        if not self.timing:
            return None
        import can

        try:
            values = {key: int(str(value), 0) for key, value in (_pair(text, "--timing") for text in self.timing)}
            # By their names, as python-can's own tools do it.
            fd = any(key.startswith(("nom_", "data_")) for key in values)
            make: Callable[..., can.BitTiming | can.BitTimingFd] = can.BitTimingFd if fd else can.BitTiming
            return make(**values, strict=False)
        except (TypeError, ValueError) as error:
            raise UsageError("--timing makes no sense", why=str(error)) from error

    def bit_timing(self) -> BitTiming:
        """Bit rates as given, configured, or set on the SocketCAN interface; else the station's defaults."""
        from ess_can.can.timing import BitTiming

        bitrate, data_bitrate = self._known_bitrates()
        return BitTiming(bitrate or DEFAULT_BITRATE, (data_bitrate or DEFAULT_DATA_BITRATE) if self.fd else None)

    def bit_timing_for(self, limit: LoadLimit) -> BitTiming | None:
        """Bit rates for a cap on the bus load, which needs the real ones: None if they are not known.

        Raises UsageError for a cap that yields to traffic which the options filter out.
        """
        from ess_can.can.timing import BitTiming

        if limit.yields and self.filters:
            raise UsageError(
                "--yield-to-traffic and --filter contradict each other",
                why="traffic that is not heard is not yielded to",
            )
        bitrate, data_bitrate = self._known_bitrates()
        if not bitrate or (self.fd and not data_bitrate):
            return None
        return BitTiming(bitrate, data_bitrate if self.fd else None)

    def _known_bitrates(self) -> tuple[int | None, int | None]:
        """The nominal bit rate and that of the data phase, as far as anything tells them."""
        from ess_can.bus.link_facts import read_link

        timing = self._timing()
        if timing is not None:
            nominal = getattr(timing, "nom_bitrate", None) or getattr(timing, "bitrate", None)
            return nominal, getattr(timing, "data_bitrate", None)
        where = self.resolved()
        link = read_link(where.channel) if where.interface == "socketcan" and where.channel else None
        return where.bitrate or (link and link.bitrate) or None, where.data_bitrate or (
            link and link.data_bitrate
        ) or None

    def isotp(self) -> IsoTpParams:
        """ISO-TP over this kind of bus."""
        from ess_can.isotp import IsoTpParams

        return IsoTpParams(tx_dl=64, fd=True, brs=True) if self.fd else IsoTpParams()

    def transport(self, isotp: str, *, paced: bool = False) -> IsoTpTransport:
        """Who speaks ISO-TP on this bus: ``auto``, ``kernel`` or ``user``; auto is ours if frames are to be `paced`.

        Raises InterfaceUnavailable.
        """
        from ess_can.bus.kernel_isotp import IsoTpChoice, UserIsoTp, choose_isotp

        choice, where = IsoTpChoice(isotp), self.resolved()
        if paced and choice is IsoTpChoice.AUTO:
            return UserIsoTp()
        return choose_isotp(choice, where.interface, where.channel)

    @property
    def named(self) -> bool:
        """Whether anything says which bus is meant."""
        return bool(self.interface or self.channel or self.timing or self.filters or self.bus_kwargs)


def _pair(text: str, flag: str) -> tuple[str, str | int | float | bool]:
    from can.util import cast_from_string

    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"{flag} {text!r} is not key=value")
    return key, cast_from_string(value)


def _filter(text: str) -> tuple[int, int]:
    """``ID:MASK`` in hexadecimal, as python-can's tools take it."""
    can_id, separator, mask = text.partition(":")
    try:
        if separator:
            return int(can_id, 16), int(mask, 16)
    except ValueError:
        pass
    raise UsageError(
        f"--filter {text!r} is not ID:MASK in hexadecimal",
        why="of python-can's two forms, ID~MASK lets everything pass in its version 4.6" if "~" in text else "",
    )


isotp_option = click.option(
    "--isotp",
    type=click.Choice(["auto", "kernel", "user"]),
    default="auto",
    show_default=True,
    help="Who speaks ISO-TP: Linux (SocketCAN only) or ess-can; auto takes Linux where it can, "
    "and ess-can where the bus load is to be kept.",
)


def bus_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add python-can's bus flags to a command, which gets them as one argument `bus`."""

    @functools.wraps(command)
    def with_bus(
        *,
        interface: str | None,
        channel: str | None,
        bitrate: int | None,
        fd: bool,
        data_bitrate: int | None,
        timing: tuple[str, ...],
        filters: tuple[str, ...],
        bus_kwargs: tuple[str, ...],
        trace: Path | None,
        **others: Any,
    ) -> R:
        bus = BusOptions(interface, channel, bitrate, fd, data_bitrate, timing, filters, bus_kwargs, trace)
        return command(bus=bus, **others)

    wrapped: Callable[..., R] = with_bus
    for option in reversed(
        (
            click.option(
                "-i", "--interface", help="python-can interface, such as socketcan, pcan, slcan, udp_multicast."
            ),
            click.option("-c", "--channel", help="Channel of the interface, such as can0."),
            click.option(
                "-b",
                "--bitrate",
                type=click.IntRange(min=1),
                help="Nominal bit rate in bit/s; 500000 unless given here or in python-can's configuration.",
            ),
            click.option("--fd", is_flag=True, help="CAN FD frames."),
            click.option("--data-bitrate", type=click.IntRange(min=1), help="CAN FD data bit rate in bit/s."),
            click.option(
                "--timing",
                multiple=True,
                metavar="KEY=VALUE...",
                help="Bit timing, such as f_clock=80000000 brp=10 ...",
            ),
            click.option(
                "--filter",
                "filters",
                multiple=True,
                metavar="ID:MASK...",
                help="Receive only these identifiers, in hexadecimal; beware of hiding the plant.",
            ),
            click.option("--bus-kwargs", multiple=True, metavar="KEY=VALUE...", help="Passed to python-can's backend."),
            click.option("--trace", type=click.Path(path_type=Path), help="Write all frames to this file (.blf)."),
        )
    ):
        wrapped = option(wrapped)
    return wrapped
