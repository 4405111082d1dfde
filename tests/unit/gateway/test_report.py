from ess_can.errors import PcsFault, RolledBack
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import PhaseLog, PhaseRecord, Report


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
