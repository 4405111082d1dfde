"""Sometimes: every kind of fault, every change of state and every error is reached, or the campaign has a gap.

What runs here is directed, because chance reaches some of it in one run of thousands only.  What no simulated station
causes is listed with the test that reaches it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults import EXAMPLES, Fault, parse_fault
from ess_can.campaign.mixture import plain
from ess_can.campaign.moments import Moment
from ess_can.campaign.plants import SMALLEST, Site
from ess_can.campaign.result import Summary
from ess_can.campaign.run import error_names, run_mixture
from ess_can.campaign.station import Station
from ess_can.campaign.watching import EDGES
from ess_can.errors import EssCanError
from ess_can.gateway.config import Afterwards
from ess_can.sim.electrical import ContactorFault
from tests.campaign.conftest import Count

_ROOT = Path(__file__).resolve().parents[2]

DIRECTED: tuple[tuple[str, ...], ...] = (
    ("plant:emergency-stop:1@RECONNECT+0.35",),
    ("plant:pcs-restarts@RECONNECT+0.35",),
    ("plant:hvil:1@RECONNECT+0.1",),
    ("plant:pcs-restarts@RAMP_DOWN+0.05",),
    ("plant:emergency-stop:1@RAMP_DOWN+0.05",),
    ("plant:emergency-stop:1@0.2",),
    ("plant:pcs-restarts@0.2",),
    ("plant:emergency-stop:1@PROGRAM+0.05", "plant:pcs-restarts@PROGRAM+0.2"),
    ("plant:emergency-stop:1@PROGRAM+0.05", "plant:emergency-stop:1@PROGRAM+0.1"),
    ("node:bmu1:reset@0.2",),
    ("node:bmu1:reset@0.2", "plant:pcs-restarts@1"),
    ("node:bmu1:reset@0.2", "plant:emergency-stop:1@1"),
    ("node:bmu1:reset@RAMP_DOWN+0.05",),
    ("node:bmu1:reset@PROGRAM+0.05", "node:bmu1:reset@PROGRAM+0.1"),
    ("plant:pcs-restarts@PROGRAM+0.1", "plant:pcs-restarts@PROGRAM+0.2"),
    ("gateway:interrupted@OPEN_CONTACTORS+0.01",),
    ("gateway:interrupted@PROVE_HV_OFF+0.1",),
    ("gateway:disk%24:error",),
    ("gateway:kill%43:before",),
    ("node:bmu1:reset@RECONNECT+0.12",),
    ("bus:silent@0",),
    ("bus:babbler=95@0",),
    ("bus:off=6@PROGRAM+0.1",),
    ("plant:hv-status-lost:1@0",),
    ("node:bmu1:refuses=51@PROGRAM+0~20",),
    ("gateway:suspended=30@RECONNECT+0.1",),
    ("plant:hv-closes@PROGRAM+0.05",),
    ("node:bmu1:power@PROGRAM+0.1~60",),
    ("frame:request#30x40:lost",),
    ("frame:553:corrupted",),
    ("frame:answer#60x4:corrupted",),
    ("node:bmu1:garbage@CONFIRM+0~3",),
    ("node:bmu1:refuses=34@CONFIRM+0~10",),
    ("firmware:bmu1:mute", "gateway:kill@TRIAL_BOOT+1.5"),
)
"""Beside an example of each kind of fault."""

UNIT, SCENARIO = "tests/unit", "tests/scenario"

EDGES_ELSEWHERE: Mapping[str, str] = {
    "phase STATUS_CHECK CHECKED": f"{SCENARIO}/test_good_path.py: Phase.CHECKED",
    "phase STATUS_CHECK NOTHING_TO_DO": f"{SCENARIO}/test_good_path.py: Phase.NOTHING_TO_DO",
    "phase STATUS_CHECK ROLLED_BACK": f"{SCENARIO}/test_resume.py: def test_given_up",
    "rack PRECHARGING OPEN": f"{UNIT}/sim/test_hv_control.py: def test_closing_is_broken_off_when_its_reason_goes",
}
"""Changes of state that need another command, a dry run, or a longer precharge, and the test that has them."""

NEVER: Mapping[str, str] = {
    "phase CONFIRM HOLD_OPEN": "with an image activated every failure leads through ROLL_BACK first",
    "phase TRIAL_BOOT HOLD_OPEN": "needs a failure for good between entering the phase and the first activation",
    "phase STATUS_CHECK HOLD_OPEN": "needs a resume without work on a plant that is not as it is to be left",
    "pcs FAULT TRIP": "a fault on top of a fault: the table allows it, the model notes the first one only",
    "pcs INIT TRIP": "the model watches for faults once its self-test is done",
}
"""Changes of state that the tables allow and no run here came to, with the reason; one that is reached must go."""

ABSTRACT = frozenset(
    {"BUS_ERROR", "ESS_CAN_ERROR", "ISO_TP_ERROR", "JOURNAL_ERROR", "PLANT_REFUSAL", "UDS_ERROR", "UPGRADE_FILE_ERROR"}
)
"""Roots of the tree: what is raised is a kind of them, or a defect of ours."""

ERRORS_ELSEWHERE: Mapping[str, str] = {
    "AUDIT_BROKEN": "tests/unit/journal/test_audit.py",
    "BUS_OFF": "tests/unit/bus/test_recovering_bus.py",
    "DBC_MISMATCH": "tests/unit/gateway/test_policy.py",
    "DEPENDENCY_UNMET": "tests/unit/gateway/test_plan.py",
    "FILE_EMPTY": "tests/unit/image/test_files.py",
    "FILE_TOO_LARGE": "tests/unit/image/test_files.py",
    "FILE_TRUNCATED": "tests/unit/image/test_upgrade_file.py",
    "FILE_UNREADABLE": "tests/unit/journal/test_journal.py",
    "HV_CLOSED": "tests/unit/gateway/test_interlock.py",
    "IMAGE_CORRUPT": "tests/unit/gateway/test_streamed_image.py",
    "IMAGE_INVALID": "tests/unit/image/test_node_image.py",
    "INTERFACE_DOWN": "tests/unit/bus/test_socketcan.py",
    "INTERFACE_UNAVAILABLE": "tests/unit/bus/test_socketcan.py",
    "INVARIANT_VIOLATED": "tests/unit/cli/test_sim_campaign.py",
    "ISO_TP_TOO_SLOW": "tests/unit/isotp/test_sender.py",
    "JOURNAL_CORRUPT": "tests/campaign/test_journal_damage.py",
    "JOURNAL_VERSION_UNKNOWN": "tests/unit/journal/test_schema.py",
    "LOCKED": "tests/unit/journal/test_lock.py",
    "MANIFEST_INVALID": "tests/unit/image/test_manifest.py",
    "NODE_UNHEALTHY": "tests/scenario/test_refusals.py",
    "NOTHING_TO_RESUME": "tests/scenario/test_resume.py",
    "NOT_AN_UPGRADE_FILE": "tests/unit/image/test_upgrade_file.py",
    "NO_SUCH_UPGRADE": "tests/unit/journal/test_reader.py",
    "NO_VALID_TRAFFIC": "tests/scenario/test_refusals.py",
    "N_BUFFER_OVFLW": "tests/unit/isotp/test_sender.py",
    "N_INVALID_FS": "tests/unit/isotp/test_sender.py",
    "N_TIMEOUT_A": "tests/unit/bus/test_isotp_channel.py",
    "N_TIMEOUT_BS": "tests/unit/bus/test_isotp_channel.py",
    "N_TIMEOUT_CR": "tests/unit/bus/test_isotp_channel.py",
    "N_UNEXP_PDU": "tests/unit/isotp/test_receiver.py",
    "N_WFT_OVRN": "tests/unit/isotp/test_receiver.py",
    "N_WRONG_SN": "tests/unit/isotp/test_receiver.py",
    "PLANT_LOCKED": "tests/scenario/test_interruptions.py",
    "SECURITY_COUNTER_JUMP": "tests/unit/trust/test_compatibility.py",
    "SECURITY_DOWNGRADE": "tests/unit/trust/test_compatibility.py",
    "SIGNATURE_INVALID": "tests/unit/image/test_upgrade_file.py",
    "SIGNATURE_MISSING": "tests/unit/trust/test_verify.py",
    "SIMULATION_DEADLOCK": "tests/unit/sim/test_loop.py",
    "TEMPORARY_FILE_FAILED": "tests/unit/image/test_files.py",
    "TEST_KEY_REFUSED": "tests/unit/trust/test_verify.py",
    "TRACE_UNWRITABLE": "tests/unit/bus/test_trace.py",
    "TRAILING_BYTES": "tests/unit/image/test_upgrade_file.py",
    "TRANSMIT_QUEUE_FULL": "tests/unit/bus/test_transmit_queue.py",
    "TRANSMIT_STALLED": "tests/unit/bus/test_transmit_queue.py",
    "UNKNOWN_KEY": "tests/unit/trust/test_verify.py",
    "UPGRADE_FILE_EXPIRED": "tests/unit/trust/test_verify.py",
    "USAGE_ERROR": "tests/unit/campaign/test_faults_text.py",
    "VERSION_DOWNGRADE": "tests/unit/trust/test_compatibility.py",
    "WRONG_HARDWARE": "tests/unit/trust/test_compatibility.py",
    "WRONG_NODE_TYPE": "tests/unit/trust/test_compatibility.py",
}
"""Errors of files, command lines, other hardware and of layers that a gateway sums up, and the test that has them."""


@dataclass(frozen=True)
class PcsContactor:
    """The PCS's own contactor is bad from a moment on, until everything is healed."""

    fault: ContactorFault
    at: Moment

    kind = FaultKind.WELD_PLUS

    @property
    def text(self) -> str:
        return f"PCS contactor {self.fault.value}"

    def arm(self, station: Station) -> None:
        contactor = station.plant.circuit.pcs_contactor

        def act() -> None:
            contactor.fault = self.fault

        def heal() -> None:
            contactor.fault = ContactorFault.NONE
            contactor.closed = contactor.coil

        station.at(self.at, act)
        station.to_heal(heal)


def runs() -> Iterator[tuple[Site, Sequence[Fault]]]:
    """What is run."""
    for texts in (*((text,) for text in EXAMPLES), *DIRECTED):
        yield SMALLEST, [parse_fault(text) for text in texts]
    yield replace(SMALLEST, afterwards=Afterwards.HOLD_OPEN), []
    yield SMALLEST, [PcsContactor(ContactorFault.WELDED, Moment(0.0))]
    yield SMALLEST, [PcsContactor(ContactorFault.WELDED, Moment(0.0)), parse_fault("plant:pcs-restarts@PROGRAM+0")]
    yield SMALLEST, [PcsContactor(ContactorFault.WELDED, Moment(0.0)), parse_fault("plant:pcs-restarts@4")]
    yield SMALLEST, [PcsContactor(ContactorFault.STUCK_OPEN, Moment.parse("PROGRAM+0"))]


def test_everything_is_reached_at_least_once(count: Count) -> None:
    planned = list(runs())
    results = [run_mixture(plain(site=site), faults=faults) for site, faults in planned]
    summary = Summary.of(results)
    count("directed runs that reach every fault, change of state and error", len(planned))
    assert not [f"{result.faults}: {result.wrong}" for result in results if result.wrong]
    assert {kind.name for kind in FaultKind} - set(summary.faults) == set()
    assert EDGES - set(summary.edges) - set(EDGES_ELSEWHERE) == set(NEVER)
    assert error_names() - set(summary.errors) - set(ERRORS_ELSEWHERE) - ABSTRACT == set()


def below(error: type[EssCanError]) -> Iterator[type[EssCanError]]:
    yield error
    for kind in error.__subclasses__():
        yield from below(kind)


@pytest.mark.parametrize("name", ERRORS_ELSEWHERE)
def test_what_is_reached_elsewhere_is_in_that_test(name: str) -> None:
    kind = next(kind for kind in below(EssCanError) if kind("").name == name)
    assert re.search(rf"\b({kind.__name__}|{name})\b", (_ROOT / ERRORS_ELSEWHERE[name]).read_text("utf-8"))


@pytest.mark.parametrize("edge", EDGES_ELSEWHERE)
def test_a_change_of_state_reached_elsewhere_is_in_that_test(edge: str) -> None:
    assert edge in EDGES
    path, _, words = EDGES_ELSEWHERE[edge].partition(": ")
    assert words in (_ROOT / path).read_text("utf-8")


def test_what_is_never_reached_exists_at_all() -> None:
    assert set(NEVER) <= EDGES
    assert error_names() >= ABSTRACT
