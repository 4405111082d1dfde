from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.cli.monitor_view import WIDTH, Line, Tone, picture, plain_text
from ess_can.errors import ErrorPassive
from ess_can.gateway.hv_gate import Source
from ess_can.gateway.station_snapshot import (
    BusWarning,
    E2eVerdicts,
    Heard,
    HvEvidence,
    NodeSnapshot,
    RackSnapshot,
    Snapshot,
    Traffic,
)
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import (
    BmsHvStatus,
    EmsPcsCommand,
    EmsUpgradeNotice,
    ImageState,
    PcsCommandCode,
    PcsState,
    RackState,
    UpgradePhase,
)
from tests.support.scripted_plant import (
    BMU1,
    BMU2,
    CLOSED,
    OPEN,
    PCS_OFF,
    PCS_RUNNING,
    RACK_CLOSED,
    RACK_OFF,
    STATE,
    node_info,
)

GATEWAY = NodeAddress(NodeType.COMM_GATEWAY)


def rack(number: int, hv: BmsHvStatus = RACK_CLOSED) -> RackSnapshot:
    return RackSnapshot(number, Heard(hv, 0.012, False), Heard(STATE, 0.1, False), None, None)


def verdicts(name: str) -> E2eVerdicts:
    return E2eVerdicts(name, 123_456, 12, 3, 4, 5, 6, Verdict.OK_SOME_LOST, 0.012, False)


def evidence(missing: str) -> tuple[HvEvidence, ...]:
    age_s = None if missing else 0.012
    return (
        HvEvidence(Source.PCS_STATUS, 0, missing, age_s),
        *(HvEvidence(source, number, missing, age_s) for number in (1, 2) for source in list(Source)[:2]),
    )


RUNNING = Snapshot(
    listened_s=12.3,
    traffic=Traffic(frames=1000, frames_per_s=116.0, load=0.025, bitrate=500_000),
    plant_heard=True,
    pcs=Heard(PCS_RUNNING, 0.008, False),
    racks=(rack(1), rack(2)),
    nodes=tuple(NodeSnapshot(one, Heard(node_info(), 0.2, False), True) for one in (GATEWAY, BMU1, BMU2)),
    evidence=evidence("main+ is CLOSED"),
    polled=False,
    e2e=(verdicts("PCS_Status"), verdicts("BMS_HvStatus_1"), verdicts("BMS_HvStatus_2")),
    command=None,
    notice=None,
    warnings=(),
)
UPGRADING = replace(
    RUNNING,
    traffic=Traffic(
        frames=2_000_000_000,
        frames_per_s=8123.4,
        load=0.987,
        bitrate=500_000,
        diagnostic=((BMU2, 7654.3),),
        unknown=123_456,
        unknown_ids=tuple(range(64)),
        unusable=12_345,
    ),
    pcs=Heard(PCS_OFF, 0.008, False),
    racks=(rack(1, RACK_OFF), rack(2, RACK_OFF)),
    evidence=evidence(""),
    polled=True,
    e2e=(
        *RUNNING.e2e,
        *(verdicts(name) for name in ("BMS_HvNotice_1", "BMS_HvNotice_2", "EMS_PcsCommand")),
    ),
    command=Heard(EmsPcsCommand(PcsCommandCode.LOCK, 0.0, upgrade_active=True), 0.02, False),
    notice=Heard(EmsUpgradeNotice(UpgradePhase.RECONNECTING, NodeType.COMM_GATEWAY, 1, 15.0, 0xBEEF), 0.05, False),
)


def lines(snapshot: Snapshot) -> list[str]:
    return [plain_text(line) for line in picture(snapshot, "socketcan can0", "as set")]


def line(snapshot: Snapshot, start: str) -> str:
    return next(text for text in lines(snapshot) if text.startswith(start))


def tones(picture_lines: list[Line], text: str) -> set[Tone]:
    return {piece.tone for one in picture_lines for piece in one if text in piece.text}


def test_a_plant_in_operation() -> None:
    assert line(RUNNING, "ess-can monitor") == "ess-can monitor  socketcan can0  heard for 12.3 s"
    assert line(RUNNING, "bus") == "bus       load 2.5 % of 500 kbit/s (as set)  116 frames/s"
    assert line(RUNNING, "PCS").split() == ["PCS", "running", "closed", "100.0", "A", "unlocked", "local", "8", "ms"]
    assert line(RUNNING, "rack 2").split() == [
        *("rack", "2", "closed", "closed", "790.0", "V", "50.0", "A", "55.0", "%", "no", "12", "ms")
    ]
    assert line(RUNNING, "HV off?").endswith("not proved: 0 of 5 sources hold")
    assert line(RUNNING, "  rack 1") == "  rack 1  main+ is CLOSED                      notice: not polled"
    assert line(RUNNING, "  BMS_HvStatus_2").split() == [
        *("BMS_HvStatus_2", "123456", "12", "3", "4", "5", "ok,", "some", "lost", "12", "ms")
    ]
    assert line(RUNNING, "  bmu1").split() == ["bmu1", "bmu", "1.0.0", "0", "confirmed", "3", "ok", "200", "ms"]
    assert line(RUNNING, "command") == "command   nobody commands the plant"
    assert line(RUNNING, "upgrade") == "upgrade   none announced"


def test_an_upgrade() -> None:
    assert line(UPGRADING, "command").startswith("command   EMS_PcsCommand LOCK, upgrade active")
    assert lines(UPGRADING)[2].startswith("          bmu2 7654 UDS frames/s  123456 frames, 64 unknown ids")
    upgrade = line(UPGRADING, "upgrade")
    assert upgrade == "upgrade   RECONNECTING comm_gateway, session BEEF, may be silent 15 s"
    early = EmsUpgradeNotice(UpgradePhase.PREPARING, NodeType.BMU, 0, 0.0, 0xBEEF)
    preparing = replace(UPGRADING, notice=Heard(early, 0.05, False))
    assert line(preparing, "upgrade") == "upgrade   PREPARING, session BEEF"
    assert line(UPGRADING, "HV off?").endswith("high voltage is off, by all evidence")
    assert "locked" in line(UPGRADING, "PCS")
    assert "  yes" in line(UPGRADING, "rack 1")
    assert line(UPGRADING, "  rack 2") == f"  rack 2  {'holds, 12 ms old':<36} notice: holds, 12 ms old"


@pytest.mark.parametrize("snapshot", [RUNNING, UPGRADING], ids=["running", "upgrading"])
def test_two_racks_fit_80_columns_and_24_lines(snapshot: Snapshot) -> None:
    shown = lines(snapshot)
    assert len(shown) <= 24
    assert [text for text in shown if len(text) > WIDTH] == []


def of_eight_racks(snapshot: Snapshot, hv: BmsHvStatus, missing: str) -> Snapshot:
    """As it is, of a plant of eight racks whose messages have no fault."""
    bmus = [NodeAddress(NodeType.BMU, number) for number in range(1, 9)]
    sources = [(source, number) for source in list(Source)[:2] for number in range(1, 9)]
    names = ["PCS_Status", *(f"{source.value}_{number}" for source, number in sources)]
    return replace(
        snapshot,
        racks=tuple(rack(number, hv) for number in range(1, 9)),
        nodes=tuple(NodeSnapshot(one, Heard(node_info(), 0.2, False), True) for one in bmus),
        evidence=tuple(
            HvEvidence(source, number, missing, 0.01) for source, number in [(Source.PCS_STATUS, 0), *sources]
        ),
        e2e=tuple(E2eVerdicts(name, 1000, 1, 0, 0, 0, 0, Verdict.OK, 0.012, False) for name in names),
    )


LARGE = of_eight_racks(RUNNING, RACK_CLOSED, "main+ is CLOSED")
LARGE_UPGRADING = of_eight_racks(UPGRADING, RACK_OFF, "")


@pytest.mark.parametrize("snapshot", [LARGE, LARGE_UPGRADING], ids=["running", "upgrading"])
def test_eight_racks_fit_too_in_brief(snapshot: Snapshot) -> None:
    shown = [plain_text(one) for one in picture(snapshot, "socketcan can0", "as set", 24)]
    assert len(shown) <= 24
    assert [text for text in shown if len(text) > WIDTH] == []
    assert [text[:6] for text in shown if text.startswith("rack")] == [f"rack {number}" for number in range(1, 9)]
    assert "E2E       17 of 17 messages without a fault, 17 gaps" in shown
    assert shown[-1].split() == ["bmu1-8", "bmu", "1.0.0", "0", "confirmed", "ok", "200", "ms"]
    assert lines(snapshot)[:10] == shown[:10]


def test_no_more_is_told_in_brief_than_needed() -> None:
    whole = lines(LARGE)
    assert [plain_text(one) for one in picture(LARGE, "socketcan can0", "as set", len(whole))] == whole
    shorter = [plain_text(one) for one in picture(LARGE, "socketcan can0", "as set", len(whole) - 1)]
    e2e, nodes = (next(n for n, text in enumerate(whole) if text.startswith(start)) for start in ("E2E", "node"))
    assert shorter == [*whole[:e2e], "E2E       17 of 17 messages without a fault, 17 gaps", *whole[nodes:]]


def test_what_is_not_good_is_told_in_brief_too() -> None:
    e2e, nodes, evidence = list(LARGE.e2e), list(LARGE.nodes), list(LARGE_UPGRADING.evidence)
    e2e[3] = replace(e2e[3], crc_errors=2)
    e2e[7] = replace(e2e[7], stale=True)
    nodes[3] = NodeSnapshot(nodes[3].address, None, False)
    nodes[5] = replace(nodes[5], info=Heard(node_info(ImageState.TRIAL), 0.3, False))
    evidence[5] = replace(evidence[5], missing="link at 75.0 V")
    evidence[0] = replace(evidence[0], missing="PCS contactors CLOSED")
    shown = [
        plain_text(one)
        for one in picture(
            replace(LARGE_UPGRADING, e2e=tuple(e2e), nodes=tuple(nodes), evidence=tuple(evidence)), "", "", 24
        )
    ]
    assert "HV off?   not proved: 15 of 17 sources hold" in shown
    assert "  PCS_Status: PCS contactors CLOSED" in shown
    assert "  BMS_HvStatus 5: link at 75.0 V" in shown
    assert "E2E       15 of 17 messages without a fault, 15 gaps" in shown
    assert [text.split()[0] for text in shown if text.startswith("  BMS_HvStatus_")] == [e2e[3].name, e2e[7].name]
    assert [text.split()[0] for text in shown[-3:]] == ["bmu1-3,5,7-8", "bmu4", "bmu6"]
    assert shown[-2].endswith("not heard")


def test_what_is_old_is_marked() -> None:
    old = replace(
        RUNNING,
        pcs=Heard(PCS_RUNNING, 61.2, True),
        e2e=(replace(verdicts("PCS_Status"), age_s=61.2, stale=True),),
        command=Heard(EmsPcsCommand(PcsCommandCode.RUN, 50.0), 61.2, True),
    )
    assert line(old, "PCS").endswith("61 s stale")
    assert line(old, "  PCS_Status").endswith("61 s stale")
    assert line(old, "command") == "command   nobody commands the plant (the last EMS_PcsCommand 61 s ago)"
    shown = picture(old, "", "")
    assert tones(shown, "61 s stale") == {Tone.WARN}
    assert tones(shown, "running") == {Tone.DIM}
    assert "EMS_PcsCommand RUN 50.0 kW" in line(
        replace(old, command=Heard(EmsPcsCommand(PcsCommandCode.RUN, 50.0), 0.1, False)), "command"
    )


def test_what_was_not_heard() -> None:
    nothing = replace(
        RUNNING,
        traffic=Traffic(),
        plant_heard=False,
        pcs=None,
        racks=(RackSnapshot(1, None, None, None, None),),
        nodes=(NodeSnapshot(BMU1, None, False),),
        e2e=(replace(verdicts("PCS_Status"), last=None),),
    )
    assert line(nothing, "bus") == "bus       silent"
    assert line(nothing, "PCS") == "PCS       not heard"
    assert line(nothing, "rack 1") == "rack 1    no valid BMS_HvStatus"
    assert line(nothing, "  bmu1") == "  bmu1          not heard"
    assert "unusable" in line(nothing, "  PCS_Status")
    strangers = replace(nothing, traffic=Traffic(frames=7, unknown=7, unknown_ids=(1,), unusable=2, bitrate=1))
    assert line(strangers, "bus").endswith("nothing of the plant")
    assert lines(strangers)[2] == "          7 frames, 1 unknown id  2 unusable"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"emergency_stop": True, "hvil_closed": False, "weld_plus": True}, "STOP/HVIL/WELD"),
        ({"link_voltage_v": None, "current_a": None}, "? V"),
        ({"main_plus": CLOSED, "main_minus": OPEN}, "+cl -op pre op"),
        ({"main_plus": OPEN, "main_minus": OPEN, "precharge": CLOSED}, "+op -op pre cl"),
    ],
)
def test_racks_in_trouble(changes: dict[str, object], words: str) -> None:
    hv = replace(RACK_CLOSED, **changes)  # type: ignore[arg-type]
    assert words in line(replace(RUNNING, racks=(rack(1, hv),)), "rack 1")


def test_what_is_bad_is_red() -> None:
    bad = replace(
        RUNNING,
        pcs=Heard(replace(PCS_RUNNING, state=PcsState.EMERGENCY_STOP), 0.01, False),
        racks=(replace(rack(1), state=Heard(replace(STATE, state=RackState.FAULT), 0.1, False)),),
        nodes=(NodeSnapshot(BMU1, Heard(node_info(ImageState.TRIAL), 0.2, False), False),),
        warnings=(BusWarning(ErrorPassive("the controller is error passive", why="TEC 130"), 3, 1.5),),
    )
    shown = picture(bad, "", "")
    assert tones(shown, "emergency") == tones(shown, "fault") == tones(shown, "OTHER") == {Tone.BAD}
    assert tones(shown, "trial") == {Tone.WARN}
    assert tones(shown, "ERROR_PASSIVE (3 times, 1.5 s ago)") == {Tone.BAD}
