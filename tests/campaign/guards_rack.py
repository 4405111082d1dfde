"""Guards of the racks: what keeps them safe when the orders are wrong, or nobody orders any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.signals.messages import ImageState, PcsCommandCode
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.hv_control import RackControl
from ess_can.sim.hv_evidence import RackEvidence
from ess_can.sim.latches import Latch
from ess_can.sim.node import SimulatedNode
from ess_can.sim.plant import PlantSpec
from ess_can.sim.rack import SensorFault
from ess_can.sim.rack_states import CloseRefusal
from ess_can.uds.target import Rid
from tests.campaign.by_hand import HEAVY, SLOW_LINK, TWO, Script, by_hand, unlocked
from tests.campaign.guard import Guard, Off, around, both, by, require, upgrade
from tests.campaign.guards_node_gate import ungated_routine
from tests.campaign.guards_proof import LONG
from tests.unit.campaign.monitor_rig import ONE_RACK, Rig


async def _close_and_look(rig: Rig, why: str, seconds: float = 2.0) -> None:
    of_racks = [contactor for rack in rig.plant.circuit.racks for contactor in rack.contactors]
    closed: list[float] = []
    rig.plant.circuit.on_contactor.append(
        lambda contactor, at, _: closed.append(at) if contactor.closed and contactor in of_racks else None
    )
    rig.command(PcsCommandCode.CLOSE)
    await pause(seconds)
    require(not closed, f"a contactor closes {why}")


async def _silent_while_closing(rig: Rig) -> None:
    await rig.fall_silent_while_closing(0.3)


async def _on_trial(rig: Rig) -> None:
    held = rig.hold_new_image()
    await rig.isolate()
    rig.activate(held)
    rig.node.reset(rig.now)
    await pause(2.0)


async def _trial_closes(rig: Rig) -> None:
    await _on_trial(rig)
    rig.command(PcsCommandCode.UNLOCK)
    await pause(0.3)
    await _close_and_look(rig, "on an image on trial")


async def _trial_lasts(rig: Rig) -> None:
    await _on_trial(rig)
    await pause(65.0)
    require(rig.node.memory.standing is ImageState.CONFIRMED, "a trial lasts for ever")


async def _confirm_under_voltage(rig: Rig) -> None:
    await _on_trial(rig)
    await rig.ask("1003")
    from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
    from ess_can.uds.access import CmacAccess

    serial = bytes.fromhex(await rig.ask("22f18c"))[3:]
    challenge = bytes.fromhex(await rig.ask("2711"))[2:]
    await rig.ask("2712" + CmacAccess(TEST_ONLY_ACCESS_SECRET).answer(challenge, serial).hex())
    rig.plant.circuit.external_source_v = 700.0
    await pause(0.3)
    await rig.ask("3101fd12")


async def _pcs_silent(rig: Rig) -> None:
    await unlocked(rig)
    rig.plant.pcs_node.power_off()
    await pause(0.5)
    await _close_and_look(rig, "without a PCS")


async def _pcs_stopped(rig: Rig) -> None:
    await unlocked(rig)
    rig.plant.pcs.press_emergency_stop(rig.now)
    await pause(0.2)
    await _close_and_look(rig, "on a PCS in emergency stop")


async def _locked(rig: Rig) -> None:
    await rig.isolate()
    await _close_and_look(rig, "on a PCS that is locked")


async def _blind(rig: Rig) -> None:
    await unlocked(rig)
    rig.plant.hardware[0].link_sensor = SensorFault(None)
    await pause(0.1)
    await _close_and_look(rig, "without knowing the link's voltage")


async def _feedback(rig: Rig) -> None:
    from ess_can.signals.messages import ContactorState

    await unlocked(rig)
    rig.plant.circuit.racks[0].precharge.feedback_fault = ContactorState.MOVING
    await pause(0.1)
    await _close_and_look(rig, "although not all are proved open")


async def _apart(rig: Rig) -> None:
    await unlocked(rig)
    rig.plant.circuit.external_source_v = 700.0
    await pause(0.3)
    await _close_and_look(rig, "on a link at another voltage")


async def _again_at_once(rig: Rig) -> None:
    await unlocked(rig)
    rig.plant.circuit.racks[0].precharge.fault = ContactorFault.STUCK_OPEN
    closings: list[float] = []
    rig.plant.circuit.on_contactor.append(lambda contactor, at, _: closings.append(at) if contactor.closed else None)
    rig.command(PcsCommandCode.CLOSE)
    await pause(4.0)
    require(len(closings) == 1, "it precharges again without letting the resistor cool down")


async def _tries(rig: Rig) -> None:
    await unlocked(rig)
    rig.plant.circuit.racks[0].precharge.fault = ContactorFault.STUCK_OPEN
    rig.command(PcsCommandCode.CLOSE)
    await pause(30.0)
    require(Latch.PRECHARGE_FAILED in rig.plant.racks[0].latches, "it precharges again and again")


async def _together(rig: Rig) -> None:
    await unlocked(rig)
    first: dict[int, float] = {}
    circuit = rig.plant.circuit

    def moved(contactor: object, at: float, _current_a: float) -> None:
        for number, rack in enumerate(circuit.racks):
            if contactor in rack.contactors:
                first.setdefault(number, at)

    circuit.on_contactor.append(moved)
    await rig.close()
    await pause(1.0)
    require(abs(first[0] - first[1]) > 0.5, "two racks precharge together")


async def _order_open(rig: Rig) -> None:
    await rig.read_all()
    rig.plant.pcs.faults = replace(rig.plant.pcs.faults, ignores_ramp=True)
    rig.command(PcsCommandCode.OPEN)
    await pause(1.0)
    require(all(not c.broken_a for c in rig.plant.circuit.contactors), "a contactor opens under load")


async def _loop_opens(rig: Rig) -> None:
    rig.plant.hardware[0].hvil_closed = False
    await pause(0.1)
    rack = rig.plant.circuit.racks[0]
    require(not rack.main_plus.closed and not rack.main_minus.closed, "a rack stays closed with its safety loop open")


async def _isolate_and_close(rig: Rig) -> None:
    await rig.isolate()
    await rig.close()


def _closes_anyway(refusal: CloseRefusal) -> Off:
    def make(original: Callable[..., object]) -> object:
        def reason(control: RackControl, now: float) -> object:
            found = original(control, now)
            return None if found is refusal else found

        return reason

    return both(
        around(RackControl, "_reason_against_staying", make), around(RackControl, "_reason_against_closing", make)
    )


def _order_lasts(original: Callable[..., object]) -> object:
    def step(control: RackControl, now: float) -> None:
        control._order_at = now
        original(control, now)

    return step


def _not_stored(control: RackControl, latch: Latch) -> None:
    control._latches |= {latch}


def no_latch(*latches: Latch) -> Off:
    def make(original: Callable[..., object]) -> object:
        def latch(control: RackControl, which: Latch) -> None:
            if which not in latches:
                original(control, which)

        return latch

    return around(RackControl, "_latch", make)


def _refusal(
    what: str, refusal: CloseRefusal, script: Script, spec: PlantSpec = ONE_RACK, seen: str = "a contactor closes"
) -> Guard:
    return Guard(
        f"rack, {what}",
        "sim.hv_control:RackControl._reason_against_closing",
        f"closing although {refusal.value}",
        _closes_anyway(refusal),
        by_hand(
            f"an order to close although {refusal.value}",
            script,
            spec=spec,
            allowed=frozenset(Invariant) - {Invariant.BREAK_CURRENT},
        ),
        seen,
    )


GUARDS: Final = (
    Guard(
        "rack, orders lapse",
        "sim.hv_control:RackControl.step",
        "closing after the orders have fallen silent",
        around(RackControl, "step", _order_lasts),
        by_hand("the orders fall silent while racks close", _silent_while_closing, spec=TWO),
        Invariant.HEARTBEAT,
    ),
    _refusal("held open", CloseRefusal.HELD_OPEN, _trial_closes),
    _refusal("PCS heard", CloseRefusal.PCS_SILENT, _pcs_silent),
    _refusal("PCS not locked", CloseRefusal.PCS_LOCKED, _locked),
    _refusal("PCS at rest", CloseRefusal.PCS_NOT_READY, _pcs_stopped),
    _refusal("sensors valid", CloseRefusal.SENSOR_INVALID, _blind),
    _refusal("contactors proved open", CloseRefusal.CONTACTORS_NOT_OPEN, _feedback),
    _refusal("link at its own voltage", CloseRefusal.VOLTAGES_APART, _apart),
    _refusal("cool-down", CloseRefusal.COOL_DOWN, _again_at_once, seen="it precharges again"),
    _refusal("one after the other", CloseRefusal.STAGGER, _together, TWO, "two racks precharge together"),
    Guard(
        "rack, link precharged",
        "sim.hv_control:RackControl._link_precharged",
        "closing main+ on an empty link",
        by(RackControl, "_link_precharged", lambda _: True),
        by_hand("a plant is closed", _isolate_and_close, spec=SLOW_LINK),
        Invariant.PRECHARGE,
    ),
    Guard(
        "rack, precharge tries",
        "sim.hv_control:RackControl._precharging",
        "burning the precharge resistor",
        no_latch(Latch.PRECHARGE_FAILED),
        by_hand("a precharge that fails for half a minute", _tries),
        "it precharges again and again",
    ),
    Guard(
        "rack, opens near zero only",
        "sim.hv_control:RackControl._current_near_zero",
        "opening by order under load",
        by(RackControl, "_current_near_zero", lambda *_: True),
        by_hand("an order to open under load", _order_open, spec=HEAVY, allowed=frozenset({Invariant.BREAK_CURRENT})),
        "a contactor opens under load",
    ),
    Guard(
        "rack, opens at once",
        "sim.hv_control:RackControl._latch_inputs",
        "a rack that stays closed in an emergency",
        by(RackControl, "_latch_inputs", lambda _: None),
        by_hand("a safety loop opens", _loop_opens),
        "a rack stays closed with its safety loop open",
    ),
    Guard(
        "rack, latches stored",
        "sim.hv_control:RackControl._latch",
        "forgetting a fire with a restart",
        by(RackControl, "_latch", _not_stored),
        upgrade("plant:fire:1@PROGRAM+0.2~0.02", "node:bmu1:reset@HOLD_OPEN+0.01", site=LONG),
        Invariant.LATCHES,
    ),
    Guard(
        "rack, weld seen by voltages",
        "sim.hv_evidence:RackEvidence._check_poles",
        "precharging through a welded contactor whose feedback lies",
        by(RackEvidence, "_check_poles", lambda *_: True),
        upgrade("plant:weld-plus:1@OPEN_CONTACTORS+0", "plant:feedback-open:1@OPEN_CONTACTORS+0.01", ends="HELD_OPEN"),
        Invariant.PRECHARGE,
    ),
    Guard(
        "node, time-out of a trial",
        "sim.node:SimulatedNode._end_trial",
        "a trial that lasts for ever when nobody comes back",
        by(SimulatedNode, "_end_trial", lambda *_: None),
        by_hand("a trial that nobody confirms", _trial_lasts),
        "a trial lasts for ever",
    ),
    Guard(
        "node's gate, confirmation",
        "uds.rules:ROUTINES",
        "confirmation while the node itself does not see high voltage off",
        ungated_routine(Rid.CONFIRM_IMAGE),
        by_hand(
            "a confirmation when high voltage came back", _confirm_under_voltage, allowed=frozenset({Invariant.PERMIT})
        ),
        Invariant.NODE_GATE,
    ),
)
