from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from ess_can.cli.report_text import ProgressPrinter, print_errors, print_report
from ess_can.errors import EssCanError, HeldOpen, Interrupted
from ess_can.gateway.estimate import Estimate, ExpectedPhase
from ess_can.gateway.phases import FINAL, NodeStep, Phase
from ess_can.gateway.progress import Estimated, Event, NodeStepEntered, Noted, PhaseEntered, Transferred
from ess_can.gateway.report import NodeRecord, PhaseRecord, Report
from ess_can.gateway.report_document import report_document
from ess_can.identity import NodeAddress, NodeType, Version
from tests.unit.cli.run import REPORT_KEYS

BMU1, BMU2 = NodeAddress(NodeType.BMU, 1), NodeAddress(NodeType.BMU, 2)
KIB = 1024
EVENTS: tuple[Event, ...] = (
    PhaseEntered(100.0, Phase.STATUS_CHECK),
    NodeStepEntered(100.5, BMU1, NodeStep.TRANSFER, "resumed at 4096"),
    Transferred(101.0, BMU1, 16 * KIB, 100 * KIB, 10_000.0),
    Transferred(102.0, BMU1, 60 * KIB, 100 * KIB, 10_000.0),
    Transferred(103.0, BMU1, 70 * KIB, 100 * KIB, 10_000.0),
    Transferred(104.0, BMU1, 100 * KIB, 100 * KIB, 10_000.0),
    Noted(104.0, "one [more] thing"),
    PhaseEntered(105.0, Phase.REFUSED, "because"),
)
ESTIMATE = Estimate(
    (
        ExpectedPhase(Phase.RAMP_DOWN, 1.0),
        ExpectedPhase(Phase.PROVE_HV_OFF, 2.5),
        ExpectedPhase(Phase.PROGRAM, 20.0),
        ExpectedPhase(Phase.CONFIRM, 3.0),
    ),
    18.0,
)
LINES = [
    "[    0.00 s] status check",
    "[    0.50 s]   bmu1: transfer (resumed at 4096)",
    "[    2.00 s]   bmu1:  60 % of 100 KiB (10.0 kB/s, ETA 4 s)",
    "[    4.00 s]   bmu1: 100 % of 100 KiB (10.0 kB/s, ETA 0 s)",
    "[    4.00 s]   note: one [more] thing",
    "[    5.00 s] refused (because)",
]


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressPrinter(silent=False) as progress:
        for event in EVENTS:
            progress(event)
    assert capsys.readouterr().out.splitlines() == LINES


def test_each_phase_says_how_long_it_is_to_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressPrinter(silent=False) as progress:
        progress(Estimated(100.0, ESTIMATE))
        progress(PhaseEntered(100.0, Phase.PROGRAM))
        progress(PhaseEntered(120.0, Phase.CONFIRM))
        progress(PhaseEntered(121.0, Phase.HOLD_OPEN, "because"))
        progress(PhaseEntered(121.0, Phase.DONE))
    assert capsys.readouterr().out.splitlines() == [
        "[    0.00 s] program (about 23 s left)",
        "[   20.00 s] confirm (about 3 s left)",
        "[   21.00 s] hold open (because)",
        "[   21.00 s] done",
    ]


def test_a_dry_run_says_what_to_expect(capsys: pytest.CaptureFixture[str]) -> None:
    checked = report(Phase.CHECKED)
    checked.expected = ESTIMATE
    print_report(checked, wall_time_s=1.0, trace_hash=None)
    shown = capsys.readouterr().out.splitlines()
    for line in ("transfer    18.0 s", "HV-off      25.5 s", "duration    27.5 s, with the check"):
        assert f"  expected {line}" in shown
    assert not any("assumed" in line for line in shown)
    checked.expected = replace(ESTIMATE, assumed=(BMU1,))
    print_report(checked, wall_time_s=1.0, trace_hash=None)
    shown = capsys.readouterr().out.splitlines()
    assert "  assumed              2 s to erase 128 KiB, 6.25 us to program a byte:" in shown
    assert any(line.strip() == "bmu1 did not say" for line in shown)
    checked.expected = None
    print_report(checked, wall_time_s=1.0, trace_hash=None)
    assert "  expected             unknown: the bit rate is not known" in capsys.readouterr().out.splitlines()


def test_what_was_expected_stands_beside_what_happened() -> None:
    told = report_document(report(Phase.DONE), wall_time_s=1.0, trace_hash=None)
    assert (told["expected_hv_off_s"], told["expected_duration_s"], told["expected_transfer_s"]) == (None, None, None)
    assert (told["hv_off_s"], told["bus_time_s"], told["transfer_s"]) == (30.0, 36.5, 10.0)
    done = report(Phase.DONE)
    done.expected = replace(ESTIMATE, assumed=(BMU1,))
    told = report_document(done, wall_time_s=1.0, trace_hash=None)
    assert (told["expected_hv_off_s"], told["expected_duration_s"], told["expected_transfer_s"]) == (25.5, 27.5, 18.0)
    assert told["flash_assumed"] == ["bmu1"]


def test_nodes_that_are_programmed_at_the_same_time_have_steps_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = [NodeStepEntered(0.0, node, NodeStep.TRANSFER) for node in (BMU1, BMU2)]
    for percent in range(10, 101, 10):
        events += [Transferred(percent / 10, node, percent * KIB, 100 * KIB, 10_000.0) for node in (BMU1, BMU2)]
    with ProgressPrinter(silent=False) as progress:
        for event in events:
            progress(event)
    told = [line.split("] ")[1].split(" (")[0].split() for line in capsys.readouterr().out.splitlines()]
    for node in ("bmu1:", "bmu2:"):
        assert [words[1] for words in told if words[0] == node] == ["transfer", "30", "50", "80", "100"]


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressPrinter(silent=True) as progress:
        for event in EVENTS:
            progress(event)
    assert capsys.readouterr() == ("", "")


def test_a_live_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    make: Callable[[], Console] = lambda: Console(file=screen, force_terminal=True, width=120)  # noqa: E731
    monkeypatch.setattr("ess_can.cli.console.SteadyConsole", make)
    with ProgressPrinter(silent=False) as progress:
        for event in EVENTS:
            progress(event)
    shown = screen.getvalue()
    for line in (LINES[0], LINES[1], LINES[4], LINES[5]):
        assert line in shown
    assert "60 % of" not in shown  # that is what the bar is for
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")  # the cursor is back


def report(result: Phase, error: EssCanError | None = None) -> Report:
    old, new = Version(1, 0, 0), Version(1, 1, 0)
    node = NodeRecord(BMU1, old, new, 273_954, bytes_sent=273_954, transfers=[(2.0, 12.0)], wire_efficiency=0.987)
    untouched = NodeRecord(NodeAddress(NodeType.BMU, 2), new, new, 900)
    phases = [PhaseRecord(Phase.STATUS_CHECK, 0.0, 1.0)]
    return Report(phases, [node, untouched], result, error, hv_off_s=30.0, bus_time_s=36.5)


@pytest.mark.parametrize("result", [phase for phase in Phase if phase in FINAL], ids=str)
def test_every_ending_has_a_headline_and_an_aligned_table(result: Phase, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report(result), wall_time_s=1.0, trace_hash="ab" * 32)
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[1].endswith(".")
    head, first, second = lines[3:6]
    assert len(head) == len(first) == len(second) <= 100
    assert first.split()[0] == "bmu1"
    assert "268 KiB" in first
    assert "0.9 KiB" in second
    assert "  trace                abababababababab (the same seed gives the same)" in lines


def test_the_table_shows_what_each_node_said_that_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for runs, shown in ((Version(1, 0, 0), "1.0.0"), (Version(1, 1, 0), "1.1.0"), (None, "silent")):
        told = report(Phase.HELD_OPEN)
        told.nodes[0].runs = runs
        print_report(told, wall_time_s=1.0, trace_hash=None)
        assert capsys.readouterr().out.splitlines()[4].split()[1:3] == ["1.0.0", shown]


def test_the_error_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted = report(Phase.FAILED, Interrupted("stopped"))
    print_report(interrupted, wall_time_s=1.0, trace_hash="ab" * 32)
    print_errors(interrupted)
    shown = capsys.readouterr()
    assert "error INTERRUPTED: stopped\nwhat to do: Run the same command again" in shown.err
    assert "same seed" not in shown.out


def test_the_document() -> None:
    told = report_document(report(Phase.HELD_OPEN, HeldOpen("held", why="so")), wall_time_s=1.23456, trace_hash=None)
    assert set(told) == REPORT_KEYS
    assert (told["result"], told["exit_code"], told["wall_time_s"]) == ("held_open", 101, 1.235)
    assert told["error"] == {
        "name": "HELD_OPEN",
        "message": "held: so",
        "why": "so",
        "blame": "the plant",
        "remedy": HeldOpen.default_remedy,
    }
    assert told["phases"] == [{"name": "status_check", "start": 0.0, "end": 1.0}]


def test_a_plant_that_is_not_proved_safe_is_called_live(capsys: pytest.CaptureFixture[str]) -> None:
    told = report(Phase.HELD_OPEN, HeldOpen("held"))
    print_report(told, wall_time_s=1.0, trace_hash=None)
    assert "Treat it as live" in capsys.readouterr().out
    told.proved_safe = True
    print_report(told, wall_time_s=1.0, trace_hash=None)
    assert "proved open and locked" in capsys.readouterr().out
