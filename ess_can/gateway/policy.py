"""Whether the plant's operating status allows an upgrade now: pure, every refusal a named reason.

There is no switch that skips a check; only thresholds are configurable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from enum import Enum
from math import inf

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
    NodeMissing,
    NodeUnhealthy,
    OtherGateway,
    PartlyConnected,
    PcsFault,
    PlantLocked,
    SocOutOfBand,
    TrialBootFailed,
)
from ess_can.gateway.config import Afterwards, GatewayConfig, PolicyLimits
from ess_can.gateway.foreign import ForeignFrame, id_conflict
from ess_can.gateway.plant_view import Connection, PlantView, RackView, Sample
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    ImageState,
    Message,
    PcsState,
    PcsStatus,
    UpgradePhase,
)

FRESH_S = 1.5
"""A message older than this is as good as none: three cycles of the slowest one."""

FOREIGN_FRESH_S = 5.0
"""Somebody else's frame counts for longer: the session of a tester lasts that long after its last request (S3)."""

_GRAVEST = (EmergencyStop, ContactorWelded)
"""Named first, whatever else is wrong: other faults often only follow from them."""

_PCS_FAULT_STATES = (PcsState.FAULT, PcsState.INIT)
_CONTACTOR_ALARMS = ("weld",)
_STOP_ALARMS = ("emergency_stop", "fire")


class Start(Enum):
    """What is to be started.

    RESUMED goes on with an upgrade of ours that did not hand the plant back: what that one left behind (the lock,
    contactors half way, an image on trial) is no reason against it.  GIVEN_UP only undoes it and hands the plant back:
    nothing is programmed, so the band in which a plant may be upgraded does not matter, nor what the grid wants of it.
    """

    FRESH = "an upgrade"
    RESUMED = "the rest of an upgrade"
    GIVEN_UP = "the undoing of an upgrade"


def refusals(
    view: PlantView, config: GatewayConfig, fingerprint: int, now: float, start: Start = Start.FRESH
) -> list[EssCanError]:
    """Every reason against a start now, the gravest first; empty if it may be.

    `fingerprint` is our DBC's.  `now` is the loop time in seconds against which ages are taken.
    """
    programs = start is not Start.GIVEN_UP
    found = [
        *_masters(view, now),
        *_presence(view, config, fingerprint, now, trial_is_ours=start is not Start.FRESH),
        *_pcs_health(view, now),
    ]
    if programs:
        found += _dispatch(view, now)
    for rack in config.racks:
        found += _rack_safety(rack, view.rack(rack), now)
        if programs:
            found += _rack_band(rack, view.rack(rack), config.policy, now)
    found += _currents_agree(view, config, now)
    if start is Start.FRESH:
        found += _as_found(view, config, now)
    return sorted(found, key=lambda reason: not isinstance(reason, _GRAVEST))


def unheard(view: PlantView, config: GatewayConfig, now: float) -> list[str]:
    """Which expected nodes are not heard, and of which racks not everything is.  Each of them is one refusal."""
    nodes = [str(address) for address in config.expected if not _fresh(view.nodes.get(address), now)]
    return nodes + [f"rack {rack}" for rack in config.racks if _stale(view.rack(rack), now)]


def bus_refusal(load: float, limits: PolicyLimits) -> BusOverloaded | None:
    """Why nothing may begin while others take this share (0..1) of the bus; None if it may."""
    if 100.0 * load <= limits.bus_load_max_percent:
        return None
    return BusOverloaded(
        f"others take {100.0 * load:.0f} % of the bus",
        why=f"at most {limits.bus_load_max_percent:g} %, so that commands and evidence are in time",
    )


def _fresh(sample: Sample[Message] | None, now: float) -> bool:
    return sample is not None and now - sample.at <= FRESH_S


def diagnostics_refusal(view: PlantView, request_ids: Collection[int], now: float) -> EssCanError | None:
    """Why the nodes must not even be asked now: somebody else upgrades this plant, or asks them; None if they may."""
    conflicts = (id_conflict(each) for each in _fresh_foreign(view, now) if each.frame.can_id in request_ids)
    return next(_other_gateway(view, now), None) or next(conflicts, None)


def _masters(view: PlantView, now: float) -> Iterator[EssCanError]:
    yield from _other_gateway(view, now)
    yield from map(id_conflict, _fresh_foreign(view, now))


def _fresh_foreign(view: PlantView, now: float) -> Iterator[ForeignFrame]:
    return (foreign for foreign in view.foreign.values() if now - foreign.at <= FOREIGN_FRESH_S)


def _other_gateway(view: PlantView, now: float) -> Iterator[EssCanError]:
    notice = view.foreign_notice
    if notice is not None and now - notice.at <= FRESH_S and notice.value.phase is not UpgradePhase.NONE:
        yield OtherGateway(
            "another gateway is upgrading this plant",
            why=f"EMS_UpgradeNotice of session {notice.value.session:#06x} in phase {notice.value.phase.name}",
        )


def _presence(
    view: PlantView, config: GatewayConfig, fingerprint: int, now: float, *, trial_is_ours: bool
) -> Iterator[EssCanError]:
    for address in config.expected:
        sample = view.nodes.get(address)
        if sample is None or now - sample.at > FRESH_S:
            yield NodeMissing(f"{address} is not heard", why="no fresh Node_Info", remedy=_MISSING_REMEDY)
            continue
        info = sample.value
        if info.dbc_fingerprint != fingerprint:
            yield DbcMismatch(
                f"{address} runs with another DBC",
                why=f"its fingerprint is {info.dbc_fingerprint:#06x}, ours is {fingerprint:#06x}",
            )
        ours = trial_is_ours and info.image_state is ImageState.TRIAL
        if info.image_state is not ImageState.CONFIRMED and not ours:
            yield NodeUnhealthy(
                f"{address} does not run a confirmed image",
                why=f"its image state is {info.image_state.name}",
                remedy="Wait until it reverted or was confirmed.",
            )
    for address in sorted(set(view.nodes) - set(config.expected)):
        if address.node_type is NodeType.BMU and _fresh(view.nodes[address], now):
            yield NodeMissing(
                f"{address} is heard but not expected",
                why=f"expected are {', '.join(map(str, config.expected))}",
                remedy="Correct the number of racks: all racks of the DC bus must be watched.",
            )


_MISSING_REMEDY = "Check that the node is powered; an upgrade needs every expected node present."


def _dispatch(view: PlantView, now: float) -> Iterator[EssCanError]:
    if view.pcs is not None and _fresh(view.pcs, now) and view.pcs.value.grid_service_active:
        yield DispatchActive("a grid service is active", why="PCS_Status says GridServiceActive")


def _as_found(view: PlantView, config: GatewayConfig, now: float) -> Iterator[EssCanError]:
    """Whether it is clear how the plant is to be left afterwards."""
    if view.connection(config.racks, now - FRESH_S) is Connection.PARTLY:
        yield PartlyConnected(
            "the plant is partly connected", why="some contactors of PCS and racks are closed, others open"
        )
    locked = view.pcs is not None and view.pcs.value.lock_acknowledged
    if locked and config.afterwards is Afterwards.AS_FOUND:
        yield PlantLocked(
            "the PCS is locked by an earlier upgrade that did not end", why="PCS_Status says LockAcknowledged"
        )


def _pcs_health(view: PlantView, now: float) -> Iterator[EssCanError]:
    if view.pcs is None or not _fresh(view.pcs, now):
        yield NodeMissing("the PCS is not heard", why="no fresh, valid PCS_Status", remedy=_MISSING_REMEDY)
        return
    status: PcsStatus = view.pcs.value
    if status.emergency_stop or status.state is PcsState.EMERGENCY_STOP:
        yield EmergencyStop("an emergency stop is active", why="reported by the PCS")
    if status.state in _PCS_FAULT_STATES or status.fault_code:
        yield PcsFault("the PCS is not healthy", why=f"state {status.state.name}, fault code {status.fault_code}")
    if status.dc_current_a is None:
        yield PcsFault("the PCS does not know its DC current", why="DcCurrent is invalid")


def _rack_band(rack: int, view: RackView, limits: PolicyLimits, now: float) -> Iterator[EssCanError]:
    """What speaks against programming its BMU."""
    if view.state is None or view.cells is None or _stale(view, now):
        return
    name, state = f"rack {rack}", view.state.value
    if state.soc_percent is None or state.aux_voltage_v is None:
        yield BmsFault(f"{name} does not know its state", why="state of charge or auxiliary voltage is invalid")
        return
    if not limits.soc_min_percent <= state.soc_percent <= limits.soc_max_percent:
        yield SocOutOfBand(
            f"{name} is at {state.soc_percent:.1f} % state of charge",
            why=f"allowed is {limits.soc_min_percent:g} to {limits.soc_max_percent:g} %",
        )
    if state.aux_voltage_v < limits.aux_voltage_min_v:
        yield AuxSupplyLow(
            f"{name} has {state.aux_voltage_v:.1f} V auxiliary supply", why=f"at least {limits.aux_voltage_min_v:g} V"
        )
    yield from _cells(name, view.cells.value, limits)


def _stale(view: RackView, now: float) -> list[str]:
    """Names of the messages that are missing or too old."""
    samples: tuple[tuple[str, Sample[Message] | None], ...] = (
        ("BMS_HvStatus", view.hv),
        ("BMS_State", view.state),
        ("BMS_Cells", view.cells),
        ("BMS_Alarms", view.alarms),
    )
    return [name for name, sample in samples if not _fresh(sample, now)]


def _rack_safety(rack: int, view: RackView, now: float, *, closing: bool = False) -> Iterator[EssCanError]:
    """What speaks against any change to the plant, starting and reconnecting alike."""
    name, stale = f"rack {rack}", _stale(view, now)
    if stale or view.alarms is None or view.hv is None:
        yield NodeMissing(f"{name} is not heard completely", why=f"no fresh {', '.join(stale)}", remedy=_MISSING_REMEDY)
        return
    alarms = view.alarms.value
    yield from _alarms(name, replace(alarms, internal_fault=False) if closing else alarms)
    if view.hv.value.emergency_stop or not view.hv.value.hvil_closed:
        yield EmergencyStop(f"{name} has an open safety loop", why="emergency stop or HVIL in BMS_HvStatus")
    if view.hv.value.weld_plus or view.hv.value.weld_minus:
        yield ContactorWelded(f"{name} reports a welded contactor", why="weld flag in BMS_HvStatus")


def _alarms(name: str, alarms: BmsAlarms) -> Iterator[EssCanError]:
    active = [field for field in alarms.__dataclass_fields__ if getattr(alarms, field)]
    if not active:
        return
    listed = ", ".join(active)
    if any(alarm in active for alarm in _STOP_ALARMS):
        yield EmergencyStop(f"{name} reports an emergency", why=listed)
    elif any(alarm in active for alarm in _CONTACTOR_ALARMS):
        yield ContactorWelded(f"{name} reports a welded contactor", why=listed)
    else:
        yield BmsFault(f"{name} has active alarms", why=listed)


def _cells(name: str, cells: BmsCellSummary, limits: PolicyLimits) -> Iterator[EssCanError]:
    low, high = cells.cell_voltage_min_v, cells.cell_voltage_max_v
    band = f"allowed is {limits.cell_voltage_min_v:g} to {limits.cell_voltage_max_v:g} V"
    if low is None or high is None:
        yield CellVoltageOutOfBand(f"{name} does not know its cell voltages", why="the signal is invalid")
    elif low < limits.cell_voltage_min_v or high > limits.cell_voltage_max_v:
        yield CellVoltageOutOfBand(f"{name} has cells from {low:.3f} to {high:.3f} V", why=band)
    cold, hot = cells.cell_temperature_min_degc, cells.cell_temperature_max_degc
    band = f"allowed is {limits.cell_temperature_min_degc:g} to {limits.cell_temperature_max_degc:g} degC"
    if cold is None or hot is None:
        yield CellTemperatureOutOfBand(f"{name} does not know its cell temperatures", why="the signal is invalid")
    elif cold < limits.cell_temperature_min_degc or hot > limits.cell_temperature_max_degc:
        yield CellTemperatureOutOfBand(f"{name} has cells from {cold:g} to {hot:g} degC", why=band)


def _currents_agree(view: PlantView, config: GatewayConfig, now: float) -> Iterator[EssCanError]:
    """The PCS's current must be the sum of the racks' (a stuck sensor would let contactors open under load)."""
    if view.pcs is None or not _fresh(view.pcs, now) or view.pcs.value.dc_current_a is None:
        return
    currents = [hv.value.current_a for rack in config.racks if (hv := view.rack(rack).hv) is not None]
    known = [current for current in currents if current is not None]
    if len(known) != len(config.racks):
        if len(currents) == len(config.racks):
            yield CurrentMismatch("a rack does not know its current", why="Current is invalid in BMS_HvStatus")
        return
    difference = abs(view.pcs.value.dc_current_a - sum(known))
    if difference > config.policy.current_mismatch_a:
        yield CurrentMismatch(
            f"PCS and racks disagree by {difference:.1f} A",
            why=f"PCS {view.pcs.value.dc_current_a:.1f} A, racks {sum(known):.1f} A",
        )


def targets_of_type(config: GatewayConfig, node_type: NodeType) -> tuple[NodeAddress, ...]:
    """The expected nodes of one type, in order."""
    return tuple(sorted(address for address in config.expected if address.node_type is node_type))


def reconnect_refusal(
    view: PlantView,
    config: GatewayConfig,
    now: float,
    since: float = -inf,
    armed: Collection[NodeAddress] = (),
    *,
    closing: bool = False,
) -> EssCanError | None:
    """Why high voltage must not be closed now, by what every node said at `since` or later; None if it may.

    Never with an unconfirmed image, an incomplete set or stale status, never with racks on different versions, never
    while nodes may hold an `armed` trial, which their next restart would boot, and never on an emergency, a fault, a
    welded contactor or an active alarm.  While racks are `closing` one that says that a contactor of its does not close
    is tolerated: it tries again by itself, a limited number of times.
    """
    for address in config.expected:
        sample = view.nodes.get(address)
        if sample is None or sample.at < since or not _fresh(sample, now):
            return NodeMissing(f"{address} is not heard", why="its state is unknown", remedy=_MISSING_REMEDY)
        if sample.value.image_state is not ImageState.CONFIRMED:
            return NodeUnhealthy(f"{address} runs an unconfirmed image", why=sample.value.image_state.name)
    if armed:
        return TrialBootFailed(
            f"{', '.join(map(str, armed))}: may still boot another image at the next restart",
            why="it may have been activated, and nothing has proved since that this was given up",
        )
    for rack in config.racks:
        refusal = next(_rack_safety(rack, view.rack(rack), now, closing=closing), None)
        if refusal is not None:
            return refusal
    refusal = next(_masters(view, now), None) or next(_pcs_health(view, now), None)
    if refusal is not None:
        return refusal
    versions = {view.nodes[a].value.version for a in config.expected if a.node_type is NodeType.BMU}
    if len(versions) > 1:
        return NodeUnhealthy("racks run different versions", why=", ".join(sorted(map(str, versions))))
    return None
