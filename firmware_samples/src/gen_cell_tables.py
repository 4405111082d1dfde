"""Write the BMU's cell data as C: one characterisation record for each of the rack's 240 cells.

Usage: gen_cell_tables.py CHARACTERISATION OUTPUT   (CHARACTERISATION is 1 or 2)

A record stands for what an end-of-line tester measures on a lithium iron phosphate cell of 280 Ah: open-circuit
voltage over state of charge and temperature, internal resistance over both for either direction of current, capacity,
and the corrections of its measuring channel.  The values are made up (a nominal cell, the scatter of production, the
noise of the tester) but of the right size and shape.  Characterisation 2 has more anchors on the flat part of the
voltage curve.

Integers only: the output is the same on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

CELLS = 240
OCV_TEMPERATURES = (-10, 0, 10, 25, 45)  # degC
OCV_POINTS = 51  # 0, 2, ... 100 %
R_TEMPERATURES = (-20, -10, 0, 10, 25, 35, 45)  # degC
R_POINTS = 21  # 0, 5, ... 100 %

Curve = tuple[tuple[int, int], ...]

# Open-circuit voltage at 25 degC, uV, over state of charge in units of 0.1 %.
OCV_ANCHORS: dict[int, Curve] = {
    1: (
        (0, 2_600_000),
        (20, 2_930_000),
        (50, 3_090_000),
        (100, 3_200_000),
        (200, 3_250_000),
        (400, 3_288_000),
        (600, 3_302_000),
        (800, 3_332_000),
        (950, 3_340_000),
        (980, 3_362_000),
        (1000, 3_500_000),
    ),
    2: (
        (0, 2_600_000),
        (10, 2_796_000),
        (20, 2_921_000),
        (35, 3_031_000),
        (50, 3_104_000),
        (75, 3_178_000),
        (100, 3_203_000),
        (150, 3_221_000),
        (200, 3_248_000),
        (250, 3_267_000),
        (300, 3_284_000),
        (350, 3_289_000),
        (400, 3_290_500),
        (500, 3_292_000),
        (560, 3_294_500),
        (600, 3_306_000),
        (640, 3_327_000),
        (700, 3_331_000),
        (800, 3_332_500),
        (900, 3_333_500),
        (950, 3_335_500),
        (980, 3_352_000),
        (990, 3_388_000),
        (1000, 3_500_000),
    ),
}

# Entropic coefficient, uV/K, over state of charge in units of 0.1 %.
ENTROPIC: Curve = ((0, -380), (100, -120), (300, 90), (450, 20), (600, -70), (750, -20), (1000, 60))

# Resistance at 25 degC in uOhm over state of charge, and its factor in 1/1000 over temperature.
RESISTANCE: Curve = ((0, 740), (50, 430), (100, 330), (200, 262), (500, 232), (800, 241), (950, 268), (1000, 330))
RESISTANCE_FACTOR: Curve = ((-20, 5_900), (-10, 3_750), (0, 2_420), (10, 1_590), (25, 1_000), (35, 790), (45, 650))
CHARGE_FACTOR: Curve = ((-20, 1_310), (0, 1_120), (25, 1_030), (45, 1_010))


class Scatter:
    """A linear congruential generator (Knuth's MMIX constants): the scatter of production and measurement."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, limit: int) -> int:
        """Uniform in 0 .. limit - 1."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self._state >> 32) * limit >> 32

    def spread(self, width: int) -> int:
        """Bell-shaped (sum of four) in -width .. width."""
        return sum(self.below(2 * width + 1) - width for _ in range(4)) // 4


def on(curve: Curve, x: int) -> int:
    """Linear interpolation, held at both ends."""
    if x <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) // (x1 - x0)
    return curve[-1][1]


def rows(values: list[int], indent: str) -> Iterator[str]:
    """Values as C lines of 17 numbers at most."""
    for start in range(0, len(values), 17):
        yield indent + " ".join(f"{value}," for value in values[start : start + 17])


def cell(index: int, characterisation: int) -> Iterator[str]:
    """The C initialiser of one cell's record."""
    scatter = Scatter(0x1FE0_0280 + index)
    capacity_mah = 280_000 + 1_500 + scatter.spread(4_500)
    resistance_permille = 1_000 + scatter.spread(90)
    voltage_uv = scatter.spread(1_800)
    shift = scatter.spread(9)  # of the curve along the state of charge, 0.1 %
    yield "    {"
    yield f"        .capacity_10mah = {capacity_mah // 10}, .gain_ppm = {scatter.spread(900)},"
    yield f"        .offset_10uv = {scatter.spread(240)}, .tester_serial = {40_000 + scatter.below(20_000)},"
    yield "        .ocv_100uv = {"
    for temperature in OCV_TEMPERATURES:
        values = []
        for point in range(OCV_POINTS):
            soc = point * 1_000 // (OCV_POINTS - 1)
            microvolt = on(OCV_ANCHORS[characterisation], soc + shift) + voltage_uv
            microvolt += on(ENTROPIC, soc) * (temperature - 25) + scatter.spread(450)
            values.append(microvolt // 100)
        yield "            {"
        yield from rows(running_maximum(values), " " * 16)
        yield "            },"
    yield "        },"
    yield "        .resistance_uohm = {"
    for charging in (False, True):
        yield "            {"
        for temperature in R_TEMPERATURES:
            factor = on(RESISTANCE_FACTOR, temperature) * (on(CHARGE_FACTOR, temperature) if charging else 1_000)
            values = []
            for point in range(R_POINTS):
                nominal = on(RESISTANCE, point * 1_000 // (R_POINTS - 1))
                value = nominal * factor // 1_000_000 * resistance_permille // 1_000
                values.append(value * (1_000 + scatter.spread(25)) // 1_000)
            yield "                {"
            yield from rows(values, " " * 20)
            yield "                },"
        yield "            },"
    yield "        },"
    yield "    },"


def running_maximum(values: list[int]) -> list[int]:
    """The curve must not fall with state of charge, or it could not be inverted: noise on it is levelled."""
    return list(accumulate(values, max))


def main() -> None:
    """Write the table."""
    characterisation, output = int(sys.argv[1]), Path(sys.argv[2])
    lines = [
        "/* Generated by gen_cell_tables.py; not to be edited. */",
        '#include "cell_data.h"',
        "",
        f"const int8_t ocv_temperature_degc[OCV_TEMPERATURES] = {{{', '.join(map(str, OCV_TEMPERATURES))}}};",
        f"const int8_t r_temperature_degc[R_TEMPERATURES] = {{{', '.join(map(str, R_TEMPERATURES))}}};",
        "",
        "const struct cell_data cell_data[CELLS] = {",
    ]
    for index in range(CELLS):
        lines += cell(index, characterisation)
    output.write_text("\n".join([*lines, "};", ""]))


if __name__ == "__main__":
    main()
