from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import can
import click
import pytest
from click.testing import CliRunner

from ess_can.bus.adapter import PythonCanBus
from ess_can.bus.kernel_isotp import UserIsoTp
from ess_can.bus.load_limit import LoadLimit
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.cli.bus_options import BusOptions, bus_options
from ess_can.errors import AdapterLost, InterfaceUnavailable, UsageError


def options(
    interface: str | None = "virtual",
    *,
    bitrate: int | None = None,
    fd: bool = False,
    data_bitrate: int | None = None,
    timing: tuple[str, ...] = (),
    filters: tuple[str, ...] = (),
    bus_kwargs: tuple[str, ...] = (),
) -> BusOptions:
    return BusOptions(interface, "test_bus_options", bitrate, fd, data_bitrate, timing, filters, bus_kwargs)


def test_bit_timing_and_isotp_follow_the_options() -> None:
    assert options().bit_timing() == BitTiming(500_000)
    assert options(bitrate=250_000, data_bitrate=4_000_000).bit_timing() == BitTiming(250_000)
    assert options(fd=True).bit_timing() == BitTiming(500_000, 2_000_000)
    assert options(fd=True, data_bitrate=5_000_000).bit_timing() == BitTiming(500_000, 5_000_000)
    assert (options().isotp().tx_dl, options().isotp().fd) == (8, False)
    assert (options(fd=True).isotp().tx_dl, options(fd=True).isotp().brs) == (64, True)


def test_bit_rates_from_the_timing() -> None:
    classic = ("f_clock=8000000", "brp=2", "tseg1=11", "tseg2=4", "sjw=2", "nof_samples=1")
    assert options(timing=classic, bitrate=125_000).bit_timing() == BitTiming(250_000)
    nominal = ("f_clock=80000000", "nom_brp=1", "nom_tseg1=63", "nom_tseg2=16", "nom_sjw=16")
    data = ("data_brp=1", "data_tseg1=15", "data_tseg2=4", "data_sjw=4")
    assert options(timing=nominal + data, fd=True).bit_timing_for(LoadLimit(0.4)) == BitTiming(1_000_000, 4_000_000)


def test_for_a_cap_on_the_bus_load_only_bit_rates_that_are_known_count() -> None:
    cap = LoadLimit(0.4)
    assert options(bitrate=250_000).bit_timing_for(cap) == BitTiming(250_000)
    assert options(bitrate=250_000, fd=True, data_bitrate=1_000_000).bit_timing_for(cap) == BitTiming(
        250_000, 1_000_000
    )
    for unknown in (options(), options(fd=True), options(bitrate=250_000, fd=True)):
        assert unknown.bit_timing_for(cap) is None
    seeing = options(bitrate=250_000, filters=("100:7FF",))
    assert seeing.bit_timing_for(cap) == BitTiming(250_000)
    with pytest.raises(UsageError, match="--filter"):
        seeing.bit_timing_for(LoadLimit(0.4, yields=True))


def test_only_our_own_isotp_is_paced() -> None:
    assert options().transport("auto", paced=True) == options().transport("user", paced=True) == UserIsoTp()
    with pytest.raises(InterfaceUnavailable):  # whoever insists is refused with the cap, or already because he cannot
        options().transport("kernel", paced=True)


def test_everything_goes_to_python_can(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def make_bus(channel: object, interface: object, **more: object) -> object:
        given.update(more, channel=channel, interface=interface)
        raise OSError("enough")

    monkeypatch.setattr(can, "Bus", make_bus)
    with pytest.raises(InterfaceUnavailable, match="enough"):
        options(
            bitrate=125_000,
            filters=("100:7FC", "200:7f0"),
            bus_kwargs=("a=16", "b=1.5", "c=true", "d=text=more", "e=-1"),
        ).open()
    assert given == {
        "channel": "test_bus_options",
        "interface": "virtual",
        "bitrate": 125_000,
        "can_filters": [{"can_id": 0x100, "can_mask": 0x7FC}, {"can_id": 0x200, "can_mask": 0x7F0}],
        "a": 16,
        "b": 1.5,
        "c": True,
        "d": "text=more",
        "e": -1,
    }


def test_timing_becomes_python_cans_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def make_bus(_channel: object, _interface: object, *, timing: object, **_: object) -> object:
        given.append(timing)
        raise OSError("enough")

    monkeypatch.setattr(can, "Bus", make_bus)
    classic = ("f_clock=8000000", "brp=1", "tseg1=11", "tseg2=4", "sjw=2", "nof_samples=1")
    with pytest.raises(InterfaceUnavailable):
        options(timing=classic).open()
    assert given == [can.BitTiming(f_clock=8_000_000, brp=1, tseg1=11, tseg2=4, sjw=2, nof_samples=1)]


@pytest.mark.parametrize("timing", [("a=1",), ("f_clock=fast",), ("f_clock",), ("f_clock=8000000",)])
def test_timing_that_makes_no_sense(timing: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--timing"):
        options(timing=timing).open()


@pytest.mark.parametrize("text", ["alone", "=value", ""])
def test_bus_kwargs_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--bus-kwargs"):
        options(bus_kwargs=(text,)).open()


@pytest.mark.parametrize("text", ["100", "100:", ":7FF", "xyz:7FF", "100~7FF"])
def test_filters_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--filter"):
        options(filters=(text,)).open()


def test_a_command_gets_one_argument_for_the_bus(tmp_path: Path) -> None:
    seen: list[BusOptions] = []

    @click.command()
    @bus_options
    @click.option("--more", type=int)
    def command(bus: BusOptions, more: int) -> None:
        seen.append(bus)
        assert more == 3

    arguments = "-i virtual -c here -b 250000 --fd --data-bitrate 1000000 --timing brp=1 --timing sjw=2 --filter 1:7FF"
    trace = tmp_path / "run.blf"
    CliRunner().invoke(
        command,
        [*arguments.split(), "--bus-kwargs", "a=1", "--trace", str(trace), "--more", "3"],
        catch_exceptions=False,
    )
    (bus,) = seen
    assert bus == BusOptions(
        "virtual", "here", 250_000, True, 1_000_000, ("brp=1", "sjw=2"), ("1:7FF",), ("a=1",), trace
    )
    assert bus.named
    assert not BusOptions(bitrate=125_000, fd=True).named


def test_a_bus_is_opened_and_closed() -> None:
    async def run() -> None:
        async with options().opened() as bus:
            bus.send(CanFrame(0x123, b""))
        with pytest.raises(AdapterLost):
            bus.send(CanFrame(0x123, b""))

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError("a defect"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_bus_is_closed_whatever_ends_its_use(error: BaseException, tmp_path: Path) -> None:
    trace = tmp_path / "run.log"

    async def run() -> None:
        with pytest.raises(type(error)) as caught:
            async with replace(options(), trace=trace).opened() as bus:
                raise error
        assert caught.value is error
        with pytest.raises(AdapterLost):
            bus.send(CanFrame(0x123, b""))

    asyncio.run(run())
    assert trace.exists()


def test_a_bus_that_does_not_start_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[PythonCanBus] = []
    close = PythonCanBus.close

    def fails(_self: PythonCanBus) -> None:
        raise InterfaceUnavailable("it does not start")

    def closes(self: PythonCanBus) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(PythonCanBus, "start", fails)
    monkeypatch.setattr(PythonCanBus, "close", closes)

    async def run() -> None:
        with pytest.raises(InterfaceUnavailable):
            async with options().opened():
                raise AssertionError

    asyncio.run(run())
    assert len(closed) == 1


def test_a_bus_is_opened() -> None:
    bus = options().open()
    assert bus.fd is False
    bus.close()
