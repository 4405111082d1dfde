"""Guards before an upgrade: a plant in which something is wrong is refused, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import ess_can.gateway.plan as plan
import ess_can.gateway.policy as policy
import ess_can.gateway.run as run
from ess_can.campaign.moments import Moment
from ess_can.campaign.plants import SMALLEST, Site
from ess_can.campaign.station import Fault, Station
from ess_can.errors import EssCanError
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    BmsHvStatus,
    BmsState,
    ContactorState,
    ImageState,
    Message,
    NodeInfo,
    PcsStatus,
)
from ess_can.sim.wire import WireFault
from tests.campaign.guard import Act, Course, Guard, Off, around, both, by, course, says, upgrade

BMU1: Final = NodeAddress(NodeType.BMU, 1)
COMM_GATEWAY: Final = NodeAddress(NodeType.COMM_GATEWAY)
TWO_RACKS: Final = replace(SMALLEST, plant=replace(SMALLEST.plant, racks=2))


def without(*names: str) -> Off:
    """The policy does not know these reasons."""

    def make(original: Callable[..., object]) -> object:
        def refusals(*args: object, **start: object) -> list[EssCanError]:
            found = original(*args, **start)
            assert isinstance(found, list)
            return [each for each in found if each.name not in names]

        return refusals

    def off(patch: object) -> None:
        around(policy, "refusals", make)(patch)  # type: ignore[arg-type]
        around(plan, "refusals", make)(patch)  # type: ignore[arg-type]

    return off


def lost(kind: type[Message], name: str, moment: str = "0") -> Act:
    """Nobody receives a message of rack 1, or of the PCS."""

    def do(station: Station) -> None:
        can_id = station.plant.codec.routes(kind)[0].can_id
        remove = station.on_transmission(lambda _, frame: WireFault.LOSE if frame.can_id == can_id else None)
        lasts_s = Moment.parse(moment).lasts_s
        if lasts_s is not None:
            station.later(lasts_s, remove)

    return Act(f"{name} is lost", moment, do)


def _refused(what: str, prevents: str, error: str, *faults: str | Fault, function: str, seen: str = "") -> Guard:
    return Guard(
        f"policy, {what}",
        f"gateway.policy:{function}",
        prevents,
        without(error),
        upgrade(*faults, ends=f"REFUSED {error}"),
        seen or f"not REFUSED {error}",
    )


def _guards() -> Iterator[Guard]:
    yield _refused(
        "grid service",
        "an upgrade while the grid is served",
        "DISPATCH_ACTIVE",
        "plant:grid-service@0",
        function="_dispatch",
    )
    yield _refused(
        "state of charge",
        "an upgrade of a rack that may run empty or full meanwhile",
        "SOC_OUT_OF_BAND",
        "plant:soc-low@0",
        function="_rack_band",
    )
    yield _refused(
        "auxiliary supply",
        "programming with a supply that may fail",
        "AUX_SUPPLY_LOW",
        "plant:aux-low:1@0",
        function="_rack_band",
    )
    yield _refused(
        "state unknown",
        "programming a rack that does not know its state",
        "BMS_FAULT",
        says("state of charge invalid", BmsState, "0", soc_percent=None),
        function="_rack_band",
    )
    yield _refused(
        "cell voltage",
        "an upgrade near a cell's limit",
        "CELL_VOLTAGE_OUT_OF_BAND",
        "plant:cell-high:1@0",
        function="_cells",
    )
    yield _refused(
        "cell voltages unknown",
        "an upgrade of cells that nobody sees",
        "CELL_VOLTAGE_OUT_OF_BAND",
        says("cell voltage invalid", BmsCellSummary, "0", cell_voltage_min_v=None),
        function="_cells (invalid)",
    )
    yield _refused(
        "cell temperature",
        "an upgrade of cells that are too hot or too cold",
        "CELL_TEMPERATURE_OUT_OF_BAND",
        "plant:cell-hot:1@0",
        function="_cells",
    )
    yield _refused(
        "cell temperatures unknown",
        "an upgrade of cells that nobody feels",
        "CELL_TEMPERATURE_OUT_OF_BAND",
        says("cell temperature invalid", BmsCellSummary, "0", cell_temperature_max_degc=None),
        function="_cells (invalid)",
    )
    yield _refused(
        "current of a rack unknown",
        "opening without knowing what a rack carries",
        "CURRENT_MISMATCH",
        says("rack current invalid", BmsHvStatus, "0", current_a=None),
        function="_currents_agree (invalid)",
    )
    yield _refused(
        "active alarm",
        "an upgrade of a rack that reports a fault",
        "BMS_FAULT",
        says("overcurrent", BmsAlarms, "0", overcurrent=True),
        function="_alarms",
    )
    yield _refused(
        "fire",
        "an upgrade in an emergency",
        "EMERGENCY_STOP",
        says("fire", BmsAlarms, "0", fire=True),
        function="_alarms",
    )
    yield _refused(
        "safety loop of a rack",
        "an upgrade while the interlock loop is open",
        "EMERGENCY_STOP",
        says("HVIL open", BmsHvStatus, "0", hvil_closed=False),
        function="_rack_safety",
    )
    yield _refused(
        "emergency stop of the PCS",
        "an upgrade in an emergency",
        "EMERGENCY_STOP",
        says("emergency stop", PcsStatus, "0", emergency_stop=True),
        function="_pcs_health",
    )
    yield _refused(
        "weld",
        "work on a plant that cannot be isolated",
        "CONTACTOR_WELDED",
        says("weld flag", BmsHvStatus, "0", weld_minus=True),
        function="_rack_safety",
    )
    yield _refused(
        "PCS fault",
        "an upgrade with a PCS that may not obey",
        "PCS_FAULT",
        says("fault code", PcsStatus, "0", fault_code=4),
        function="_pcs_health",
    )
    yield _refused(
        "PCS current unknown",
        "an upgrade with a PCS that does not know its current",
        "PCS_FAULT",
        says("current invalid", PcsStatus, "0", dc_current_a=None),
        function="_pcs_health (invalid)",
    )
    yield _refused(
        "PCS heard",
        "an upgrade without anybody to bring the current to zero",
        "NODE_MISSING",
        lost(PcsStatus, "PCS_Status"),
        function="_pcs_health (silent)",
    )
    yield _refused(
        "currents agree",
        "opening on the word of a sensor that lies",
        "CURRENT_MISMATCH",
        "plant:pcs-current-stuck@0",
        function="_currents_agree",
    )
    yield _refused(
        "node heard",
        "taking a silent node for an absent one",
        "NODE_MISSING",
        "node:comm_gateway:power@0~30",
        function="_presence",
    )
    yield _refused(
        "rack heard completely",
        "an upgrade of a rack of which something is not known",
        "NODE_MISSING",
        lost(BmsAlarms, "BMS_Alarms"),
        function="_rack_safety (silent)",
    )
    yield _refused(
        "confirmed image",
        "an upgrade on top of another one's trial",
        "NODE_UNHEALTHY",
        says("image on trial", NodeInfo, "0", COMM_GATEWAY, image_state=ImageState.TRIAL),
        function="_presence (standing)",
    )
    yield _refused(
        "DBC fingerprint",
        "reading signals by another layout than they are sent with",
        "DBC_MISMATCH",
        says("another fingerprint", NodeInfo, "0", COMM_GATEWAY, dbc_fingerprint=1),
        function="_presence (DBC)",
    )
    yield _refused(
        "partly connected",
        "putting a plant back as nobody can tell it was",
        "PARTLY_CONNECTED",
        says("one contactor open", BmsHvStatus, "0", main_plus=ContactorState.OPEN),
        function="_as_found",
    )
    yield _refused(
        "lock of an earlier upgrade",
        "taking what an upgrade left behind for how the plant is used",
        "PLANT_LOCKED",
        says("locked", PcsStatus, "0", lock_acknowledged=True),
        function="_as_found (lock)",
    )
    yield _refused(
        "another gateway",
        "two gateways at one plant",
        "OTHER_GATEWAY",
        "bus:second-gateway@0",
        function="_other_gateway",
    )
    yield Guard(
        "policy, once more before the first order",
        "gateway.run:_Attempt._check",
        "opening on what was true before the nodes were asked",
        around(run, "require_allowed", _asked_once),
        upgrade("node:bmu1:slow=0.1@0~5", "plant:grid-service@1.1", ends="REFUSED DISPATCH_ACTIVE"),
        "not REFUSED DISPATCH_ACTIVE",
    )
    yield Guard(
        "policy, foreign orders",
        "gateway.policy:_masters",
        "speaking where somebody else speaks with our identifiers",
        both(without("ID_CONFLICT"), by(PlantWatch, "_on_foreign", lambda *_: None)),
        upgrade("bus:foreign@0", ends="REFUSED ID_CONFLICT"),
        "not REFUSED ID_CONFLICT",
        "the watch",
    )
    yield Guard(
        "policy, unexpected rack",
        "gateway.policy:_presence (not expected)",
        "programming while a rack is connected that nobody watches",
        without("NODE_MISSING"),
        course(
            Course((), "REFUSED NODE_MISSING", TWO_RACKS, config=_one_rack),
            "an upgrade of two racks by a gateway that knows one",
        ),
        "not REFUSED NODE_MISSING",
    )
    yield Guard(
        "policy, bus load",
        "gateway.policy:bus_refusal",
        "an upgrade on a bus on which orders and evidence would be late",
        around(plan, "bus_refusal", lambda _: lambda *_: None),
        upgrade("bus:babbler=83@0", ends="REFUSED BUS_OVERLOADED"),
        "not REFUSED BUS_OVERLOADED",
    )


def _asked_once(original: Callable[..., object]) -> object:
    asked: list[object] = []

    def require(master: object, start: object) -> None:
        if master not in asked:
            asked.append(master)
            original(master, start)

    return require


def _one_rack(site: Site) -> GatewayConfig:
    return GatewayConfig((BMU1, COMM_GATEWAY))


GUARDS: Final = tuple(_guards())
