"""What each mechanism contributes: the same transfer with one of them taken away, in simulated time.

Only parameters of public constructors are changed.  Run it as `python -m benchmarks.mechanisms`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from benchmarks import eight_nodes, flash_parts, wire_efficiency
from benchmarks.station import BMU1, BusKind, bus_kind, codec
from benchmarks.wire_efficiency import How
from ess_can.cli.embedded import plant_spec
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.resources import dbc_path
from ess_can.signals.dbc import StationCodec
from ess_can.sim.parts import STM32F103XG, STM32F429, STM32G474, STM32H743, FlashPart

UNLUCKY_REQUEST, UNLUCKY_RESPONSE = 0x7E0, 0x7E8
"""The identifiers that diagnostics has by habit: they cost stuff bits in every frame."""
_USB_S = 0.25e-3  # how late an adapter may say that a frame was sent
_TURN_AROUND_S = 0.5e-3  # what a node and a gateway may take to answer
_BLOCKS = ((16 * 1024, "16 KiB"), (4093, "4,093 bytes, the most of 12-bit lengths"), (256, "256 bytes"))
_KIB_OF_MANY = 64  # an image for each of several nodes
_NO_TIME_S = 1e-9


@dataclass(frozen=True, slots=True)
class Contribution:
    """The efficiency on one bus with everything, and without one mechanism.

    Of a wire alone it is wire efficiency; with a real part the longer of the least wire time and flash time, over the
    time that it took; with several nodes the sum of their least wire times.  `calculated` says that what is without
    the mechanism was not measured as a whole.
    """

    mechanism: str
    without: str
    bus: str
    efficiency: float
    efficiency_without: float
    calculated: bool = False


@cache
def unlucky_dbc() -> StationCodec:
    """Our DBC, the first BMU's diagnostic identifiers replaced."""
    text = dbc_path().read_text("utf-8")
    for own, other in zip(codec().diagnostic_ids(BMU1), (UNLUCKY_REQUEST, UNLUCKY_RESPONSE), strict=True):
        text = text.replace(f" {own} ", f" {other} ")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unlucky.dbc"
        path.write_text(text, "utf-8")
        return StationCodec.load(path)


def measure(kib: int, nodes: int = 8) -> list[Contribution]:
    """Every mechanism that matters on a bus, there, with images of `kib` KiB; the last ones with so many nodes."""
    return [*_of_the_wire(kib), *_of_the_flash(kib), *_of_many_nodes(nodes)]


def _of_the_wire(kib: int) -> Iterator[Contribution]:
    def found(mechanism: str, without: str, kind: BusKind, how: How, usual: float) -> Contribution:
        return Contribution(mechanism, without, kind.name, usual, efficiency(kind, how))

    def efficiency(kind: BusKind, how: How) -> float:
        return wire_efficiency.measure(kind, 0, kib, how).efficiency

    classic, fd = bus_kind("500k"), bus_kind("FD 1M/8M")
    for kind in (classic, fd):
        usual = efficiency(kind, How())
        for block, name in _BLOCKS:
            yield found("blocks of 64 KiB", name, kind, How(block=block), usual)
        slow = efficiency(kind, How(turn_around_s=_TURN_AROUND_S))
        for block, name in _BLOCKS:
            how = How(block=block, turn_around_s=_TURN_AROUND_S)
            yield found("blocks of 64 KiB, turn-arounds of 0.5 ms", name, kind, how, slow)
        yield found("no further flow control", "one each 8 frames", kind, How(frames_per_flow_control=8), usual)
        late = efficiency(kind, How(confirmed_after_s=_USB_S))
        how = How(in_flight=1, confirmed_after_s=_USB_S)
        yield found("two frames in the bus's queue, confirmed 0.25 ms late", "one frame", kind, how, late)
    usual = efficiency(classic, How())
    yield found("identifiers without stuff bits", "0x7E0 and 0x7E8", classic, How(dbc=unlucky_dbc()), usual)


def _of_the_flash(kib: int) -> Iterator[Contribution]:
    """On a classic bus."""
    size, timing = kib * 1024, flash_parts.CLASSIC_500K

    def found(mechanism: str, without: str, part: FlashPart, changed: FlashPart) -> Contribution:
        on, off = (1 / flash_parts.measure(each, timing, size).ratio for each in (part, changed))
        return Contribution(f"{mechanism}, {part.name}", without, "500k", on, off)

    for part in (STM32H743, STM32F103XG):
        one_block = replace(part, buffer_bytes=part.block_bytes + part.geometry.unit_size)
        yield found("a buffer beyond the block", "one block", part, one_block)
    page = STM32G474
    yield found("blocks as large as the buffer allows", "2 KiB", page, replace(page, block_bytes=2048))
    for part in (STM32H743, STM32F429, STM32G474):
        # The node has no way to erase all at once any more: its erase time is put before a transfer that has none.
        on = flash_parts.measure(part, timing, size)
        blank = replace(part, timing=replace(part.timing, sector_erase_s=_NO_TIME_S))
        off_s = flash_parts.erase_time_s(part, size) + flash_parts.measure(blank, timing, size).elapsed_s
        limit_s = max(on.wire_s, on.flash_s)
        name = f"erasing ahead of the data, {part.name}"
        yield Contribution(name, "all before it", "500k", 1 / on.ratio, limit_s / off_s, calculated=True)


def _of_many_nodes(nodes: int) -> Iterator[Contribution]:
    for part in (STM32H743, STM32F103XG):
        spec = replace(plant_spec(None, True, None, nodes, 1), flash=part)
        one_by_one = GatewayConfig(spec.addresses, bus=BusLimits(nodes_at_once=1))
        on, off = (1 / eight_nodes.measure(spec, _KIB_OF_MANY, config).ratio for config in (None, one_by_one))
        yield Contribution(f"{nodes} nodes at the same time, {part.name}", "one by one", "FD 500k/2M", on, off)


def markdown(contributions: list[Contribution]) -> str:
    """A table for a document."""
    lines = ["| mechanism | instead | bus | with | without |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {c.mechanism} | {c.without} | {c.bus} | {c.efficiency:.3f} | "
        f"{c.efficiency_without:.3f}{' (calculated)' if c.calculated else ''} |"
        for c in contributions
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kib", type=int, default=512, help="size of the image (default %(default)s)")
    sys.stdout.write(markdown(measure(parser.parse_args().kib)) + "\n")


if __name__ == "__main__":
    main()
