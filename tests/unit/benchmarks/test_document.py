"""What a run writes down: JSON, and its parts of the document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.demo_overhead import Overhead
from benchmarks.document import write_document
from benchmarks.figures import Better, Figure, plain
from benchmarks.machine import Machine
from benchmarks.mechanisms import Contribution, markdown
from benchmarks.plant_timeline import Part
from benchmarks.safety_latency import Delays, Latency
from benchmarks.themes import THEMES
from ess_can.gateway.phases import Phase

DOCS = Path(__file__).parents[3] / "docs"
NAMES = ("simulated time", "this machine", "mechanisms")
EXACT = Figure("W1", "efficiency", "500k", 0.99, 0.98, Better.HIGH)
INEXACT = Figure("W9", "times less CPU", "classic", 9.0, 8.0, Better.HIGH)
MACHINE = Machine(
    "Linux", "some processor", 2, 0.1, "3.11", "4", dict.fromkeys(("can-isotp", "udsoncan", "python-can"), "1"), None
)
BLOCKS = Contribution("large blocks", "small ones", "500k", 0.99, 0.9)


def test_a_measurement_becomes_json_with_what_it_works_out_itself() -> None:
    latency = Latency("x", "500k", 0.25, Delays("a", (1.0, 0.5), (1.25,)), Delays("b", (1.0,), (1.5,)))
    found = json.loads(json.dumps(plain(latency)))
    assert (found["kind"], found["queue_frames"], found["hv_status"]["added_s"]) == ("Latency", 2.0, 0.25)
    overhead = Overhead(2, 10.0, {Part.WIRE: 9.0}, 0.5, 0.25, 0.25, ((Phase.PROGRAM, 0.25),))
    found = json.loads(json.dumps(plain(overhead)))
    assert (found["parts"], found["idle"]) == ({"wire": 9.0}, [["program", 0.25]])
    assert found["share"] == pytest.approx(0.1)


def test_a_document_gets_new_tables_and_plots_and_keeps_the_rest(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    places = [f"<!-- measured: {name} -->\nold\n<!-- end of what was measured -->\n" for name in NAMES]
    document.write_text("before\n" + "between\n".join(places) + "after\n", "utf-8")
    plots = [tmp_path / "run" / f"plot.{kind}" for kind in ("png", "svg")]
    plots[0].parent.mkdir()
    for plot in plots:
        plot.write_text("a plot", "utf-8")
    for _ in range(2):  # another time the same
        write_document(MACHINE, [EXACT], [INEXACT], [BLOCKS], plots, tmp_path)
    text = document.read_text("utf-8")
    assert "old" not in text
    assert (text.count("| W1 |"), text.count("| W9 |"), text.count("| large blocks |")) == (1, 1, 1)
    simulated, machine = text.index("| W1 |"), text.index("| W9 |")
    assert simulated < text.index("some processor") < machine
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["performance.md", "plot.svg", "run"]


def test_a_document_without_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match="simulated time"):
        write_document(MACHINE, [], [], [], [], tmp_path)


def test_the_document_has_every_place_and_every_plot() -> None:
    text = (DOCS / "performance.md").read_text("utf-8")
    assert [text.count(f"<!-- measured: {name} -->") for name in NAMES] == [1, 1, 1]
    for plot in ("performance-efficiency.svg", "performance-latency.svg"):
        assert f"({plot})" in text
        assert (DOCS / plot).is_file()


def test_what_was_not_measured_as_a_whole_says_so() -> None:
    measured, calculated = (Contribution("m", "w", "500k", 0.9, 0.5, calculated) for calculated in (False, True))
    assert [line.count("calculated") for line in markdown([measured, calculated]).splitlines()[2:]] == [0, 1]


def test_only_what_does_not_depend_on_the_machine_is_called_exact() -> None:
    inexact = {theme.name for theme in THEMES if not theme.exact}
    assert inexact == {
        "memory",
        "CPU of ISO-TP",
        "speed of the simulator",
        "CPU of a small upgrade",
        "start of the command",
    }
    assert len({theme.name for theme in THEMES}) == len(THEMES)
