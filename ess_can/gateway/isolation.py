"""Taking high voltage off, and putting it back.

Off: current to zero first, then contactors open, then the lock, then the proof by the racks themselves.  Back: unlock,
close (each rack precharges), then hand the plant back to its own control.

Every answer of the plant counts only if it was heard after the order that it answers and is still fresh.
"""

from __future__ import annotations

from math import inf

from ess_can.bus.clock import now, until
from ess_can.errors import (
    ContactorsNotOpening,
    ContactorWelded,
    CurrentMismatch,
    DischargeTimeout,
    PcsNotStopping,
    PrechargeFailed,
    ReconnectFailed,
)
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.hv_gate import pcs_sign_of_on, rack_sign_of_on
from ess_can.gateway.orders import Orders, Refusal
from ess_can.gateway.plant_view import PlantView
from ess_can.signals.messages import (
    BmsHvStatus,
    ContactorState,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    RackState,
)

_LOCK_S = 1.0
_UNLOCK_S = 1.0
_RELEASE_S = 1.0
_AT_REST = (PcsState.STANDBY, PcsState.FAULT, PcsState.EMERGENCY_STOP)
"""States in which the PCS's bridge does not work."""


class Isolation:
    """Orders the plant's high voltage off and on again, and watches that it obeys."""

    def __init__(self, view: PlantView, orders: Orders, config: GatewayConfig) -> None:
        self._view = view
        self._orders = orders
        self._config = config
        self._ordered_at = -inf

    def _order(self, command: PcsCommandCode, refusal: Refusal | None = None) -> None:
        self._ordered_at = now()
        self._orders.give(command, refusal)

    def _is_answer(self, heard_at: float) -> bool:
        return heard_at > self._ordered_at and now() - heard_at <= self._config.hv.evidence_age_s

    def _pcs(self) -> PcsStatus | None:
        sample = self._view.pcs
        return sample.value if sample is not None and self._is_answer(sample.at) else None

    def _racks(self) -> dict[int, BmsHvStatus]:
        """The racks that have spoken since the last order."""
        samples = {rack: self._view.rack(rack).hv for rack in self._config.racks}
        return {rack: sample.value for rack, sample in samples.items() if sample and self._is_answer(sample.at)}

    def _all_racks(self) -> list[BmsHvStatus] | None:
        """What every rack says; None while one of them is silent."""
        racks = self._racks()
        return list(racks.values()) if len(racks) == len(self._config.racks) else None

    def is_connected(self) -> bool:
        """Whether PCS and every rack report closed contactors."""
        pcs, racks = self._pcs(), self._all_racks()
        return (
            pcs is not None
            and racks is not None
            and pcs.contactors is ContactorState.CLOSED
            and all(r.main_plus is r.main_minus is ContactorState.CLOSED for r in racks)
        )

    def signs_of_closed(self) -> str:
        """What says now that high voltage is on, as text; empty if nothing does.  Silence is no sign."""
        pcs, limits = self._pcs(), self._config.hv
        signs = {"PCS": "" if pcs is None else pcs_sign_of_on(pcs, limits)}
        signs |= {f"rack {rack}": rack_sign_of_on(status, limits) for rack, status in self._racks().items()}
        return "; ".join(f"{source}: {sign}" for source, sign in signs.items() if sign)

    async def ramp_down(self) -> None:
        """Order zero power and wait until PCS and racks agree that no current flows.

        Raises PcsNotStopping, or CurrentMismatch when the PCS says zero and a rack does not.
        """
        self._ordered_at = now()
        self._orders.start(PcsCommandCode.ZERO_POWER)
        await until(lambda: self._pcs_stopped() and self._rack_currents_off(), self._config.times.ramp_down_s)
        self._require_no_load()

    def _require_no_load(self) -> None:
        """Raises PcsNotStopping or CurrentMismatch unless fresh answers of all prove that no current flows."""
        if not self._pcs_stopped():
            pcs = self._pcs()
            why = "no fresh PCS_Status" if pcs is None else f"{pcs.state.name}, DC current {pcs.dc_current_a} A"
            raise PcsNotStopping(f"the PCS did not ramp to zero within {self._config.times.ramp_down_s:g} s", why=why)
        if not self._rack_currents_off():
            racks = self._racks()
            currents = ", ".join(
                f"rack {rack} {racks[rack].current_a} A" if rack in racks else f"rack {rack} silent"
                for rack in self._config.racks
            )
            raise CurrentMismatch("the PCS reports no current but the racks do not confirm it", why=currents)

    def _is_off(self, current_a: float | None) -> bool:
        return current_a is not None and abs(current_a) < self._config.hv.current_off_a

    def _pcs_stopped(self) -> bool:
        """The PCS hears us, obeys us, rests, and carries no current."""
        pcs = self._pcs()
        return (
            pcs is not None
            and pcs.remote_control
            and not pcs.heartbeat_lost
            and pcs.state in _AT_REST
            and self._is_off(pcs.dc_current_a)
        )

    def _rack_currents_off(self) -> bool:
        racks = self._all_racks()
        return racks is not None and all(self._is_off(rack.current_a) for rack in racks)

    async def open_contactors(self) -> None:
        """Order PCS and racks open and wait for the feedbacks, then lock.

        Raises PcsNotStopping or CurrentMismatch, and orders nothing, unless it is proved now that no current flows;
        ContactorWelded or ContactorsNotOpening when the plant does not follow.
        """
        self._require_no_load()
        self._order(PcsCommandCode.OPEN)
        opened = await until(self._all_open, self._config.times.contactor_opening_s)
        self._refuse_weld()
        if not opened:
            raise ContactorsNotOpening(
                f"contactors did not open within {self._config.times.contactor_opening_s:g} s", why=self._describe()
            )
        self._order(PcsCommandCode.LOCK)

    def _all_open(self) -> bool:
        pcs, racks = self._pcs(), self._all_racks()
        return (
            pcs is not None
            and racks is not None
            and pcs.contactors is ContactorState.OPEN
            and all(r.main_plus is r.main_minus is r.precharge is ContactorState.OPEN for r in racks)
        )

    def _refuse_weld(self) -> None:
        for rack, status in self._racks().items():
            if status.weld_plus or status.weld_minus:
                pole = "plus" if status.weld_plus else "minus"
                raise ContactorWelded(f"rack {rack} reports its {pole} contactor welded", why="BMS_HvStatus")

    def _describe(self) -> str:
        pcs, racks = self._pcs(), self._racks()
        texts = [f"PCS {pcs.contactors.name if pcs else 'silent'}"]
        for rack in self._config.racks:
            r = racks.get(rack)
            feedbacks = (
                f"main+ {r.main_plus.name}, main- {r.main_minus.name}, precharge {r.precharge.name}" if r else ""
            )
            texts.append(f"rack {rack}: {feedbacks or 'silent'}")
        return "; ".join(texts)

    async def wait_for_discharge(self) -> None:
        """Wait until every rack measures a safe link voltage.  Raises DischargeTimeout, or ContactorWelded."""
        limit = self._config.hv.link_voltage_off_v

        def discharged() -> bool:
            racks = self._all_racks()
            return racks is not None and all(
                rack.link_voltage_v is not None and rack.link_voltage_v < limit for rack in racks
            )

        done = await until(discharged, self._config.times.discharge_s)
        self._refuse_weld()
        if not done:
            racks = self._racks()
            voltages = ", ".join(
                f"rack {rack} {racks[rack].link_voltage_v} V" if rack in racks else f"rack {rack} silent"
                for rack in self._config.racks
            )
            raise DischargeTimeout(
                f"the DC link is not below {limit:g} V after {self._config.times.discharge_s:g} s", why=voltages
            )

    async def hold_open(self) -> None:
        """Leave the plant open and locked, from whatever state: nothing opens unless it is proved without load.

        Raises what `ramp_down` and `open_contactors` raise, and ContactorsNotOpening when the lock is not acknowledged;
        a rack that reports a weld is not proved open.
        """
        if not (self._is_locked() and self._all_open()):
            await self.ramp_down()
            try:
                await self.open_contactors()
            except (ContactorsNotOpening, ContactorWelded):
                self._order(PcsCommandCode.LOCK)  # the PCS at least
                await until(self._is_locked, _LOCK_S)
                raise
        self._order(PcsCommandCode.LOCK)
        if not await until(lambda: (self._is_locked() or self._is_tripped()) and self._all_open(), _LOCK_S):
            raise ContactorsNotOpening(
                "the plant does not acknowledge that it is open and locked", why=self._describe()
            )
        self._refuse_weld()  # whatever the feedback says of that contactor

    def _is_locked(self) -> bool:
        pcs = self._pcs()
        return pcs is not None and pcs.lock_acknowledged

    def _is_tripped(self) -> bool:
        """In these states the PCS acknowledges no lock; only a person ends them."""
        pcs = self._pcs()
        return pcs is not None and pcs.state in (PcsState.FAULT, PcsState.EMERGENCY_STOP)

    async def reconnect(self, refusal: Refusal) -> None:
        """Unlock, close, and see every contactor closed, for as long as there is no `refusal`.

        Raises ReconnectFailed or PrechargeFailed.  Then no order to close stands any more.
        """
        try:
            await self._unlock(refusal)
            await self._close(refusal)
        except BaseException:
            self._order(PcsCommandCode.ZERO_POWER)
            raise

    async def _close(self, refusal: Refusal) -> None:
        self._order(PcsCommandCode.CLOSE, refusal)

        def over() -> bool:
            return self._orders.withdrawn is not None or self.is_connected()

        await until(over, self._config.times.reconnect_s)
        if self._orders.withdrawn is not None or not self.is_connected():
            why = self._describe()
            for rack in self._config.racks:
                alarms, state = self._view.rack(rack).alarms, self._view.rack(rack).state
                if alarms is not None and alarms.value.precharge_failed:
                    raise PrechargeFailed(f"rack {rack} could not precharge the link", why=why)
                if state is not None and state.value.state is RackState.FAULT:
                    raise ReconnectFailed(f"rack {rack} is in fault", why=why)
            self._require_not_withdrawn()
            raise ReconnectFailed(f"contactors did not close within {self._config.times.reconnect_s:g} s", why=why)

    def _require_not_withdrawn(self) -> None:
        reason = self._orders.withdrawn
        if reason is not None:
            raise ReconnectFailed("what was to close the plant was not ordered any more", why=str(reason))

    async def _unlock(self, refusal: Refusal | None = None) -> None:
        self._order(PcsCommandCode.UNLOCK, refusal)

        def unlocked() -> bool:
            pcs = self._pcs()
            return pcs is not None and not pcs.lock_acknowledged

        answered = await until(lambda: self._orders.withdrawn is not None or unlocked(), _UNLOCK_S)
        self._require_not_withdrawn()
        if not answered:
            raise ReconnectFailed("the PCS does not release its lock", why="LockAcknowledged stays set after UNLOCK")

    async def hand_back(self, *, connected: bool) -> None:
        """Give the plant back to its own control, connected or open and unlocked.  Raises ReconnectFailed."""
        if not connected:
            await self._unlock()
        self._order(PcsCommandCode.RELEASE)

        def released() -> bool:
            pcs = self._pcs()
            return pcs is not None and not pcs.remote_control and (not connected or self.is_connected())

        if not await until(released, _RELEASE_S):
            raise ReconnectFailed("the plant does not return to its own control", why=self._describe())
