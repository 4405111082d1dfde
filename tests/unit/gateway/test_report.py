from ess_can.errors import PcsFault, RolledBack
from ess_can.gateway.estimate import Estimate, ExpectedPhase
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import NodeRecord, PhaseLog, PhaseRecord, Report
from ess_can.identity import NodeAddress, NodeType, Version

OLD = Version(1, 0, 0)


def test_each_phase_is_timed_from_the_beginning() -> None:
    report = Report()
    log = PhaseLog(report, 100.0)
    log.enter(Phase.RAMP_DOWN, 101.5)
    log.enter(Phase.HOLD_OPEN, 104.0)
    log.enter(Phase.HELD_OPEN, 104.0)
    assert report.phases == [
        PhaseRecord(Phase.STATUS_CHECK, 0.0, 1.5),
        PhaseRecord(Phase.RAMP_DOWN, 1.5, 4.0),
        PhaseRecord(Phase.HOLD_OPEN, 4.0, 4.0),
    ]
    assert report.result is Phase.HELD_OPEN
    assert report.bus_time_s == 4.0


def test_the_result_is_set_by_a_final_phase_only() -> None:
    report = Report()
    PhaseLog(report, 0.0).enter(Phase.RAMP_DOWN, 1.0)
    assert report.result is Phase.STATUS_CHECK
    assert report.bus_time_s == 0.0


def test_the_exit_code_is_the_errors() -> None:
    assert Report().exit_code == 0
    assert Report(error=PcsFault("fault")).exit_code == PcsFault.exit_code
    assert Report(error=RolledBack("back")).exit_code == 100


def test_transfers_at_the_same_time_count_once() -> None:
    def node(index: int, *transfers: tuple[float, float]) -> NodeRecord:
        return NodeRecord(NodeAddress(NodeType.BMU, index), OLD, OLD, 1, transfers=list(transfers))

    first = node(1, (10.0, 13.0), (20.0, 21.0))
    assert first.transfer_s == 4.0
    assert Report(nodes=[first]).transfer_s == 4.0
    assert Report(nodes=[first, node(2, (10.0, 14.0)), node(3), node(4, (11.0, 12.0), (20.5, 22.0))]).transfer_s == 6.0
    assert Report().transfer_s == 0.0


def test_the_whole_duration_is_expected_once_the_check_is_over() -> None:
    report = Report()
    assert report.expected_duration_s is None
    report.expected = Estimate((ExpectedPhase(Phase.PROGRAM, 20.0),), 18.0)
    PhaseLog(report, 100.0).enter(Phase.RAMP_DOWN, 101.5)
    assert report.expected_duration_s == 21.5
