"""Guards before an upgrade: a plant in which something is wrong is refused, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import ess_can.gateway.plan as plan
import ess_can.gateway.policy as policy
from ess_can.campaign.moments import Moment
from ess_can.campaign.plants import SMALLEST, Site
from ess_can.campaign.station import Fault, Station
from ess_can.errors import EssCanError
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.node_client import NodeIdentity
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeAddress, NodeType, Version
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
from ess_can.trust.compatibility import Compatibility
from ess_can.uds.target import Did
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


def _one_rack(site: Site) -> GatewayConfig:
    return GatewayConfig((BMU1, COMM_GATEWAY))


# --- who is to be upgraded, and with what -------------------------------------------------------------------


def altered(did: Did, value: bytes, moment: str = "0", node: NodeAddress = COMM_GATEWAY) -> Act:
    """A node answers with another value of an identifier, of the same length."""

    def do(station: Station) -> None:
        head = did.to_bytes(2, "big")

        def alter(answer: bytes) -> bytes:
            return answer[:3] + value + answer[3 + len(value) :] if answer[:3] == b"\x62" + head else answer

        station.plant.nodes[node].alter_answer = alter

    return Act(f"{node} answers {did.name} with {value[:4].hex()}", moment, do)


def _blind_identity(name: str) -> Off:
    def make(original: Callable[..., object]) -> object:
        def require(identity: NodeIdentity, **wanted: object) -> None:
            original(identity, **{**wanted, name: getattr(identity, name)})

        return require

    return around(NodeIdentity, "require", make)


def _serials(site: Site) -> GatewayConfig:
    return replace(site.config(), serials=((BMU1, "BMU-000001"),))


def _no_dbc(original: Callable[..., object]) -> object:
    async def identify(master: object, address: NodeAddress) -> object:
        from ess_can.gateway.station_master import StationMaster

        assert isinstance(master, StationMaster)
        return await master.client(address).identify()

    return identify


def _only_these(*names: str) -> Off:
    """The gateway's plan takes an image for compatible for which these are the reason."""

    def make(original: Callable[..., object]) -> object:
        def check(*args: object) -> object:
            try:
                return original(*args)
            except EssCanError as error:
                if error.name in names:
                    return Compatibility.NEWER
                raise

        return check

    return around(plan, "check_compatibility", make)


_OLDER: Final = Course((), "REFUSED VERSION_DOWNGRADE", version=Version(0, 9, 0))

IDENTITY: Final = (
    Guard(
        "identity, node type",
        "gateway.node_client:NodeIdentity.require",
        "programming a node of another type that answers in its place",
        _blind_identity("node_type"),
        upgrade(altered(Did.NODE_TYPE, b"\x03", node=BMU1), ends="REFUSED WRONG_TARGET"),
        "not REFUSED WRONG_TARGET",
    ),
    Guard(
        "identity, hardware",
        "gateway.node_client:NodeIdentity.require",
        "programming a node that is not the one that is heard",
        _blind_identity("hardware_id"),
        upgrade(altered(Did.HARDWARE_NUMBER, b"\x77", node=BMU1), ends="REFUSED WRONG_TARGET"),
        "not REFUSED WRONG_TARGET",
    ),
    Guard(
        "identity, serial number",
        "gateway.node_client:NodeIdentity.require",
        "programming at another site, or another board than the one checked",
        _blind_identity("serial"),
        course(Course(("node:bmu1:impostor@0~60",), "REFUSED WRONG_TARGET", config=_serials)),
        "not REFUSED WRONG_TARGET",
    ),
    Guard(
        "identity, DBC",
        "gateway.plan:identify",
        "programming a node whose signals have another layout",
        around(plan, "identify", _no_dbc),
        upgrade(altered(Did.DBC_FINGERPRINT, bytes(32), node=BMU1), ends="REFUSED DBC_MISMATCH"),
        "not REFUSED DBC_MISMATCH",
    ),
    Guard(
        "release, no downgrade",
        "gateway.plan:make_plan",
        "bringing back an older version with its known defects",
        _only_these("VERSION_DOWNGRADE"),
        course(_OLDER, "an upgrade to an older version"),
        "not REFUSED VERSION_DOWNGRADE",
    ),
    Guard(
        "release, security counter",
        "gateway.plan:make_plan",
        "bringing back what is less secure",
        _only_these("SECURITY_DOWNGRADE"),
        upgrade(altered(Did.SECURITY_COUNTER, bytes((0, 0, 1, 0)), node=BMU1), ends="REFUSED SECURITY_DOWNGRADE"),
        "not REFUSED SECURITY_DOWNGRADE",
    ),
    Guard(
        "release, hardware",
        "gateway.plan:make_plan",
        "bringing firmware of another board",
        _only_these("WRONG_HARDWARE"),
        upgrade(
            altered(Did.HARDWARE_NUMBER, b"\x77", node=BMU1),
            says("other hardware", NodeInfo, "0", BMU1, hardware_id=0x77),
            ends="REFUSED WRONG_HARDWARE",
        ),
        "not REFUSED WRONG_HARDWARE",
    ),
)

GUARDS: Final = (*_guards(), *IDENTITY)
