"""The upgrade, told from top to bottom.

Isolate, program every node, boot all on trial, confirm all, reconnect.  Two phases keep a station whole: nothing new
boots before every node holds a verified image, and nothing is confirmed before every node runs it with valid HV status.
Any failure before that leaves or reverts every node to what it ran.  (The check that comes first, and that touches
nothing, is in `ess_can.gateway.plan`; how the plant is left afterwards, in `ess_can.gateway.settle`.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from ess_can.bus.clock import now, pause, together, uninterrupted, until
from ess_can.errors import (
    ConfirmFailed,
    EssCanError,
    HvPermitRevoked,
    Interrupted,
    IsoTpError,
    NodeMissing,
    RolledBack,
    TrialBootFailed,
    UdsError,
    VerificationFailed,
)
from ess_can.gateway.evidence import evidence_of
from ess_can.gateway.interlock import Permit
from ess_can.gateway.node_revert import take_back
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Plan
from ess_can.gateway.plant_view import Connection, RackView
from ess_can.gateway.policy import FRESH_S
from ess_can.gateway.record import Doing, UpgradeLog
from ess_can.gateway.report import Report
from ess_can.gateway.resume import given_up
from ess_can.gateway.settle import Settlement, internal
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress
from ess_can.journal.entries import Deed
from ess_can.signals.messages import ImageState, PcsCommandCode, UpgradePhase

_TRY_AGAIN = (HvPermitRevoked, IsoTpError, UdsError)
"""After these HV-off is proved again, the node is identified again, and the transfer resumes where it stood."""

_OF_NODE = (IsoTpError, UdsError, VerificationFailed, TrialBootFailed)
"""What is about one node, and has to name it where several are worked on."""

_BREATH_S = 0.5
"""Between two tries, longer each time: a node may be restarting, or still collecting its own proof."""

Replan = Callable[[], Awaitable[Plan]]
"""Identifies every target again, and says what is to be done now."""


class Upgrade:
    """One upgrade of one station by one plan.  `run` is called once.

    `replan` makes the plan anew once leftovers were taken back.  Without it an earlier upgrade is given up: what it
    left is taken back, and nothing is upgraded.
    """

    def __init__(self, master: StationMaster, plan: Plan, log: UpgradeLog, replan: Replan | None = None) -> None:
        self._master = master
        self._config = master.config
        self._times = master.config.times
        self._log = log
        self._plan = plan
        self._replan = replan
        self._groups: list[list[NodeUpgrade]] = []
        self._nodes: list[NodeUpgrade] = []
        self._contactors_opened_at: float | None = None
        self._trial_began_at = 0.0
        self._take_up(plan)

    def _take_up(self, plan: Plan) -> None:
        self._plan = plan
        self._master.armed.suspect(*(leftover.address for leftover in plan.leftovers))
        self._groups = [[NodeUpgrade(self._master, node, self._log) for node in group] for group in plan.groups()]
        self._nodes = [node for group in self._groups for node in group]

    async def run(self, report: Report, found: Connection) -> None:
        """Upgrade every node of the plan, put the plant back as it was `found`, and complete the report, of success and
        failure alike.

        With nothing to upgrade it only puts the plant back.
        """
        cause: EssCanError | None = None
        try:
            async with self._master.watch:
                if self._plan.has_work:
                    await self._isolate()
                    await self._take_back_leftovers()
                else:
                    await self._take_hold()
                if self._nodes:
                    before = self._master.view.snapshot()
                    await self._program_all()
                    await self._boot_all_on_trial(before)
                    await self._confirm_all()
        except EssCanError as error:
            cause = error
        except asyncio.CancelledError:
            cause = Interrupted("the upgrade was interrupted", why=f"in phase {self._log.phase.value}")
        except Exception as bug:  # the plant is put back whatever happened to us
            cause = internal(bug)
        # What tripped the watch is graver than what it may have caused.
        report.cause = cause = self._master.watch.error or cause
        settlement = Settlement(self._master, self._nodes, self._log)
        report.error = await uninterrupted(settlement.settle(cause, found))
        if report.error is None and self._replan is None:
            report.error = given_up()
        report.proved_safe = settlement.proved_safe
        report.hv_after = self._master.view.connection(self._config.racks, now() - self._config.hv.evidence_age_s)
        if self._contactors_opened_at is not None:
            report.hv_off_s = now() - self._contactors_opened_at
        self._log.enter(self._final_phase(report.error))
        for node in self._nodes:
            node.complete_record()
        report.nodes = [node.record for node in self._nodes] + [node.record() for node in self._plan.up_to_date]

    # --- high voltage off ---------------------------------------------------------------------

    async def _isolate(self) -> None:
        """Power to zero, contactors open, locked, discharged: by the plant's own word."""
        isolation = self._master.isolation
        self._log.enter(Phase.RAMP_DOWN)
        async with self._log.doing(Deed.RAMP_DOWN):
            await isolation.ramp_down()
        self._log.enter(Phase.OPEN_CONTACTORS)
        async with AsyncExitStack() as locking:
            async with self._log.doing(Deed.OPEN_CONTACTORS):
                await locking.enter_async_context(self._log.doing(Deed.LOCK))  # it is ordered last
                await isolation.open_contactors()
            self._contactors_opened_at = now()
            self._log.enter(Phase.PROVE_HV_OFF)
            self._master.interlock.start_polling()
            await isolation.wait_for_discharge()
            permit = await self._prove_off(self._times.prove_off_s)  # with the lock acknowledged
            self._master.interlock.release(permit)

    async def _prove_off(self, within_s: float) -> Permit:
        """A permit, with what it rests on recorded."""
        permit = await self._master.interlock.prove_off(within_s)
        self._log.evidence(evidence_of(self._master.interlock.gate, self._master.view, now()))
        return permit

    async def _take_hold(self) -> None:
        """Take a plant that is only to be put back, from whatever state."""
        orders = self._master.orders
        match self._master.view.connection(self._config.racks, now() - FRESH_S):
            case Connection.OPEN:
                async with self._log.doing(Deed.LOCK) as deed:
                    orders.start(PcsCommandCode.LOCK)
                    if not await until(self._is_locked, self._times.listen_s):
                        deed.failed("not acknowledged")
            case Connection.CONNECTED:
                async with self._log.doing(Deed.RAMP_DOWN):
                    orders.start(PcsCommandCode.ZERO_POWER)
            case _:
                await self._isolate()

    def _is_locked(self) -> bool:
        pcs = self._master.view.pcs
        return pcs is not None and pcs.value.lock_acknowledged

    # --- what an upgrade that did not end has left ----------------------------------------------

    async def _take_back_leftovers(self) -> None:
        """Bring nodes on trial back to their confirmed image; then say anew what is to be done."""
        leftovers = self._plan.leftovers
        if not leftovers:
            return
        self._log.enter(Phase.ROLL_BACK, "what an earlier attempt left")
        permit = await self._prove_off(self._times.permit_regain_s)
        self._master.interlock.release(permit)  # a rack that restarts falls silent: it was asked for before the first
        restarting = [leftover.address for leftover in leftovers if leftover.on_trial]
        silent_s = self._config.silent_up_to_s if restarting else 0.0
        self._master.orders.announce(UpgradePhase.ACTIVATING, *restarting, silent_up_to_s=silent_s)
        await together(take_back(self._master, leftover, self._log) for leftover in leftovers)
        # Whatever is measured from here on is measured by firmware that was confirmed.
        reverted_at = now()
        view, racks = self._master.view, self._config.racks
        if not await until(lambda: view.heard_since(racks, reverted_at), self._times.listen_s):
            raise NodeMissing("a rack does not say all with its confirmed firmware", why="it went back from a trial")
        if self._replan is not None:
            self._take_up(await self._replan())

    # --- each node ----------------------------------------------------------------------------

    async def _program_all(self) -> None:
        """Program and verify every node's inactive bank.  What runs is not touched.

        Nodes of one type are programmed at the same time, so that one erases while another receives; the types follow
        each other in the release's order.
        """
        self._log.enter(Phase.PROGRAM)
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
                    self._log.note(f"also failed: {text}")
            raise

    async def _persist(self, work: Callable[[], Awaitable[None]], nodes: list[NodeUpgrade]) -> None:
        """Do the work under a permit; after a fault that may pass, prove HV-off again and do it again."""
        attempt = 1
        while True:
            permit = await self._prove_off(self._times.permit_regain_s)
            try:
                async with permit:
                    await work()
                return
            except _TRY_AGAIN as error:
                if attempt == self._times.program_attempts or not all(node.may_try_again(error) for node in nodes):
                    raise
                names = ", ".join(str(node.address) for node in nodes)
                self._log.note(f"{names}: {error.name}, trying again ({attempt}): {error}")
                for node in nodes:
                    await node.hang_up()
            finally:
                self._master.interlock.release(permit)
            await pause(attempt * _BREATH_S)
            attempt += 1

    async def _boot_all_on_trial(self, before: dict[int, RackView]) -> None:
        """Have every node boot its new image once, and see each come up with it and measure what it did `before`."""
        self._log.enter(Phase.TRIAL_BOOT)
        await self._persist(self._activate_all, self._nodes)
        await self._restart_all()
        await together(node.see_it_run(ImageState.TRIAL, self._times.node_boot_s) for node in self._nodes)
        all_run_at = max(node.runs_since for node in self._nodes)
        await pause(all_run_at + self._times.trial_soak_s - now())
        # Valid HV status from every rack again is part of the proof that the new firmware works.
        permit = await self._prove_off(self._times.trial_s)
        self._master.interlock.release(permit)
        view = self._master.view
        await until(lambda: view.heard_since(before, all_run_at), self._times.listen_s)
        view.require_plausible(before, all_run_at)

    async def _restart_all(self) -> None:
        """A rack that restarts falls silent, and the permit ends with it: it is asked for once, before the first."""
        async with AsyncExitStack() as recorded:
            restarts = await self._intend_each(Deed.RESTART, recorded)
            permit = await self._prove_off(self._times.permit_regain_s)
            try:
                permit.require()
                self._trial_began_at = now()
                restarting: list[NodeAddress] = []
                for node, deed in zip(self._nodes, restarts, strict=True):
                    restarting.insert(0, node.address)
                    silent_s = self._config.silent_up_to_s
                    self._master.orders.announce(UpgradePhase.ACTIVATING, *restarting, silent_up_to_s=silent_s)
                    await node.restart()
                    deed.done()
            finally:
                self._master.interlock.release(permit)

    async def _intend_each(self, deed: Deed, recorded: AsyncExitStack) -> list[Doing]:
        """What follows one right after the other: all intents are on the disk before the first."""
        return [await recorded.enter_async_context(self._log.doing(deed, node.address)) for node in self._nodes]

    async def _activate_all(self) -> None:
        for node in self._nodes:
            await node.activate_on_trial()

    async def _confirm_all(self) -> None:
        """Make every trial permanent.  Only now may a security counter rise."""
        self._log.enter(Phase.CONFIRM)
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
        async with AsyncExitStack() as recorded:
            confirmations = await self._intend_each(Deed.CONFIRM, recorded)
            for node, deed in zip(self._nodes, confirmations, strict=True):
                await node.confirm()
                deed.done()

    def _final_phase(self, error: EssCanError | None) -> Phase:
        if self._log.phase is Phase.HOLD_OPEN:
            return Phase.HELD_OPEN
        if error is None:
            return Phase.DONE
        return Phase.ROLLED_BACK if isinstance(error, RolledBack) else Phase.FAILED


def _name(error: EssCanError, address: NodeAddress) -> None:
    """Have an error say which node it is about."""
    if str(address) not in str(error):
        error.why = f"{address}, {error.why}" if error.why else str(address)
