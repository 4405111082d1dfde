"""Taking high voltage off, and putting it back.

Off: current to zero first, then contactors open, then the lock, then the proof by the racks themselves.  Back: unlock,
close (each rack precharges), then hand the plant back to its own control.
"""

from __future__ import annotations

from ess_can.bus.clock import until
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
from ess_can.gateway.orders import Orders
from ess_can.gateway.plant_view import PlantView
from ess_can.signals.messages import BmsHvStatus, ContactorState, PcsCommandCode, PcsStatus, RackState

_UNLOCK_S = 1.0
_RELEASE_S = 1.0


class Isolation:
    """Orders the plant's high voltage off and on again, and watches that it obeys."""

    def __init__(self, view: PlantView, orders: Orders, config: GatewayConfig) -> None:
        self._view = view
        self._orders = orders
        self._config = config

    def _pcs(self) -> PcsStatus | None:
        return None if self._view.pcs is None else self._view.pcs.value

    def _racks(self) -> list[BmsHvStatus]:
        views = (self._view.rack(rack).hv for rack in self._config.racks)
        return [view.value for view in views if view is not None]

    def is_connected(self) -> bool:
        """Whether PCS and every rack report closed contactors."""
        pcs = self._pcs()
        return (
            pcs is not None
            and pcs.contactors is ContactorState.CLOSED
            and all(r.main_plus is r.main_minus is ContactorState.CLOSED for r in self._racks())
        )

    async def ramp_down(self) -> None:
        """Order zero power and wait until PCS and racks agree that no current flows.

        Raises PcsNotStopping, or CurrentMismatch when the PCS says zero and a rack does not.
        """
        self._orders.start(PcsCommandCode.ZERO_POWER)
        if await until(lambda: self._pcs_current_off() and self._rack_currents_off(), self._config.times.ramp_down_s):
            return
        if self._pcs_current_off():
            currents = ", ".join(f"{rack.current_a} A" for rack in self._racks())
            raise CurrentMismatch("the PCS reports no current but the racks do", why=f"racks: {currents}")
        pcs = self._pcs()
        raise PcsNotStopping(
            f"the PCS did not ramp to zero within {self._config.times.ramp_down_s:g} s",
            why=f"its DC current is {pcs.dc_current_a if pcs else None} A",
        )

    def _pcs_current_off(self) -> bool:
        pcs = self._pcs()
        current = None if pcs is None else pcs.dc_current_a
        return current is not None and abs(current) < self._config.hv.current_off_a

    def _rack_currents_off(self) -> bool:
        limit = self._config.hv.current_off_a
        return all(r.current_a is not None and abs(r.current_a) < limit for r in self._racks())

    async def open_contactors(self) -> None:
        """Order PCS and racks open and wait for the feedbacks; only ever called without load.

        Raises ContactorWelded or ContactorsNotOpening.
        """
        self._orders.give(PcsCommandCode.OPEN)
        opened = await until(self._all_open, self._config.times.contactor_opening_s)
        self._refuse_weld()
        if not opened:
            raise ContactorsNotOpening(
                f"contactors did not open within {self._config.times.contactor_opening_s:g} s", why=self._describe()
            )
        self._orders.give(PcsCommandCode.LOCK)

    def _all_open(self) -> bool:
        pcs = self._pcs()
        return (
            pcs is not None
            and pcs.contactors is ContactorState.OPEN
            and all(r.main_plus is r.main_minus is r.precharge is ContactorState.OPEN for r in self._racks())
        )

    def _refuse_weld(self) -> None:
        for rack, status in zip(self._config.racks, self._racks(), strict=False):
            if status.weld_plus or status.weld_minus:
                pole = "plus" if status.weld_plus else "minus"
                raise ContactorWelded(f"rack {rack} reports its {pole} contactor welded", why="BMS_HvStatus")

    def _describe(self) -> str:
        pcs = self._pcs()
        racks = "; ".join(
            f"rack {rack}: main+ {r.main_plus.name}, main- {r.main_minus.name}, precharge {r.precharge.name}"
            for rack, r in zip(self._config.racks, self._racks(), strict=False)
        )
        return f"PCS {pcs.contactors.name if pcs else 'silent'}; {racks}"

    async def wait_for_discharge(self) -> None:
        """Wait until every rack measures a safe link voltage.  Raises DischargeTimeout, or ContactorWelded."""
        limit = self._config.hv.link_voltage_off_v

        def discharged() -> bool:
            voltages = [rack.link_voltage_v for rack in self._racks()]
            return all(voltage is not None and voltage < limit for voltage in voltages)

        done = await until(discharged, self._config.times.discharge_s)
        self._refuse_weld()
        if not done:
            voltages = ", ".join(f"{rack.link_voltage_v} V" for rack in self._racks())
            raise DischargeTimeout(
                f"the DC link is not below {limit:g} V after {self._config.times.discharge_s:g} s", why=voltages
            )

    async def reconnect(self) -> None:
        """Unlock, close, and see every contactor closed.  Raises ReconnectFailed or PrechargeFailed."""
        await self._unlock()
        self._orders.give(PcsCommandCode.CLOSE)
        if not await until(self.is_connected, self._config.times.reconnect_s):
            why = self._describe()
            for rack in self._config.racks:
                alarms, state = self._view.rack(rack).alarms, self._view.rack(rack).state
                if alarms is not None and alarms.value.precharge_failed:
                    raise PrechargeFailed(f"rack {rack} could not precharge the link", why=why)
                if state is not None and state.value.state is RackState.FAULT:
                    raise ReconnectFailed(f"rack {rack} is in fault", why=why)
            raise ReconnectFailed(f"contactors did not close within {self._config.times.reconnect_s:g} s", why=why)

    async def _unlock(self) -> None:
        self._orders.give(PcsCommandCode.UNLOCK)
        if not await until(lambda: (pcs := self._pcs()) is not None and not pcs.lock_acknowledged, _UNLOCK_S):
            raise ReconnectFailed("the PCS does not release its lock", why="LockAcknowledged stays set after UNLOCK")

    async def hand_back(self, *, unlock: bool) -> None:
        """Give the plant back to its own control, with its contactors as they are.  Raises ReconnectFailed."""
        if unlock:
            await self._unlock()
        self._orders.give(PcsCommandCode.RELEASE)
        if not await until(lambda: (pcs := self._pcs()) is not None and not pcs.remote_control, _RELEASE_S):
            raise ReconnectFailed("the PCS does not return to its own control", why="RemoteControl stays set")
