"""Every reason against an upgrade, by name, and every reason against reconnecting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ess_can.can.frame import CanFrame
from ess_can.errors import (
    AuxSupplyLow,
    BmsFault,
    BusOverloaded,
    CellTemperatureOutOfBand,
    CellVoltageOutOfBand,
    ContactorWelded,
    CurrentMismatch,
    DbcMismatch,
    DispatchActive,
    EmergencyStop,
    EssCanError,
    IdConflict,
    NodeMissing,
    NodeUnhealthy,
    OtherGateway,
    PartlyConnected,
    PcsFault,
    PlantLocked,
    SocOutOfBand,
    TrialBootFailed,
    UsageError,
)
from ess_can.gateway.config import Afterwards, GatewayConfig, PolicyLimits
from ess_can.gateway.foreign import ForeignFrame
from ess_can.gateway.plant_view import PlantView, Sample
from ess_can.gateway.policy import (
    FOREIGN_FRESH_S,
    FRESH_S,
    Start,
    bus_refusal,
    diagnostics_refusal,
    reconnect_refusal,
    refusals,
    targets_of_type,
)
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    BmsHvStatus,
    ContactorState,
    EmsUpgradeNotice,
    ImageState,
    PcsState,
    PcsStatus,
    UpgradePhase,
)
from tests.support.scripted_plant import (
    BMU1,
    BMU2,
    CELLS,
    CODEC,
    NEW,
    PCS_RUNNING,
    RACK_CLOSED,
    STATE,
    node_info,
)

NOW = 50.0
CONFIG = GatewayConfig((BMU1, BMU2))
Spoil = Callable[[PlantView], object]


def healthy() -> PlantView:
    view = PlantView(pcs=Sample(PCS_RUNNING, NOW))
    for rack in (1, 2):
        seen = view.rack(rack)
        seen.hv, seen.state = Sample(RACK_CLOSED, NOW), Sample(STATE, NOW)
        seen.cells, seen.alarms = Sample(CELLS, NOW), Sample(BmsAlarms(), NOW)
    view.nodes = {address: Sample(node_info(), NOW) for address in (BMU1, BMU2)}
    return view


def found(view: PlantView, now: float = NOW) -> list[type[EssCanError]]:
    return [type(error) for error in refusals(view, CONFIG, CODEC.fingerprint, now)]


def pcs(status: PcsStatus) -> Spoil:
    return lambda view: setattr(view, "pcs", Sample(status, NOW))


def hv(status: BmsHvStatus) -> Spoil:
    return lambda view: setattr(view.rack(2), "hv", Sample(status, NOW))


def alarms(active: BmsAlarms) -> Spoil:
    return lambda view: setattr(view.rack(2), "alarms", Sample(active, NOW))


def state(**changes: float | None) -> Spoil:
    return lambda view: setattr(view.rack(2), "state", Sample(replace(STATE, **changes), NOW))  # type: ignore[arg-type]


def cells(**changes: float | None) -> Spoil:
    return lambda view: setattr(view.rack(2), "cells", Sample(replace(CELLS, **changes), NOW))


def silent(name: str) -> Spoil:
    return lambda view: setattr(view.rack(2), name, None)


def node(image_state: ImageState) -> Spoil:
    return lambda view: view.nodes.update({BMU2: Sample(node_info(image_state), NOW)})


def foreign(view: PlantView, name: str) -> None:
    can_id = next(can_id for can_id, each in CODEC.gateway_messages.items() if each == name)
    view.foreign[can_id] = ForeignFrame(name, CanFrame(can_id, bytes(8)), NOW - 0.1)


def foreign_poll(view: PlantView) -> None:
    foreign(view, "EMS_HvStatusPoll")


def foreign_request(view: PlantView) -> None:
    foreign(view, "UDS_Request_BMU2")


def foreign_command(view: PlantView) -> None:
    foreign(view, "EMS_PcsCommand")


def foreign_notice(view: PlantView) -> None:
    view.foreign_notice = Sample(EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 1, 0.0, 7), NOW - 0.1)


SAFETY: list[tuple[str, Spoil, type[EssCanError]]] = [
    ("other master", foreign_command, IdConflict),
    ("other poll", foreign_poll, IdConflict),
    ("other tester", foreign_request, IdConflict),
    ("other gateway", foreign_notice, OtherGateway),
    ("node missing", lambda view: view.nodes.pop(BMU2), NodeMissing),
    ("trial image", node(ImageState.TRIAL), NodeUnhealthy),
    ("recovery image", node(ImageState.RECOVERY), NodeUnhealthy),
    ("no pcs", lambda view: setattr(view, "pcs", None), NodeMissing),
    ("pcs e-stop", pcs(replace(PCS_RUNNING, emergency_stop=True)), EmergencyStop),
    ("pcs fault", pcs(replace(PCS_RUNNING, state=PcsState.FAULT)), PcsFault),
    ("pcs fault code", pcs(replace(PCS_RUNNING, fault_code=3)), PcsFault),
    ("pcs starting", pcs(replace(PCS_RUNNING, state=PcsState.INIT)), PcsFault),
    ("pcs current invalid", pcs(replace(PCS_RUNNING, dc_current_a=None)), PcsFault),
    *((f"no {name}", silent(name), NodeMissing) for name in ("hv", "state", "cells", "alarms")),
    ("rack e-stop", hv(replace(RACK_CLOSED, emergency_stop=True)), EmergencyStop),
    ("hvil", hv(replace(RACK_CLOSED, hvil_closed=False)), EmergencyStop),
    ("weld plus", hv(replace(RACK_CLOSED, weld_plus=True)), ContactorWelded),
    ("weld minus", hv(replace(RACK_CLOSED, weld_minus=True)), ContactorWelded),
    ("alarm e-stop", alarms(BmsAlarms(emergency_stop=True)), EmergencyStop),
    ("alarm fire", alarms(BmsAlarms(fire=True, overtemperature=True)), EmergencyStop),
    ("alarm weld", alarms(BmsAlarms(weld=True)), ContactorWelded),
    *((f"alarm {n}", alarms(BmsAlarms(**{n: True})), BmsFault) for n in (
        "overvoltage", "undervoltage", "overtemperature", "undertemperature", "overcurrent", "insulation",
        "hvil_open", "precharge_failed", "internal_fault",
    )),
]  # fmt: skip
START_ONLY: list[tuple[str, Spoil, type[EssCanError]]] = [
    (
        "other dbc",
        lambda v: v.nodes.update({BMU2: Sample(replace(node_info(), dbc_fingerprint=CODEC.fingerprint ^ 1), NOW)}),
        DbcMismatch,
    ),
    (
        "unexpected rack",
        lambda view: view.nodes.update({NodeAddress(NodeType.BMU, 3): Sample(node_info(), NOW)}),
        NodeMissing,
    ),
    ("grid service", pcs(replace(PCS_RUNNING, grid_service_active=True)), DispatchActive),
    ("soc low", state(soc_percent=9.9), SocOutOfBand),
    ("soc high", state(soc_percent=95.1), SocOutOfBand),
    ("soc invalid", state(soc_percent=None), BmsFault),
    ("aux low", state(aux_voltage_v=20.9), AuxSupplyLow),
    ("aux invalid", state(aux_voltage_v=None), BmsFault),
    ("cell low", cells(cell_voltage_min_v=2.79), CellVoltageOutOfBand),
    ("cell high", cells(cell_voltage_max_v=3.61), CellVoltageOutOfBand),
    ("cell invalid", cells(cell_voltage_max_v=None), CellVoltageOutOfBand),
    ("cold", cells(cell_temperature_min_degc=-0.1), CellTemperatureOutOfBand),
    ("hot", cells(cell_temperature_max_degc=50.1), CellTemperatureOutOfBand),
    ("temperature invalid", cells(cell_temperature_min_degc=None), CellTemperatureOutOfBand),
    ("currents disagree", hv(replace(RACK_CLOSED, current_a=61.0)), CurrentMismatch),
    ("rack current invalid", hv(replace(RACK_CLOSED, current_a=None)), CurrentMismatch),
]
EACH = [*SAFETY, *START_ONLY]


def test_a_healthy_plant_has_no_refusal() -> None:
    assert found(healthy()) == []
    assert reconnect_refusal(healthy(), CONFIG, NOW) is None


@pytest.mark.parametrize(("spoil", "kind"), [e[1:] for e in EACH], ids=[e[0] for e in EACH])
def test_each_refusal_has_its_name_and_comes_alone(spoil: Spoil, kind: type[EssCanError]) -> None:
    view = healthy()
    spoil(view)
    assert found(view) == [kind]
    error = refusals(view, CONFIG, CODEC.fingerprint, NOW)[0]
    assert error.why
    assert error.remedy


@pytest.mark.parametrize(("spoil", "kind"), [e[1:] for e in SAFETY], ids=[e[0] for e in SAFETY])
def test_what_is_unsafe_forbids_to_reconnect_too(spoil: Spoil, kind: type[EssCanError]) -> None:
    view = healthy()
    spoil(view)
    assert type(reconnect_refusal(view, CONFIG, NOW)) is kind


@pytest.mark.parametrize(
    ("spoil"),
    [
        state(soc_percent=10.0, aux_voltage_v=21.0),
        state(soc_percent=95.0),
        cells(cell_voltage_min_v=2.8, cell_voltage_max_v=3.6),
        cells(cell_temperature_min_degc=0.0, cell_temperature_max_degc=50.0),
        hv(replace(RACK_CLOSED, current_a=60.0)),
    ],
)
def test_the_limits_themselves_are_allowed(spoil: Spoil) -> None:
    view = healthy()
    spoil(view)
    assert found(view) == []


def test_everything_that_is_old_is_missing() -> None:
    assert found(healthy(), NOW + FRESH_S) == []
    late = NOW + FRESH_S + 0.01
    assert found(healthy(), late) == [NodeMissing] * 5
    assert isinstance(reconnect_refusal(healthy(), CONFIG, late), NodeMissing)


def test_an_empty_view_refuses_everything() -> None:
    assert found(PlantView()) == [NodeMissing] * 5


def test_the_gravest_comes_first() -> None:
    view = healthy()
    for _, spoil, _ in (START_ONLY[3], SAFETY[8], SAFETY[0]):
        spoil(view)
    assert found(view) == [EmergencyStop, IdConflict, SocOutOfBand]


def test_racks_on_different_versions_are_never_reconnected() -> None:
    view = healthy()
    view.nodes[BMU2] = Sample(node_info(version=NEW), NOW)
    assert found(view) == []
    refusal = reconnect_refusal(view, CONFIG, NOW)
    assert isinstance(refusal, NodeUnhealthy)
    assert "1.0.0, 1.1.0" in refusal.why
    view.nodes[BMU1] = Sample(node_info(version=NEW), NOW)
    assert reconnect_refusal(view, CONFIG, NOW) is None


def test_no_rack_is_connected_while_a_node_may_boot_another_image() -> None:
    refusal = reconnect_refusal(healthy(), CONFIG, NOW, NOW, (BMU2,))
    assert isinstance(refusal, TrialBootFailed)
    assert str(BMU2) in str(refusal)


def test_what_only_matters_for_starting_does_not_hold_the_plant_open() -> None:
    view = healthy()
    for _, spoil, _ in (START_ONLY[3], START_ONLY[8]):
        spoil(view)
    assert reconnect_refusal(view, CONFIG, NOW) is None


def test_targets_are_the_expected_nodes_of_the_type_in_order() -> None:
    comm = NodeAddress(NodeType.COMM_GATEWAY)
    config = GatewayConfig((BMU2, comm, BMU1))
    assert targets_of_type(config, NodeType.BMU) == (BMU1, BMU2)
    assert targets_of_type(config, NodeType.COMM_GATEWAY) == (comm,)
    assert targets_of_type(config, NodeType.CMU) == ()


def test_a_gateway_that_has_gone_does_not_count() -> None:
    view = healthy()
    foreign_notice(view)
    assert found(view, NOW - 0.1 + FRESH_S + 0.01) == []


@pytest.mark.parametrize("spoil", [foreign_command, foreign_poll, foreign_request])
def test_other_frames_count_as_long_as_the_session_of_a_tester_may_last(spoil: Spoil) -> None:
    view = PlantView()
    spoil(view)
    assert IdConflict in found(view, NOW - 0.1 + FOREIGN_FRESH_S)
    assert IdConflict not in found(view, NOW - 0.1 + FOREIGN_FRESH_S + 0.01)


def test_nodes_are_not_asked_while_somebody_else_upgrades_or_asks_them() -> None:
    requests = {CODEC.diagnostic_ids(node)[0] for node in CODEC.nodes()}
    for spoil, kind in ((foreign_command, None), (foreign_poll, None), (foreign_request, "ID_CONFLICT")):
        view = healthy()
        spoil(view)
        refusal = diagnostics_refusal(view, requests, NOW)
        assert (refusal and refusal.name) == kind
    foreign_notice(view)
    assert isinstance(diagnostics_refusal(view, requests, NOW), OtherGateway)
    assert diagnostics_refusal(view, requests, NOW + FOREIGN_FRESH_S) is None


def test_who_sends_what_is_named_and_the_ems_is_asked_to_hand_over() -> None:
    view = healthy()
    foreign_command(view)
    foreign_request(view)
    command, request = refusals(view, CONFIG, CODEC.fingerprint, NOW)
    assert "EMS_PcsCommand" in command.what
    assert "hand over" in command.remedy
    assert "UDS_Request_BMU2" in request.what
    assert "625#0000000000000000" in request.why


def test_a_gateway_that_says_it_has_ended_does_not_count() -> None:
    view = healthy()
    view.foreign_notice = Sample(EmsUpgradeNotice(UpgradePhase.NONE, NodeType.BMU, 0, 0.0, 7), NOW)
    assert found(view) == []


@pytest.mark.parametrize(("load", "refused"), [(0.0, False), (0.8, False), (0.801, True), (1.0, True)])
def test_too_much_load_of_others_refuses(load: float, refused: bool) -> None:
    refusal = bus_refusal(load, PolicyLimits())
    assert isinstance(refusal, BusOverloaded) is refused
    assert refusal is None or "of the bus" in str(refusal)


@pytest.mark.parametrize("percent", [0.0, 90.1, 100.0])
def test_a_limit_at_which_evidence_would_be_late_is_refused(percent: float) -> None:
    with pytest.raises(UsageError, match="bus_load_max_percent"):
        PolicyLimits(bus_load_max_percent=percent)


def test_how_the_plant_is_found_matters_for_a_fresh_start_only() -> None:
    locked, partly, trial = healthy(), healthy(), healthy()
    locked.pcs = Sample(replace(PCS_RUNNING, lock_acknowledged=True), NOW)
    partly.rack(1).hv = Sample(replace(RACK_CLOSED, main_plus=ContactorState.OPEN), NOW)
    trial.nodes[BMU1] = Sample(node_info(ImageState.TRIAL), NOW)
    for spoilt, kind in ((locked, PlantLocked), (partly, PartlyConnected), (trial, NodeUnhealthy)):
        assert kind in map(type, refusals(spoilt, CONFIG, CODEC.fingerprint, NOW))
        for start in (Start.RESUMED, Start.GIVEN_UP):
            assert refusals(spoilt, CONFIG, CODEC.fingerprint, NOW, start) == []
    decided = replace(CONFIG, afterwards=Afterwards.CONNECT)
    assert refusals(locked, decided, CODEC.fingerprint, NOW) == []


def test_undoing_asks_for_no_band_and_no_dispatch_but_for_safety() -> None:
    low, busy, burning = healthy(), healthy(), healthy()
    low.rack(1).state = Sample(replace(STATE, soc_percent=1.0), NOW)
    busy.pcs = Sample(replace(PCS_RUNNING, grid_service_active=True), NOW)
    burning.rack(1).alarms = Sample(BmsAlarms(fire=True), NOW)
    for spoilt, refused in ((low, False), (busy, False), (burning, True)):
        assert refusals(spoilt, CONFIG, CODEC.fingerprint, NOW)
        assert bool(refusals(spoilt, CONFIG, CODEC.fingerprint, NOW, Start.GIVEN_UP)) is refused


def test_a_node_that_is_no_rack_may_be_there_without_being_expected() -> None:
    view = healthy()
    view.nodes[NodeAddress(NodeType.COMM_GATEWAY)] = Sample(node_info(), NOW)
    assert found(view) == []
