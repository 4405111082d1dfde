"""A plant whose orders are given by hand: what runs of guards of racks and PCS are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant, Monitors
from ess_can.signals.messages import PcsCommandCode
from ess_can.sim.electrical import LinkSpec
from ess_can.sim.loop import run_virtual
from ess_can.sim.pcs import PcsSpec
from ess_can.sim.plant import PlantSpec
from tests.campaign.guard import Run, words_of
from tests.scenario.support import QUICK, small_plant
from tests.unit.campaign.monitor_rig import ONE_RACK, Rig

Script = Callable[[Rig], Awaitable[None]]
TWO: Final = replace(QUICK, racks=2)
WAITING: Final = replace(ONE_RACK, pcs=PcsSpec(link_steady_s=0.6))
SLOW_LINK: Final = replace(ONE_RACK, link=LinkSpec())
HEAVY: Final = replace(ONE_RACK, pcs=PcsSpec(local_setpoint_kw=-200.0))


def by_hand(
    text: str, script: Script, *, spec: PlantSpec = ONE_RACK, allowed: frozenset[Invariant] = frozenset()
) -> Run:
    """Orders by hand.  `allowed` is what the script itself breaks."""

    async def run() -> str:
        plant = small_plant(spec)
        plant.start()
        rig = Rig(plant)
        await pause(1.2)
        found = []
        try:
            await script(rig)
        except AssertionError as error:
            found.append(words_of(error))
        monitors: Monitors = rig.monitors
        monitors.finish()
        plant.stop()
        return "; ".join([*found, *(str(each) for each in monitors.violations if each.invariant not in allowed)])

    return Run(text, lambda: run_virtual(run()))


async def unlocked(rig: Rig) -> None:
    await rig.isolate()
    rig.stop_polling()
    rig.command(PcsCommandCode.UNLOCK)
    await pause(0.3)
