"""What each mechanism contributes: the same transfer with one of them taken away, in simulated time.

Only parameters of public constructors are changed.  Run it as `python -m benchmarks.mechanisms`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from benchmarks import flash_parts, wire_efficiency
from benchmarks.station import BMU1, BusKind, bus_kind, codec
from benchmarks.wire_efficiency import How
from ess_can.resources import dbc_path
from ess_can.signals.dbc import StationCodec
from ess_can.sim.parts import STM32F103XG, STM32G474, STM32H743, FlashPart

UNLUCKY_REQUEST, UNLUCKY_RESPONSE = 0x7E0, 0x7E8
"""The identifiers that diagnostics has by habit: they cost stuff bits in every frame."""
_USB_S = 0.25e-3  # how late an adapter may say that a frame was sent


@dataclass(frozen=True, slots=True)
class Contribution:
    """The efficiency on one bus with everything, and without one mechanism."""

    mechanism: str
    without: str
    bus: str
    efficiency: float
    efficiency_without: float


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


def measure(kib: int) -> list[Contribution]:
    """Every mechanism that matters on a bus, there."""
    classic, fd = bus_kind("500k"), bus_kind("FD 1M/8M")
    late = How(confirmed_after_s=_USB_S)
    found = []
    for kind in (classic, fd):
        found += [
            _contribution("large blocks", "blocks of 4,093 bytes (12-bit lengths)", kind, kib, How(block=4093)),
            _contribution("large blocks", "blocks of 256 bytes", kind, kib, How(block=256)),
            _contribution("no further flow control", "one each 8 frames", kind, kib, How(frames_per_flow_control=8)),
            _contribution(
                "two frames in the bus's queue, confirmed 0.25 ms late",
                "one frame",
                kind,
                kib,
                How(in_flight=1, confirmed_after_s=_USB_S),
                late,
            ),
        ]
    for part in (STM32H743, STM32F103XG):
        one_block = replace(part, buffer_bytes=part.block_bytes + part.geometry.unit_size)
        found.append(_on_part("a buffer beyond the block", "one block", kib, part, one_block))
    page = STM32G474
    found.append(_on_part("blocks as large as the buffer allows", "2 KiB", kib, page, replace(page, block_bytes=2048)))
    found.append(
        _contribution("identifiers without stuff bits", "0x7E0 and 0x7E8", classic, kib, How(dbc=unlucky_dbc()))
    )
    return found


_EVERYTHING = How()


def _contribution(
    mechanism: str, without: str, kind: BusKind, kib: int, how: How, all_on: How = _EVERYTHING
) -> Contribution:
    on, off = (wire_efficiency.measure(kind, 0, kib, each).efficiency for each in (all_on, how))
    return Contribution(mechanism, without, kind.name, on, off)


def _on_part(mechanism: str, without: str, kib: int, part: FlashPart, changed: FlashPart) -> Contribution:
    """By the node's part: the limit is the longer of wire time and flash time."""
    timing = flash_parts.CLASSIC_500K
    on, off = (1 / flash_parts.measure(each, timing, kib * 1024).ratio for each in (part, changed))
    return Contribution(f"{mechanism}, {part.name}", without, "500k", on, off)


def markdown(contributions: list[Contribution]) -> str:
    """A table for a document."""
    lines = ["| mechanism | switched off | bus | with | without |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {c.mechanism} | {c.without} | {c.bus} | {c.efficiency:.3f} | {c.efficiency_without:.3f} |"
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
