"""The upgrade, told from top to bottom.

Isolate, program every node, boot all on trial, confirm all, reconnect.  Two phases keep a station whole: nothing new
boots before every node holds a verified image, and nothing is confirmed before every node runs it with valid HV status.
Any failure before that leaves or reverts every node to what it ran.  (The check that comes first, and that touches
nothing, is in `ess_can.gateway.plan`.)
"""

from __future__ import annotations

import asyncio

from ess_can.bus.clock import now, pause
from ess_can.errors import (
    BusError,
    ContactorsNotOpening,
    ContactorWelded,
    DischargeTimeout,
    EmergencyStop,
    EssCanError,
    HeldOpen,
    HvClosed,
    HvPermitRevoked,
    Interrupted,
    IsoTpError,
    PcsFault,
    RolledBack,
    UdsError,
)
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Plan
from ess_can.gateway.policy import reconnect_refusal
from ess_can.gateway.progress import Noted, OnProgress, PhaseEntered
from ess_can.gateway.report import PhaseLog, Report
from ess_can.gateway.station_master import StationMaster
from ess_can.signals.messages import ImageState, UpgradePhase

_TRY_AGAIN = (HvPermitRevoked, IsoTpError, UdsError)
"""After these HV-off is proved again, the node is identified again, and the transfer resumes where it stood."""

_BREATH_S = 0.5
"""Between two tries, longer each time: a node may be restarting, or still collecting its own proof."""

_KEEP_OPEN = (BusError, ContactorsNotOpening, ContactorWelded, DischargeTimeout, EmergencyStop, HvClosed, PcsFault)
"""After these high voltage is not reconnected: a person must look first."""


class Upgrade:
    """One upgrade of one station by one plan.  `run` is called once."""

    def __init__(self, master: StationMaster, plan: Plan, log: PhaseLog, on_progress: OnProgress) -> None:
        self._master = master
        self._config = master.config
        self._times = master.config.times
        self._log = log
        self._tell = on_progress
        self._nodes = [NodeUpgrade(master, node, on_progress) for node in plan.nodes]
        self._contactors_opened_at: float | None = None

    async def run(self, report: Report) -> None:
        """Upgrade every node of the plan, put the plant back, and complete the report, of success and failure alike."""
        was_connected = self._master.isolation.is_connected()
        before = self._master.view.snapshot()
        cause: EssCanError | None = None
        try:
            async with self._master.watch:
                await self._isolate()
                await self._program_all()
                await self._boot_all_on_trial()
                self._master.view.require_plausible(before)
                await self._confirm_all()
        except EssCanError as error:
            cause = error
        except asyncio.CancelledError:
            cause = Interrupted("the upgrade was interrupted", why=f"in phase {self._log.phase.value}")
        report.error = await self._settle(cause, was_connected)
        report.nodes = [node.record for node in self._nodes]
        if self._contactors_opened_at is not None:
            report.hv_off_s = now() - self._contactors_opened_at
        final = self._final_phase(cause, report.error)
        self._enter(final)

    # --- high voltage off ---------------------------------------------------------------------

    async def _isolate(self) -> None:
        """Power to zero, contactors open, locked, discharged: by the plant's own word."""
        isolation = self._master.isolation
        self._enter(Phase.RAMP_DOWN)
        await isolation.ramp_down()
        self._enter(Phase.OPEN_CONTACTORS)
        self._contactors_opened_at = now()
        await isolation.open_contactors()
        self._enter(Phase.PROVE_HV_OFF)
        self._master.interlock.start_polling()
        await isolation.wait_for_discharge()
        permit = await self._master.interlock.prove_off(self._times.prove_off_s)
        self._master.interlock.release(permit)

    # --- each node ----------------------------------------------------------------------------

    async def _program_all(self) -> None:
        """Program and verify every node's inactive bank.  What runs is not touched."""
        self._enter(Phase.PROGRAM)
        for node in self._nodes:
            self._master.orders.announce(UpgradePhase.PROGRAMMING, node.address)
            await self._persist(node, NodeUpgrade.program)

    async def _persist(self, node: NodeUpgrade, work: NodeUpgrade.Work) -> None:
        """Do the work under a permit; after a fault that may pass, prove HV-off again and continue."""
        for attempt in range(1, self._times.program_attempts + 1):
            permit = await self._master.interlock.prove_off(self._times.permit_regain_s)
            try:
                async with permit:
                    await work(node)
                return
            except _TRY_AGAIN as error:
                if attempt == self._times.program_attempts or not node.may_try_again(error):
                    raise
                self._note(f"{node.address}: {error.name}, trying again ({attempt}): {error}")
                await node.hang_up()
            finally:
                self._master.interlock.release(permit)
            await pause(attempt * _BREATH_S)

    async def _boot_all_on_trial(self) -> None:
        """Have every node boot its new image once, and see each come up with it."""
        self._enter(Phase.TRIAL_BOOT)
        permit = await self._master.interlock.prove_off(self._times.permit_regain_s)
        try:
            async with permit:
                for node in self._nodes:
                    await node.activate_on_trial()
                for node in self._nodes:
                    self._master.orders.announce(UpgradePhase.ACTIVATING, node.address, self._config.silent_up_to_s)
                    await node.restart()
        finally:
            self._master.interlock.release(permit)
        for node in self._nodes:
            await node.see_it_run(ImageState.TRIAL, self._times.node_boot_s)
        await pause(self._times.trial_soak_s)
        # Valid HV status from every rack again is part of the proof that the new firmware works.
        permit = await self._master.interlock.prove_off(self._times.trial_s)
        self._master.interlock.release(permit)

    async def _confirm_all(self) -> None:
        """Make every trial permanent.  Only now may a security counter rise."""
        self._enter(Phase.CONFIRM)
        for node in self._nodes:
            await self._persist(node, NodeUpgrade.confirm)
        for node in self._nodes:
            await node.see_it_run(ImageState.CONFIRMED, self._times.node_boot_s)

    # --- afterwards, by rule ------------------------------------------------------------------

    async def _settle(self, cause: EssCanError | None, was_connected: bool) -> EssCanError | None:
        """Leave the plant as the rules say, and give the error that the upgrade ends with."""
        error = cause
        try:
            if cause is not None and any(node.activated for node in self._nodes):
                error = await self._roll_back(cause)
            if cause is not None and (isinstance(cause, _KEEP_OPEN) or self._master.watch.forbids_reconnect):
                return self._hold_open(cause)
            if isinstance(error, HeldOpen):
                return self._hold_open(error)
            await self._reconnect(was_connected)
        except EssCanError as failure:
            return self._hold_open(failure)
        return error

    async def _roll_back(self, cause: EssCanError) -> EssCanError:
        """Bring every node back to what it ran.  A node that does not answer reverts by itself."""
        self._enter(Phase.ROLL_BACK, str(cause))
        if any(node.confirm_sent for node in self._nodes):
            mixed = ", ".join(f"{node.address} {node.running_version}" for node in self._nodes)
            return HeldOpen("nodes run mixed versions", why=f"{mixed}; {cause}")
        await asyncio.gather(*(node.revert() for node in self._nodes if node.activated))
        for node in self._nodes:
            await node.see_it_run(ImageState.CONFIRMED, self._times.revert_s, reverted=True)
        return RolledBack("the new firmware was not accepted and every node runs its old one", why=str(cause))

    async def _reconnect(self, was_connected: bool) -> None:
        """Close high voltage again if it was closed before and every rule allows it; then hand the plant back."""
        isolation = self._master.isolation
        if not self._master.orders.running:
            return
        self._enter(Phase.RECONNECT)
        self._master.orders.announce(UpgradePhase.RECONNECTING)
        refusal = reconnect_refusal(self._master.view, self._config, now())
        if refusal is not None:
            raise refusal
        if not self._config.reconnect:
            raise HeldOpen("high voltage is held open as asked", remedy="Reconnect by the EMS.")
        if was_connected:
            await isolation.reconnect()
            await isolation.hand_back(unlock=False)
        else:
            await isolation.hand_back(unlock=True)

    def _hold_open(self, cause: EssCanError) -> EssCanError:
        """The plant stays locked and open: the PCS keeps its lock without our heartbeat."""
        self._enter(Phase.HOLD_OPEN, str(cause))
        if isinstance(cause, HeldOpen | BusError):
            return cause
        return HeldOpen("the plant is held safe with high voltage open", why=f"{cause.name}: {cause}")

    def _final_phase(self, cause: EssCanError | None, error: EssCanError | None) -> Phase:
        if self._log.phase is Phase.HOLD_OPEN:
            return Phase.HELD_OPEN
        if error is None:
            return Phase.DONE
        return Phase.ROLLED_BACK if isinstance(error, RolledBack) else Phase.FAILED

    def _enter(self, phase: Phase, detail: str = "") -> None:
        self._log.enter(phase, now())
        self._tell(PhaseEntered(now(), phase, detail))

    def _note(self, text: str) -> None:
        self._tell(Noted(now(), text))
