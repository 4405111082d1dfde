"""Guards of a node's own proof that high voltage is off: each condition by itself, with every other one met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from typing import Final
from unittest.mock import ANY

import ess_can.sim.hv_evidence as hv_evidence
from ess_can.bus.clock import now
from ess_can.signals.messages import BmsHvStatus, ContactorState, PcsState, PcsStatus
from ess_can.sim.comm_gateway import CommGatewayApplication
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.hv_control import RackControl
from ess_can.sim.hv_evidence import EvidenceSpec, PcsEvidence, RackEvidence
from ess_can.sim.latches import Latch
from ess_can.sim.rack import RackHardware, SensorFault
from tests.campaign.attacks import ANSWERS, attack
from tests.campaign.disturbances import Disturb, corrupt, lose_of_rack, pretend, proof_guard
from tests.campaign.guard import Guard, Off, Value, around, both, by, require, script
from tests.scenario.support import COMM_GATEWAY, Scene
from tests.scenario.test_direct_client import Attacker, isolate

_OFF: Final = EvidenceSpec()


def _on_rack(act: Callable[[RackHardware], None], number: int = 1) -> Disturb:
    return lambda scene: act(scene.plant.hardware[number - 1])


def _current(amperes: float | None) -> Callable[[RackHardware], None]:
    def stick(hardware: RackHardware) -> None:
        hardware.current_sensor = SensorFault(amperes)

    return stick


def _good_current(hardware: RackHardware) -> None:
    hardware.current_sensor = None


def _blind_link(hardware: RackHardware) -> None:
    hardware.link_sensor = SensorFault(None)


def _frozen_link(hardware: RackHardware) -> None:
    hardware.freeze_link_sensor()
    hardware.circuit.external_source_v = 300.0


def _charged_link(hardware: RackHardware) -> None:
    hardware.circuit.external_source_v = 100.0


def _welded(hardware: RackHardware) -> None:
    """Its main contacts touch, and its feedback says that they do not."""
    contactor = hardware.rack.main_plus
    contactor.feedback_fault, contactor.fault, contactor.closed = ContactorState.OPEN, ContactorFault.WELDED, True


def _moving_feedback(hardware: RackHardware) -> None:
    hardware.rack.precharge.feedback_fault = ContactorState.MOVING


def _energised(hardware: RackHardware) -> None:
    precharge = hardware.rack.precharge
    precharge.fault = ContactorFault.STUCK_OPEN
    precharge.drive(True, now())


def _released(hardware: RackHardware) -> None:
    hardware.rack.precharge.drive(False, now())


def _latched(scene: Scene) -> None:
    scene.plant.racks[0]._latch(Latch.INSULATION)


def _stuck_task(scene: Scene) -> None:
    scene.plant.racks[0].hung = True


# --- how they are switched off ------------------------------------------------------------------------------------


def _spec(evidence: type[RackEvidence | PcsEvidence], **values: float) -> Off:
    """The evidence is judged with these limits."""

    def make(original: Callable[..., object]) -> object:
        def init(own: object, *args: object) -> None:
            *before, spec = args
            assert isinstance(spec, EvidenceSpec)
            original(own, *before, replace(spec, **values))

        return init

    return around(evidence, "__init__", make)


def _without_limit(limit: float) -> Off:
    return around(hv_evidence, "_below", lambda was: lambda value, most: most == limit or was(value, most))


_NONE_IS_BELOW: Final = around(hv_evidence, "_below", lambda was: lambda value, most: value is None or was(value, most))
_NO_LAST_LOOK: Final = by(RackEvidence, "is_contradicted", lambda _: False)
_POLES_OPEN: Final = by(RackEvidence, "_check_poles", lambda *_: True)


def _coils_unseen(original: Callable[..., object]) -> object:
    def update(own: RackEvidence, weld_latched: bool, now: float) -> None:
        contactors = own._hardware.rack.contactors
        coils = [contactor.coil for contactor in contactors]
        for contactor in contactors:
            contactor.coil = contactor.coil and contactor.closed
        original(own, weld_latched, now)
        for contactor, coil in zip(contactors, coils, strict=True):
            contactor.coil = coil

    return update


def _without_latches(control: RackControl, now: float) -> bool:
    return control.hv_off(now) and not control._own.is_contradicted() and control._pcs.held_open(now)


def _pcs_blind(name: str, bad: Value, good: Value) -> Off:
    def make(original: Callable[..., object]) -> object:
        def receive(own: PcsEvidence, status: PcsStatus, now: float) -> None:
            fields = {name: good}
            original(own, replace(status, **fields) if getattr(status, name) == bad else status, now)  # type: ignore[arg-type]

        return receive

    return around(PcsEvidence, "receive", make)


def _any_rack(gateway: CommGatewayApplication, now: float) -> bool:
    return gateway._pcs.held_open(now) and any(now - at <= 0.25 for at in gateway._hv_off_at.values())


def _heard_for_ever(gateway: CommGatewayApplication, now: float) -> bool:
    return gateway._pcs.held_open(now) and all(rack in gateway._hv_off_at for rack in gateway._racks)


# --- the rack's own sensors -----------------------------------------------------------------------------------

_UPDATE: Final = "hv_evidence:RackEvidence.update"


def _own() -> Iterator[Guard]:
    yield proof_guard("link voltage", _UPDATE, _without_limit(60.0), _on_rack(_charged_link))
    yield proof_guard("current", _UPDATE, _without_limit(1.0), _on_rack(_current(5.0)))
    yield proof_guard("current invalid", "hv_evidence:_below", _NONE_IS_BELOW, _on_rack(_current(None)))
    yield proof_guard(
        "link voltage invalid",
        "hv_evidence:_below",
        both(_NONE_IS_BELOW, _POLES_OPEN),
        _on_rack(_blind_link),
        behind="the poles' voltages",
    )
    yield proof_guard(
        "feedbacks",
        _UPDATE,
        both(by(hv_evidence, "_ALL_OPEN", ANY), _NO_LAST_LOOK),
        _on_rack(_moving_feedback),
        behind="the last look",
    )
    yield proof_guard(
        "nothing ordered closed", _UPDATE, around(RackEvidence, "update", _coils_unseen), _on_rack(_energised)
    )
    yield proof_guard(
        "voltages add up",
        "hv_evidence:RackEvidence._believable_link_voltage",
        by(RackEvidence, "_believable_link_voltage", lambda _own, readings: readings.link_voltage_v),
        _on_rack(_frozen_link),
    )
    yield proof_guard(
        "poles hold voltage",
        "hv_evidence:RackEvidence._check_poles",
        _POLES_OPEN,
        _on_rack(_welded),
    )
    yield proof_guard(
        "settled",
        _UPDATE,
        _spec(RackEvidence, off_settling_s=0.0),
        _on_rack(_current(5.0)),
        heal=_on_rack(_good_current),
    )
    yield proof_guard(
        "open for long enough to show a weld",
        _UPDATE,
        _spec(RackEvidence, contactor_timeout_s=0.0),
        _on_rack(_energised),
        for_s=0.1,
        heal=_on_rack(_released),
        then_s=0.35,
    )
    yield proof_guard(
        "looked at lately",
        "hv_evidence:RackEvidence.hv_off_since",
        _spec(RackEvidence, step_age_s=inf),
        _stuck_task,
    )
    yield proof_guard(
        "no emergency latched",
        "hv_control:RackControl.programming_allowed",
        by(RackControl, "programming_allowed", _without_latches),
        _latched,
    )


# --- what the PCS says ----------------------------------------------------------------------------------------

_RECEIVE: Final = "hv_evidence:PcsEvidence.receive"


def _pcs() -> Iterator[Guard]:
    rows: tuple[tuple[str, str, Value, Value], ...] = (
        ("PCS not in standby", "state", PcsState.CLOSING, PcsState.STANDBY),
        ("PCS contactors closed", "contactors", ContactorState.CLOSED, ContactorState.OPEN),
        ("PCS contactors moving", "contactors", ContactorState.MOVING, ContactorState.OPEN),
        ("PCS does not acknowledge the lock", "lock_acknowledged", False, True),
        ("PCS in emergency stop", "emergency_stop", True, False),
        ("PCS current flows", "dc_current_a", 2.0, 0.0),
        ("PCS current invalid", "dc_current_a", None, 0.0),
    )
    for what, name, bad, good in rows:
        yield proof_guard(what, _RECEIVE, _pcs_blind(name, bad, good), pretend(PcsStatus, name, bad))
    yield proof_guard(
        "PCS heard",
        "hv_evidence:PcsEvidence.fresh",
        _spec(PcsEvidence, pcs_status_age_s=inf),
        lambda scene: scene.lose(PcsStatus),
    )
    yield proof_guard(
        "PCS invalid frame",
        "hv_evidence:PcsEvidence.reject",
        by(PcsEvidence, "reject", lambda _: None),
        corrupt(PcsStatus),
        for_s=0.12,
    )
    yield proof_guard(
        "PCS settled",
        "hv_evidence:PcsEvidence.held_open",
        _spec(PcsEvidence, off_settling_s=0.0),
        pretend(PcsStatus, "lock_acknowledged", False),
        heal=lambda scene: scene.heal(),
    )


# --- the comm gateway, which has no sensors --------------------------------------------------------------------

_LISTENS: Final = "comm_gateway:CommGatewayApplication.programming_allowed"
_AGREES: Final = by(CommGatewayApplication, "programming_allowed", _any_rack)


def _listener() -> Iterator[Guard]:
    gateway = COMM_GATEWAY
    yield proof_guard("every rack", _LISTENS, _AGREES, _on_rack(_current(5.0), 2), node=gateway, racks=2)
    yield proof_guard(
        "every rack heard",
        _LISTENS,
        by(CommGatewayApplication, "programming_allowed", _heard_for_ever),
        lose_of_rack(2),
        node=gateway,
        racks=2,
    )
    yield proof_guard(
        "invalid frame of a rack",
        "comm_gateway:CommGatewayApplication._on_rejected",
        by(CommGatewayApplication, "_on_rejected", lambda *_: None),
        corrupt(BmsHvStatus),
        node=gateway,
        for_s=0.12,
    )
    yield proof_guard(
        "what the PCS says",
        _LISTENS,
        by(PcsEvidence, "held_open", lambda *_: True),
        pretend(PcsStatus, "lock_acknowledged", False),
        node=gateway,
    )


# --- without a bus ----------------------------------------------------------------------------------------------


def _one_word() -> None:
    """One status of a PCS, and nothing more for a settling time."""
    own = PcsEvidence(_OFF)
    at_rest = PcsStatus(
        state=PcsState.STANDBY,
        contactors=ContactorState.OPEN,
        lock_acknowledged=True,
        remote_control=True,
        grid_service_active=False,
        emergency_stop=False,
        heartbeat_lost=False,
        fault_code=0,
        dc_current_a=0.0,
    )
    own.receive(at_rest, 100.0)
    require(not own.held_open(100.21), "one word proves a settling time")


def _until_now(own: PcsEvidence, now: float) -> bool:
    return own.fresh(now) is not None and own._held_open.for_at_least(own._spec.off_settling_s, now)


async def _between_steps(attacker: Attacker, scene: Scene) -> None:
    await isolate(scene)
    control, hardware = scene.plant.racks[0], scene.plant.hardware[0]
    require(control.programming_allowed(now()), "the node refuses when nothing speaks against it")
    hardware.current_sensor = SensorFault(5.0)
    require(not control.programming_allowed(now()), f"{ANSWERS} what it could see")


GUARDS: Final = (
    *_own(),
    *_pcs(),
    *_listener(),
    Guard(
        "bmu's proof, the PCS's own word for all of the time",
        "sim.hv_evidence:PcsEvidence.held_open",
        "taking one word of the PCS, and silence after it, for a PCS that is held open",
        by(PcsEvidence, "held_open", _until_now),
        script("a PCS that says once that it is at rest", _one_word),
        "one word proves a settling time",
    ),
    Guard(
        "bmu's proof, the last look",
        "sim.hv_evidence:RackEvidence.is_contradicted",
        "an operation that begins between two looks at the sensors",
        _NO_LAST_LOOK,
        attack("a sensor that speaks up between two steps", _between_steps),
        ANSWERS,
    ),
)
