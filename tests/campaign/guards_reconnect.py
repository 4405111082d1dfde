"""Guards of reconnecting: what forbids it, for how long an order to close stands, and how the plant is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import ess_can.gateway.settle as settle
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.plants import NEW, SMALLEST
from ess_can.campaign.releases import image, make_plant
from ess_can.errors import EssCanError
from ess_can.gateway.orders import Orders
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    BmsHvStatus,
    ContactorState,
    ImageState,
    NodeInfo,
    PcsCommandCode,
    PcsStatus,
)
from ess_can.sim.boot_records import BootRecord, ImageId
from ess_can.sim.flash_cells import UnitState
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.uds.target import Did
from tests.campaign.guard import Course, Guard, Off, around, both, by, course, says, upgrade
from tests.campaign.guards_identity import altered
from tests.campaign.guards_policy import COMM_GATEWAY, TWO_RACKS
from tests.campaign.guards_proof import LONG, MAY_RETURN, STAYS_OFF

RULES: Final = "the rules of reconnecting"


def may_close(*names: str) -> Off:
    """What is refused by these names is no reason against closing."""

    def make(original: Callable[..., object]) -> object:
        def refusal(*args: object, closing: bool = False) -> object:
            found = original(*args, closing=closing)
            return None if isinstance(found, EssCanError) and found.name in names else found

        return refusal

    return around(settle, "reconnect_refusal", make)


def mixed(spec: PlantSpec) -> Plant:
    """Rack 2 runs the new version already."""
    plant = make_plant(spec)
    node = plant.nodes[NodeAddress(NodeType.BMU, 2)]
    content = image(NodeType.BMU, NEW, SMALLEST.payload_bytes)
    cells, geometry = node.flash.cells.banks[1], node.flash.geometry
    start, unit = geometry.slot_offset, geometry.unit_size
    padded = content + b"\xff" * (-len(content) % unit)
    cells.content[start : start + len(padded)] = padded
    cells.states[start // unit : (start + len(padded)) // unit] = bytes([UnitState.PROGRAMMED]) * (len(padded) // unit)
    cells.end()
    first = node.bootloader.record.confirmed[0]
    node.records.boot.store(BootRecord(1, (first, ImageId.of(content)), security_counter=NEW.minor + 1))
    return plant


# --- an order to close is a lease ------------------------------------------------------------------------------


def _for_good(original: Callable[..., object]) -> object:
    def give(orders: Orders, command: PcsCommandCode, _refusal: object = None) -> None:
        original(orders, command)

    return give


LEASE: Final = (
    Guard(
        "close, withdrawn when a node falls silent",
        "gateway.orders:Orders._send_command",
        "a rack that tries again to close, without a node that is gone by then",
        around(Orders, "give", _for_good),
        upgrade(
            "plant:precharge-fails:1@RECONNECT+0~2",
            "node:comm_gateway:power@RECONNECT+0.3~60",
            ends="HELD_OPEN & not ordered any more: comm_gateway is not heard",
        ),
        Invariant.COMPLETE_SET,
    ),
    Guard(
        "close, withdrawn when the PCS restarts",
        "gateway.orders:Orders._send_command",
        "closing on a PCS that is not what it was when this was decided",
        around(Orders, "give", _for_good),
        upgrade("plant:pcs-restarts@RECONNECT+0.35", ends="HELD_OPEN & not ordered any more: the PCS"),
        "not HELD_OPEN & not ordered any more: the PCS",
    ),
    Guard(
        "close, withdrawn after a silence of our own",
        "gateway.orders:Orders._lapsed",
        "an order to close that is repeated after the plant dropped it, on what was seen before",
        by(Orders, "_lapsed", lambda _: None),
        upgrade("gateway:starved=3@RECONNECT+0.1", ends="HELD_OPEN & the order CLOSE lapsed"),
        "not HELD_OPEN & the order CLOSE lapsed",
    ),
)


# --- how the plant is left ----------------------------------------------------------------------------------------

SETTLE: Final = (
    Guard(
        "reconnect, every node heard",
        "gateway.policy:reconnect_refusal",
        "closing while a node is missing",
        may_close("NODE_MISSING"),
        upgrade("node:comm_gateway:power@TRIAL_BOOT+0.5~60", ends="HELD_OPEN"),
        Invariant.COMPLETE_SET,
    ),
    Guard(
        "reconnect, every image confirmed",
        "gateway.policy:reconnect_refusal",
        "closing with firmware on trial",
        may_close("NODE_UNHEALTHY"),
        upgrade(
            says("on trial", NodeInfo, "TRIAL_BOOT+0.5", COMM_GATEWAY, image_state=ImageState.TRIAL),
            altered(Did.BOOT_STATE, bytes((1, 1)), "TRIAL_BOOT+0.5"),
            ends="HELD_OPEN",
        ),
        Invariant.COMPLETE_SET,
    ),
    Guard(
        "reconnect, racks of one version",
        "gateway.policy:reconnect_refusal",
        "closing racks of mixed versions",
        may_close("NODE_UNHEALTHY"),
        course(
            Course((), "HELD_OPEN", replace(TWO_RACKS, release=(NodeType.COMM_GATEWAY,)), mixed),
            "an upgrade of the comm gateway beside racks of two versions",
        ),
        Invariant.COMPLETE_SET,
    ),
    Guard(
        "reconnect, no alarm",
        "gateway.policy:reconnect_refusal",
        "closing on a fault",
        may_close("BMS_FAULT"),
        upgrade(says("undervoltage", BmsAlarms, "TRIAL_BOOT+1", undervoltage=True), ends="HELD_OPEN"),
        "not HELD_OPEN",
    ),
    Guard(
        "reconnect, PCS healthy",
        "gateway.policy:reconnect_refusal",
        "closing with a PCS that may not obey",
        may_close("PCS_FAULT"),
        upgrade(says("fault code", PcsStatus, "TRIAL_BOOT+1", fault_code=4), ends="HELD_OPEN"),
        "not HELD_OPEN",
    ),
    Guard(
        "never again after signs of high voltage",
        "gateway.settle:_KEEP_OPEN",
        "closing after somebody else closed a contactor",
        both(by(settle, "_KEEP_OPEN", ()), MAY_RETURN),
        upgrade(
            says("main+ closed", BmsHvStatus, "PROGRAM+0.2~2", main_plus=ContactorState.CLOSED),
            ends="HELD_OPEN",
            site=LONG,
        ),
        "not HELD_OPEN",
        STAYS_OFF,
    ),
    Guard(
        "never again after an emergency",
        "gateway.settle:Settlement.settle",
        "closing after an emergency that passed",
        both(by(settle, "_KEEP_OPEN", ()), by(PlantWatch, "on_emergency", lambda *_: None)),
        upgrade(says("fire", BmsAlarms, "PROGRAM+0.2~0.3", fire=True), ends="HELD_OPEN", site=LONG),
        "not HELD_OPEN",
        "the watch",
    ),
)

GUARDS: Final = (*LEASE, *SETTLE)
