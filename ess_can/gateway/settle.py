"""Leaving the plant as the rules say, after success, failure and interruption alike.

A journal that cannot be written does not stop any of this (`UpgradeLog.settling`): a plant that is safe counts for more
than the record of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from ess_can.bus.clock import now, together, until
from ess_can.errors import (
    AdapterLost,
    BusError,
    BusOff,
    ContactorsNotOpening,
    ContactorWelded,
    DischargeTimeout,
    EmergencyStop,
    EssCanError,
    HeldOpen,
    HeldOpenByChoice,
    HvClosed,
    InterfaceDown,
    PcsFault,
    RolledBack,
)
from ess_can.gateway.config import Afterwards
from ess_can.gateway.node_revert import ask_to_revert
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import ask_state
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.policy import reconnect_refusal
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress
from ess_can.journal.entries import Deed
from ess_can.signals.messages import ImageState, UpgradePhase

_KEEP_OPEN = (BusError, ContactorsNotOpening, ContactorWelded, DischargeTimeout, EmergencyStop, HvClosed, PcsFault)
"""After these high voltage is not reconnected: a person must look first."""


_BUS_GONE = (AdapterLost, BusOff, InterfaceDown)
"""After these nothing can be said or heard: heartbeat time-out, lock and trial rules keep the plant safe without us."""


class Settlement:
    """The end of one upgrade.  `settle` is called once.

    `proved_safe` says of a plant that is held open whether it was proved open and locked.
    """

    def __init__(self, master: StationMaster, nodes: Sequence[NodeUpgrade], log: UpgradeLog) -> None:
        self.proved_safe = False
        self._master = master
        self._config = master.config
        self._times = master.config.times
        self._nodes = nodes
        self._log = log

    async def settle(self, cause: EssCanError | None, found: Connection) -> EssCanError | None:
        """Leave the plant as the rules say, and give the error that the upgrade ends with."""
        self._log.settling()
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
            return await self._hold_open(internal(bug), cause)
        return error

    async def _roll_back(self, cause: EssCanError) -> EssCanError | None:
        """Bring every node back to what it ran.  A node that does not answer reverts by itself.

        Gives the error to end with; None if it turns out that all nodes were confirmed before the fault.
        """
        self._log.enter(Phase.ROLL_BACK, str(cause))
        if isinstance(cause, _BUS_GONE):
            return cause
        async with self._master.watch.emergency:  # nothing is restarted or written after one
            return await self._take_back(cause)

    async def _take_back(self, cause: EssCanError) -> EssCanError | None:
        if any(node.confirm_sent for node in self._nodes):  # then only the plant knows
            confirmed = await asyncio.gather(*(node.is_confirmed() for node in self._nodes))
            if all(confirmed):
                self._log.note(f"every node is confirmed already; what came after: {cause}")
                return None
            if any(state is not False for state in confirmed):
                versions = ", ".join(f"{node.address} {node.running_version}" for node in self._nodes)
                return HeldOpen("nodes run mixed versions", why=f"{versions}; {cause}")
        live = self._master.isolation.signs_of_closed()
        if live:  # restarting a BMU drops its contactors, whatever they carry
            return HeldOpen("no node is restarted while high voltage is on", why=f"{live}; {cause}")
        await together(node.revert() for node in self._nodes if node.activated)
        revert_s = self._times.revert_s
        await together(node.see_it_run(ImageState.CONFIRMED, revert_s, reverted=True) for node in self._nodes)
        return RolledBack("every node runs its old firmware again", why=str(cause))

    async def _put_back(self, found: Connection, error: EssCanError | None) -> None:
        """Leave high voltage as it is to be left, if every rule allows it; then hand the plant back.

        `error` is what the upgrade itself came to.
        """
        isolation, view = self._master.isolation, self._master.view
        self._log.enter(Phase.RECONNECT)
        if not self._master.orders.running:  # it ended before we ordered anything
            if view.pcs is not None and (view.pcs.value.lock_acknowledged or view.pcs.value.remote_control):
                raise HeldOpen("the plant is as an earlier upgrade left it", why=str(error))
            return
        close = self._config.afterwards is Afterwards.CONNECT or found is Connection.CONNECTED
        async with self._master.watch:
            self._master.orders.announce(UpgradePhase.RECONNECTING)
            await together(node.end_session() for node in self._nodes)
            await together(self._disarm(address) for address in self._master.armed.nodes)
            asked_at = now()

            def refusal(*, closing: bool = False) -> EssCanError | None:
                return reconnect_refusal(view, self._config, now(), asked_at, self._master.armed.nodes, closing=closing)

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
            self._master.interlock.expect_return()
            if close:
                async with self._log.doing(Deed.UNLOCK), self._log.doing(Deed.CLOSE):
                    await isolation.reconnect(partial(refusal, closing=True))
        left = Connection.CONNECTED if close else Connection.OPEN
        async with self._master.watch.emergency, self._log.doing(Deed.HAND_BACK, text=left.value):
            await isolation.hand_back(connected=close)  # another master may speak as soon as this is done

    async def _disarm(self, address: NodeAddress) -> None:
        """Have a node give up an activation that may not have booted; without its answer nothing is reconnected."""
        await ask_to_revert(self._master, address, self._log, restart=False)

    async def _hold_open(self, reason: EssCanError, cause: EssCanError | None) -> EssCanError:
        """Leave the plant open and locked: the PCS keeps its lock without our heartbeat."""
        self._log.enter(Phase.HOLD_OPEN, str(reason))
        failure = await self._hold()
        why, forbidden = self._why(reason, cause), self._master.watch.forbids_reconnect
        if failure is not None:
            unproved = "high voltage is held, but not proved open and locked: treat the plant as live"
            return HeldOpen(unproved, why=f"{why}; {failure.name}: {failure}")
        if isinstance(reason, BusError) and forbidden is not None:
            reason.why = f"{reason.why}; {forbidden.name}: {forbidden}"
        if isinstance(reason, BusError) or (isinstance(reason, HeldOpen) and forbidden is None):
            return reason
        return HeldOpen("the plant is held safe with high voltage open", why=why)

    async def _hold(self) -> EssCanError | None:
        """Order it; why it is not proved, None if it is or if nobody can be ordered."""
        if self._master.orders.running and not isinstance(self._master.watch.error, _BUS_GONE):
            try:
                async with self._log.doing(Deed.HOLD_OPEN, at_once=True):
                    await self._master.isolation.hold_open()
                    self._require_gone()
                self.proved_safe = True
            except EssCanError as failure:
                return failure
        return None

    def _require_gone(self) -> None:
        """Raises HvClosed where high voltage came back unasked and is on still."""
        came_back = isinstance(self._master.watch.forbids_reconnect, HvClosed)
        if came_back and (live := self._master.isolation.signs_of_closed()):
            raise HvClosed("high voltage is still on", why=live)

    def _why(self, reason: EssCanError, cause: EssCanError | None) -> str:
        """The reason, what was the matter before it, an emergency whatever came of it, and what is not done yet."""
        why = f"{reason.name}: {reason}"
        if cause is not None and cause is not reason and str(cause) not in why:
            why = f"{why}; after {cause.name}: {cause}"
        forbidden = self._master.watch.forbids_reconnect
        if forbidden is not None and forbidden.name not in why:
            why = f"{forbidden.name}: {forbidden}; {why}"
        trials = ", ".join(str(node.address) for node in self._nodes if node.may_be_on_trial)
        return f"{why}; perhaps still on trial, which a node gives up by itself: {trials}" if trials else why


def internal(bug: Exception) -> EssCanError:
    """A defect of ours, as the error that an upgrade ends with."""
    return EssCanError("an internal error ended the upgrade", why=f"{type(bug).__name__}: {bug}")
