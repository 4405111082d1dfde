"""Guards of the racks: what opens them at once, what is latched, and who may clear it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.errors import UsageError
from ess_can.signals.messages import PcsCommandCode
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.hv_control import RackControl
from ess_can.sim.latches import Latch
from ess_can.sim.pcs import PcsSpec
from tests.campaign.by_hand import Script, by_hand, unlocked
from tests.campaign.guard import Guard, around, by, require
from tests.campaign.guards_rack import no_latch
from tests.unit.campaign.monitor_rig import ONE_RACK, Rig

_ALL: Final = frozenset(Invariant)
_IDLE: Final = replace(ONE_RACK, pcs=PcsSpec(local_setpoint_kw=0.0))

_INPUTS: Final = (
    (Latch.EMERGENCY_STOP, "emergency_stop", True, "a rack's emergency stop is pressed"),
    (Latch.FIRE, "fire", True, "a fire is detected"),
    (Latch.INSULATION, "insulation_fault", True, "the insulation fails"),
    (Latch.HVIL_OPEN, "hvil_closed", False, "the interlock loop opens for a moment"),
)


def _input(name: str, value: bool) -> Script:
    async def act(rig: Rig) -> None:
        hardware, rack = rig.plant.hardware[0], rig.plant.circuit.racks[0]
        before = getattr(hardware, name)
        setattr(hardware, name, value)
        await pause(0.05)
        setattr(hardware, name, before)
        await pause(0.2)
        require(not rack.main_plus.closed and not rack.main_minus.closed, "the rack stays closed")

    return act


def _opening() -> Iterator[Guard]:
    for latch, name, value, text in _INPUTS:
        yield Guard(
            f"rack, latch {latch.value}",
            "sim.hv_control:RackControl._latch_inputs",
            "a rack that stays closed in an emergency, or forgets it as soon as it passes",
            no_latch(latch),
            by_hand(text, _input(name, value), allowed=_ALL),
            "the rack stays closed",
        )


async def _weld_latched(rig: Rig) -> None:
    plus, minus, _ = rig.plant.circuit.racks[0].contactors
    await unlocked(rig)
    plus.fault, plus.closed = ContactorFault.WELDED, True
    await pause(0.5)
    plus.fault, plus.closed = ContactorFault.NONE, False
    await pause(1.0)
    rig.command(PcsCommandCode.CLOSE)
    for _ in range(100):
        require(not minus.closed, "the rack closes after a weld that nobody looked at")
        await pause(0.02)


async def _nobody_clears(rig: Rig) -> None:
    rack = rig.plant.racks[0]
    rig.plant.hardware[0].fire = True
    await pause(0.1)
    rig.plant.hardware[0].fire = False
    with suppress(UsageError):
        rack.clear_latches(" ", rig.now)
    require(Latch.FIRE in rack.latches, "nobody clears a fire")


async def _still_burning(rig: Rig) -> None:
    rack = rig.plant.racks[0]
    rig.plant.hardware[0].fire = True
    await pause(0.1)
    rack.clear_latches("A. Technician", rig.now)
    await pause(0.1)
    require(Latch.FIRE in rack.latches, "a fire that still burns stays cleared")


async def _cleared_for_good(rig: Rig) -> None:
    rack = rig.plant.racks[0]
    rig.plant.hardware[0].fire = True
    await pause(0.1)
    rig.plant.hardware[0].fire = False
    rack.clear_latches("A. Technician", rig.now)
    require(bool(rack.clearings) and rack.clearings[-1].by == "A. Technician", "nobody knows who cleared a fire")


async def _left_alone(rig: Rig) -> None:
    rig.plant.pcs_node.power_off()
    await pause(7.0)
    require(not rig.plant.circuit.racks[0].main_plus.closed, "a rack keeps a link live that nobody commands")


def _anybody(original: Callable[..., object]) -> object:
    return lambda rack, by, now: original(rack, by.strip() or "nobody", now)


def _once(original: Callable[..., object]) -> object:
    def clear(rack: RackControl, by: str, now: float) -> object:
        cleared = original(rack, by, now)
        rack._latch_inputs = lambda: None  # type: ignore[method-assign]
        return cleared

    return clear


def _unrecorded(original: Callable[..., object]) -> object:
    def clear(rack: RackControl, by: str, now: float) -> object:
        cleared = original(rack, by, now)
        rack.clearings.clear()
        return cleared

    return clear


_CLEAR: Final = "sim.hv_control:RackControl.clear_latches"

GUARDS: Final = (
    *_opening(),
    Guard(
        "rack, latch of a weld",
        "sim.hv_control:RackControl._latch_inputs",
        "closing on a contactor that welded and came loose again",
        no_latch(Latch.WELD_PLUS, Latch.WELD_MINUS),
        by_hand("a contactor welds, and comes loose", _weld_latched, allowed=_ALL),
        "the rack closes after a weld that nobody looked at",
    ),
    Guard(
        "rack, a name is needed to clear",
        _CLEAR,
        "clearing a fire of which nobody knows who did it",
        around(RackControl, "clear_latches", _anybody),
        by_hand("latches are cleared by nobody", _nobody_clears, allowed=_ALL),
        "nobody clears a fire",
    ),
    Guard(
        "rack, clearing is on record",
        _CLEAR,
        "latches that were cleared by somebody unknown",
        around(RackControl, "clear_latches", _unrecorded),
        by_hand("latches are cleared by a technician", _cleared_for_good, allowed=_ALL),
        "nobody knows who cleared a fire",
    ),
    Guard(
        "rack, a cause that persists latches again",
        "sim.hv_control:RackControl._latch_inputs",
        "a rack that closes in a fire because somebody cleared its latches",
        around(RackControl, "clear_latches", _once),
        by_hand("latches are cleared while the fire burns", _still_burning, allowed=_ALL),
        "a fire that still burns stays cleared",
    ),
    Guard(
        "rack, left alone",
        "sim.hv_control:RackControl._left_alone",
        "a link that stays live when PCS and gateway are gone",
        by(RackControl, "_left_alone", lambda *_: False),
        by_hand("PCS and orders are silent for seconds", _left_alone, spec=_IDLE, allowed=_ALL),
        "a rack keeps a link live that nobody commands",
    ),
)
