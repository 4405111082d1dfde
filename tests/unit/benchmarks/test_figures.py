"""The benchmark's figures, tables and plots."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.figures import Better, Figure, markdown, number, table
from benchmarks.plots import draw
from benchmarks.safety_latency import Delays, Latency
from benchmarks.wire_efficiency import Transfer

HIGH = Figure("W1", "efficiency", "500k", 0.99, 0.98, Better.HIGH, peer=0.9, peer_name="them")
LOW = Figure("W7", "delay", "500k", 3.0, 2.0, Better.LOW, "frames", peer=6.0)


def test_whether_a_target_is_met() -> None:
    assert (HIGH.met, LOW.met) == (True, False)


def test_the_ratio_is_how_many_times_better_ours_is() -> None:
    assert HIGH.ratio == pytest.approx(1.1)
    assert LOW.ratio == pytest.approx(2.0)
    assert Figure("W1", "", "", 1.0, 1.0, Better.HIGH).ratio is None


def test_a_table_is_aligned_and_says_what_is_missed() -> None:
    header, first, second = table([HIGH, LOW]).splitlines()
    column = header.index("target")
    assert first[column:].startswith(">= 0.98")
    assert second[column:].startswith("<= 2 ")
    assert ("yes" in first, "NO" in second) == (True, True)
    assert (
        markdown([HIGH]).splitlines()[2].startswith("| W1 | efficiency | 500k | 0.9900 | >= 0.98 | yes | 0.9000 them |")
    )


@pytest.mark.parametrize(("value", "text"), [(0.99421, "0.9942"), (2.5, "2.500"), (20.37, "20.4"), (1234.5, "1,234")])
def test_numbers_have_as_many_digits_as_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_an_efficiency_takes_the_telemetry_off() -> None:
    assert Transfer("x", "500k", 8, 1, ideal_s=9.0, elapsed_s=12.0, other_traffic_s=2.0).efficiency == 0.9


def test_delays_are_told_in_times_of_the_longest_frame() -> None:
    latency = Latency("x", "500k", 0.25, Delays("a", (1.0, 0.5), (1.25, 0.1)), Delays("b", (1.0,), (1.5,)))
    assert (latency.arbitration_frames, latency.queue_frames) == (1.0, 2.0)


def test_plots_of_the_same_measurements_are_the_same_to_the_byte(tmp_path: Path) -> None:
    measurements = [
        Transfer("ess-can", "500k", 0, 1000, 1.0, 1.1, 0.0),
        Transfer("ess-can", "FD 1M/8M", 8, 1000, 1.0, 1.1, 0.05),
        Latency("ess-can", "500k", 1e-4, Delays("a", (1e-3, 2e-3), (2e-3,)), Delays("b", (1e-3,), (3e-3,))),
    ]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (draw(measurements, folder) for folder in folders)
    assert [path.name for path in one] == [
        "performance-efficiency.png",
        "performance-efficiency.svg",
        "performance-latency.png",
        "performance-latency.svg",
    ]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
