"""The upgrade, told from top to bottom.

Isolate, program every node, boot all on trial, confirm all, reconnect.  Two phases keep a station whole: nothing new
boots before every node holds a verified image, and nothing is confirmed before every node runs it with valid HV status.
Any failure before that leaves or reverts every node to what it ran.  (The check that comes first, and that touches
nothing, is in `ess_can.gateway.plan`.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ess_can.bus.clock import now, pause, together, uninterrupted, until
from ess_can.errors import (
    AdapterLost,
    BusError,
    BusOff,
    ConfirmFailed,
    ContactorsNotOpening,
    ContactorWelded,
    DischargeTimeout,
    EmergencyStop,
    EssCanError,
    HeldOpen,
    HeldOpenByChoice,
    HvClosed,
    HvPermitRevoked,
    InterfaceDown,
    Interrupted,
    IsoTpError,
    PcsFault,
    RolledBack,
    TrialBootFailed,
    UdsError,
    VerificationFailed,
)
from ess_can.gateway.config import Afterwards
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Plan, ask_state
from ess_can.gateway.plant_view import Connection, RackView
from ess_can.gateway.policy import FRESH_S, reconnect_refusal
from ess_can.gateway.progress import Noted, OnProgress, PhaseEntered
from ess_can.gateway.report import PhaseLog, Report
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress
from ess_can.signals.messages import ImageState, PcsCommandCode, UpgradePhase

_TRY_AGAIN = (HvPermitRevoked, IsoTpError, UdsError)
"""After these HV-off is proved again, the node is identified again, and the transfer resumes where it stood."""

_OF_NODE = (IsoTpError, UdsError, VerificationFailed, TrialBootFailed)
"""What is about one node, and has to name it where several are worked on."""

_BREATH_S = 0.5
"""Between two tries, longer each time: a node may be restarting, or still collecting its own proof."""

_KEEP_OPEN = (BusError, ContactorsNotOpening, ContactorWelded, DischargeTimeout, EmergencyStop, HvClosed, PcsFault)
"""After these high voltage is not reconnected: a person must look first."""


_BUS_GONE = (AdapterLost, BusOff, InterfaceDown)
"""After these nothing can be said or heard: heartbeat time-out, lock and trial rules keep the plant safe without us."""


class Upgrade:
    """One upgrade of one station by one plan.  `run` is called once."""

    def __init__(self, master: StationMaster, plan: Plan, log: PhaseLog, on_progress: OnProgress) -> None:
        self._master = master
        self._config = master.config
        self._times = master.config.times
        self._log = log
        self._tell = on_progress
        self._groups = [[NodeUpgrade(master, node, on_progress) for node in group] for group in plan.groups()]
        self._nodes = [node for group in self._groups for node in group]
        self._contactors_opened_at: float | None = None
        self._trial_began_at = 0.0
        self._proved_safe = False

    async def run(self, report: Report) -> None:
        """Upgrade every node of the plan, put the plant back, and complete the report, of success and failure alike.

        With nothing to upgrade it only puts the plant back.
        """
        view, racks = self._master.view, self._config.racks
        report.hv_before = view.connection(racks, now() - FRESH_S)
        before = view.snapshot()
        cause: EssCanError | None = None
        try:
            async with self._master.watch:
                if self._nodes:
                    await self._isolate()
                    await self._program_all()
                    await self._boot_all_on_trial(before)
                    await self._confirm_all()
                else:
                    self._master.orders.start(PcsCommandCode.LOCK)
        except EssCanError as error:
            cause = error
        except asyncio.CancelledError:
            cause = Interrupted("the upgrade was interrupted", why=f"in phase {self._log.phase.value}")
        except Exception as bug:  # the plant is put back whatever happened to us
            cause = _internal(bug)
        # What tripped the watch is graver than what it may have caused.
        cause = self._master.watch.error or cause
        report.error = await uninterrupted(self._settle(cause, report.hv_before))
        report.proved_safe = self._proved_safe
        report.hv_after = view.connection(racks, now() - self._config.hv.evidence_age_s)
        if self._contactors_opened_at is not None:
            report.hv_off_s = now() - self._contactors_opened_at
        self._enter(self._final_phase(report.error))
        for node in self._nodes:
            node.complete_record()
        report.nodes = [node.record for node in self._nodes]

    # --- high voltage off ---------------------------------------------------------------------

    async def _isolate(self) -> None:
        """Power to zero, contactors open, locked, discharged: by the plant's own word."""
        isolation = self._master.isolation
        self._enter(Phase.RAMP_DOWN)
        await isolation.ramp_down()
        self._enter(Phase.OPEN_CONTACTORS)
        await isolation.open_contactors()
        self._contactors_opened_at = now()
        self._enter(Phase.PROVE_HV_OFF)
        self._master.interlock.start_polling()
        await isolation.wait_for_discharge()
        permit = await self._master.interlock.prove_off(self._times.prove_off_s)
        self._master.interlock.release(permit)

    # --- each node ----------------------------------------------------------------------------

    async def _program_all(self) -> None:
        """Program and verify every node's inactive bank.  What runs is not touched.

        Nodes of one type are programmed at the same time, so that one erases while another receives; the types follow
        each other in the release's order.
        """
        self._enter(Phase.PROGRAM)
        for nodes in self._groups:
            await self._program_together(nodes)

    async def _program_together(self, nodes: list[NodeUpgrade]) -> None:
        """Each under permits of its own.  The first that fails for good ends the others where they are: resumable."""
        at_once = self._master.at_once(len(nodes))
        turns = asyncio.Semaphore(at_once)
        at_work: list[NodeAddress] = []

        async def program(node: NodeUpgrade) -> None:
            async with turns:
                at_work.insert(0, node.address)  # in front: whose work begins is announced at once
                self._master.orders.announce(UpgradePhase.PROGRAMMING, *at_work)
                try:
                    await self._persist(lambda: node.program(at_once), [node])
                except _OF_NODE as error:
                    _name(error, node.address)
                    raise
                finally:
                    at_work.remove(node.address)
                if at_work:
                    self._master.orders.announce(UpgradePhase.PROGRAMMING, *at_work)

        further: list[BaseException] = []
        try:
            await together((program(node) for node in nodes), further.append)
        except EssCanError as first:
            for text in dict.fromkeys(map(str, further)):
                if text != str(first):
                    self._tell(Noted(now(), f"also failed: {text}"))
            raise

    async def _persist(self, work: Callable[[], Awaitable[None]], nodes: list[NodeUpgrade]) -> None:
        """Do the work under a permit; after a fault that may pass, prove HV-off again and do it again."""
        for attempt in range(1, self._times.program_attempts + 1):
            permit = await self._master.interlock.prove_off(self._times.permit_regain_s)
            try:
                async with permit:
                    await work()
                return
            except _TRY_AGAIN as error:
                if attempt == self._times.program_attempts or not all(node.may_try_again(error) for node in nodes):
                    raise
                names = ", ".join(str(node.address) for node in nodes)
                self._tell(Noted(now(), f"{names}: {error.name}, trying again ({attempt}): {error}"))
                for node in nodes:
                    await node.hang_up()
            finally:
                self._master.interlock.release(permit)
            await pause(attempt * _BREATH_S)

    async def _boot_all_on_trial(self, before: dict[int, RackView]) -> None:
        """Have every node boot its new image once, and see each come up with it and measure what it did `before`."""
        self._enter(Phase.TRIAL_BOOT)
        await self._persist(self._activate_all, self._nodes)
        permit = await self._master.interlock.prove_off(self._times.permit_regain_s)
        try:
            # A rack that restarts falls silent, and the permit ends with it: it is asked for once, before the first.
            permit.require()
            self._trial_began_at = now()
            restarting: list[NodeAddress] = []
            for node in self._nodes:
                restarting.insert(0, node.address)
                silent_s = self._config.silent_up_to_s
                self._master.orders.announce(UpgradePhase.ACTIVATING, *restarting, silent_up_to_s=silent_s)
                await node.restart()
        finally:
            self._master.interlock.release(permit)
        await together(node.see_it_run(ImageState.TRIAL, self._times.node_boot_s) for node in self._nodes)
        all_run_at = max(node.runs_since for node in self._nodes)
        await pause(all_run_at + self._times.trial_soak_s - now())
        # Valid HV status from every rack again is part of the proof that the new firmware works.
        permit = await self._master.interlock.prove_off(self._times.trial_s)
        self._master.interlock.release(permit)
        view = self._master.view
        await until(lambda: view.heard_since(before, all_run_at), self._times.listen_s)
        view.require_plausible(before, all_run_at)

    async def _activate_all(self) -> None:
        for node in self._nodes:
            await node.activate_on_trial()

    async def _confirm_all(self) -> None:
        """Make every trial permanent.  Only now may a security counter rise."""
        self._enter(Phase.CONFIRM)
        await self._persist(self._confirm_together, self._nodes)
        await together(node.see_it_run(ImageState.CONFIRMED, self._times.node_boot_s) for node in self._nodes)

    async def _confirm_together(self) -> None:
        """First see that every node is ready, then confirm one right after the other: either none or all."""
        await together(node.prepare_to_confirm() for node in self._nodes)
        on_trial_s = now() - self._trial_began_at
        if on_trial_s > self._times.trial_limit_s and not any(node.confirm_sent for node in self._nodes):
            raise ConfirmFailed(
                "the trial took too long", why=f"{on_trial_s:.0f} s, and nodes give it up by themselves"
            )
        for node in self._nodes:
            await node.confirm()

    # --- afterwards, by rule ------------------------------------------------------------------

    async def _settle(self, cause: EssCanError | None, found: Connection) -> EssCanError | None:
        """Leave the plant as the rules say, and give the error that the upgrade ends with."""
        error = cause
        try:
            if cause is not None and any(node.activated for node in self._nodes):
                error = await self._roll_back(cause)
            if isinstance(error, HeldOpen):
                return await self._hold_open(error, cause)
            forbidden = cause if isinstance(cause, _KEEP_OPEN) else self._master.watch.forbids_reconnect
            if forbidden is not None:
                return await self._hold_open(forbidden, cause)
            await self._put_back(found, error)
        except EssCanError as failure:
            return await self._hold_open(failure, cause)
        except Exception as bug:
            return await self._hold_open(_internal(bug), cause)
        return error

    async def _roll_back(self, cause: EssCanError) -> EssCanError | None:
        """Bring every node back to what it ran.  A node that does not answer reverts by itself.

        Gives the error to end with; None if it turns out that all nodes were confirmed before the fault.
        """
        self._enter(Phase.ROLL_BACK, str(cause))
        if isinstance(cause, _BUS_GONE):
            return cause
        if any(node.confirm_sent for node in self._nodes):  # then only the plant knows
            confirmed = await asyncio.gather(*(node.is_confirmed() for node in self._nodes))
            if all(confirmed):
                self._tell(Noted(now(), f"every node is confirmed already; what came after: {cause}"))
                return None
            if any(state is not False for state in confirmed):
                versions = ", ".join(f"{node.address} {node.running_version}" for node in self._nodes)
                return HeldOpen("nodes run mixed versions", why=f"{versions}; {cause}")
        live = self._master.isolation.signs_of_closed()
        if live:  # restarting a BMU drops its contactors, whatever they carry
            return HeldOpen("no node is restarted while high voltage is on", why=f"{live}; {cause}")
        await asyncio.gather(*(node.revert() for node in self._nodes if node.activated))
        revert_s = self._times.revert_s
        await together(node.see_it_run(ImageState.CONFIRMED, revert_s, reverted=True) for node in self._nodes)
        return RolledBack("every node runs its old firmware again", why=str(cause))

    async def _put_back(self, found: Connection, error: EssCanError | None) -> None:
        """Leave high voltage as it is to be left, if every rule allows it; then hand the plant back.

        `error` is what the upgrade itself came to.
        """
        isolation, view = self._master.isolation, self._master.view
        self._enter(Phase.RECONNECT)
        if not self._master.orders.running:
            return
        close = self._config.afterwards is Afterwards.CONNECT or found is Connection.CONNECTED
        async with self._master.watch:
            self._master.orders.announce(UpgradePhase.RECONNECTING)
            await together(node.end_session() for node in self._nodes)
            asked_at = now()

            def refusal() -> EssCanError | None:
                return reconnect_refusal(view, self._config, now(), asked_at)

            # Each node's word is due with its next Node_Info, but here at once if it can be asked.
            asking = asyncio.ensure_future(together(ask_state(self._master, node) for node in self._config.expected))
            try:
                await until(lambda: refusal() is None, self._times.listen_s)
            finally:
                asking.cancel()
            if (reason := refusal()) is not None:
                raise reason
            if self._config.afterwards is Afterwards.HOLD_OPEN:
                asked = "high voltage is held open as asked"
                raise HeldOpenByChoice(asked) if error is None else HeldOpen(asked, why=f"{error.name}: {error}")
            if self._config.afterwards is Afterwards.AS_FOUND and found not in (Connection.CONNECTED, Connection.OPEN):
                raise HeldOpen("nobody could tell how the plant was found", why=f"high voltage was {found.value}")
            if close:
                await isolation.reconnect()
        await isolation.hand_back(connected=close)  # another master may speak as soon as this is done

    async def _hold_open(self, reason: EssCanError, cause: EssCanError | None) -> EssCanError:
        """Leave the plant open and locked: the PCS keeps its lock without our heartbeat."""
        self._enter(Phase.HOLD_OPEN, str(reason))
        why = f"{reason.name}: {reason}"
        if cause is not None and cause is not reason and str(cause) not in why:
            why = f"{why}; after {cause.name}: {cause}"
        if self._master.orders.running and not isinstance(self._master.watch.error, _BUS_GONE):
            try:
                await self._master.isolation.hold_open()
                self._proved_safe = True
            except EssCanError as failure:
                unproved = "high voltage is held, but not proved open and locked: treat the plant as live"
                return HeldOpen(unproved, why=f"{why}; {failure.name}: {failure}")
        if isinstance(reason, HeldOpen | BusError):
            return reason
        return HeldOpen("the plant is held safe with high voltage open", why=why)

    def _final_phase(self, error: EssCanError | None) -> Phase:
        if self._log.phase is Phase.HOLD_OPEN:
            return Phase.HELD_OPEN
        if error is None:
            return Phase.DONE
        return Phase.ROLLED_BACK if isinstance(error, RolledBack) else Phase.FAILED

    def _enter(self, phase: Phase, detail: str = "") -> None:
        self._log.enter(phase, now())
        self._tell(PhaseEntered(now(), phase, detail))


def _name(error: EssCanError, address: NodeAddress) -> None:
    """Have an error say which node it is about."""
    if str(address) not in str(error):
        error.why = f"{address}, {error.why}" if error.why else str(address)


def _internal(bug: Exception) -> EssCanError:
    return EssCanError("an internal error ended the upgrade", why=f"{type(bug).__name__}: {bug}")
