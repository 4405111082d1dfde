"""Lists of values behind one option, as python-can's tools take them: every form that `can_logger --help` shows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import can.cli
import click
import pytest

from ess_can.cli.arguments import repeat_options
from ess_can.cli.bus_options import BusOptions, bus_options
from tests.unit.cli.run import document, run

CLASSIC = "f_clock=8_000_000 tseg1=5 tseg2=2 sjw=2 brp=2 nof_samples=1"
FD = (
    "f_clock=80_000_000 nom_tseg1=119 nom_tseg2=40 nom_sjw=40 nom_brp=1 "
    "data_tseg1=29 data_tseg2=10 data_sjw=10 data_brp=1"
)
DOCUMENTED = [
    f"--timing {CLASSIC}",
    f"--timing {FD}",
    "--filter 100:7FC 200:7F0",
    "-i vector -c 1 --bus-kwargs app_name=MyCanApp serial=1234",
    "--channel can0 --interface socketcan --bitrate 250000 --fd --data-bitrate 2000000",
    "-c can0 -i socketcan -b 250000",
    f"-i pcan --timing {CLASSIC} --filter 100:7FC 200:7F0 --bus-kwargs a=1 b=x -c PCAN_USBBUS1",
]


def ours(arguments: Sequence[str]) -> BusOptions:
    """What our options make of a command line."""
    seen: list[BusOptions] = []

    @click.command()
    @bus_options
    @click.argument("rest", nargs=-1)
    def command(bus: BusOptions, rest: tuple[str, ...]) -> None:
        seen.append(bus)
        assert rest == ()

    command.main(repeat_options(arguments), standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize("line", DOCUMENTED)
def test_every_documented_form_is_understood_as_python_can_does(line: str) -> None:
    parser = argparse.ArgumentParser()
    can.cli.add_bus_arguments(parser, filter_arg=True)
    theirs = vars(parser.parse_args(line.split()))
    bus = ours(line.split())
    assert bus.interface == theirs.get("interface")
    assert bus.channel == theirs.get("channel")
    assert bus.bitrate == theirs.get("bitrate")
    assert bus.fd == theirs.get("fd", False)
    assert bus.data_bitrate == theirs.get("data_bitrate")
    assert dict(pair.split("=") for pair in bus.bus_kwargs) == {
        key: str(value) for key, value in theirs.get("bus_kwargs", {}).items()
    }
    filters = [tuple(int(part, 16) for part in text.split(":")) for text in bus.filters]
    assert filters == [(each["can_id"], each["can_mask"]) for each in theirs.get("can_filters", [])]
    timing = theirs.get("timing")
    given = {key: int(value) for key, value in (pair.split("=") for pair in bus.timing)}
    assert given == ({} if timing is None else {key: timing[key] for key in given})
    assert bool(given) == (timing is not None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""),
        ("--timing a=1", "--timing a=1"),
        ("--timing a=1 --timing b=2", "--timing a=1 --timing b=2"),
        ("--timing a=1 b=2 c=3", "--timing a=1 --timing b=2 --timing c=3"),
        ("--timing a=1 b=2 -i pcan c=3", "--timing a=1 --timing b=2 -i pcan c=3"),
        (
            "upgrade --bus-kwargs port=1 group=2 file.essup",
            "upgrade --bus-kwargs port=1 --bus-kwargs group=2 file.essup",
        ),
        ("upgrade --bus-kwargs port=1 ./a=b.essup", "upgrade --bus-kwargs port=1 ./a=b.essup"),
        ("--filter 100:7FC 200~7F0 0x1:0x7ff", "--filter 100:7FC --filter 200~7F0 --filter 0x1:0x7ff"),
        ("--filter 100:7FC C:7 file", "--filter 100:7FC --filter C:7 file"),
        ("--filter 100:7FC --timing a=1 b= --filter 1:2", "--filter 100:7FC --timing a=1 --timing b= --filter 1:2"),
        ("--timing=a=1 b=2", "--timing=a=1 b=2"),
        ("--timing", "--timing"),
        ("--timing nonsense a=1", "--timing nonsense --timing a=1"),
        ("--timing -- --filter 1:2 3:4", "--timing -- --filter 1:2 --filter 3:4"),
        ("--timing a=1 -- b=2 --filter 1:2 3:4", "--timing a=1 -- b=2 --filter 1:2 3:4"),
    ],
)
def test_only_further_values_are_touched(given: str, expected: str) -> None:
    assert repeat_options(given.split()) == expected.split()


def test_a_value_may_contain_what_it_likes_but_not_be_split() -> None:
    assert repeat_options(["--bus-kwargs", "a=1", "b=2 3"]) == ["--bus-kwargs", "a=1", "b=2 3"]
    assert repeat_options(["--bus-kwargs", "a=x=y", "b=/dev/tty=0"])[2] == "--bus-kwargs"


def test_the_command_takes_lists_too() -> None:
    result = run(
        *("status", "--racks", "1", "-i", "virtual", "--bus-kwargs", "preserve_timestamps=True", "rx_queue_size=10"),
        *("-c", "lists", "--filter", "100:7FC", "200:7F0", "--json"),
    )
    assert document(result)["error"]["name"] == "BUS_SILENT"
