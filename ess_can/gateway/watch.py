"""What ends an upgrade at once, wherever it stands: an emergency, high voltage that comes back unasked, another master,
the loss of the bus.
"""

from __future__ import annotations

from collections.abc import Callable

from ess_can.bus.clock import Guard
from ess_can.bus.station import Received, StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, ContactorWelded, EmergencyStop, EssCanError, OtherGateway, PcsFault
from ess_can.gateway.foreign import ForeignFrame, id_conflict, is_notice
from ess_can.signals.messages import (
    BmsAlarms,
    BmsHvStatus,
    EmsUpgradeNotice,
    PcsState,
    PcsStatus,
)


class PlantWatch(Guard):
    """A guard over the whole upgrade, tripped by what the station's messages say and by who else speaks as we do.

    After an emergency the plant is never reconnected by this tool: `forbids_reconnect`, the gravest there was.  What
    goes on after other ends, as taking images back does, runs under `emergency`, which nothing but an emergency trips.
    A warning of the bus ends nothing: it is kept as `last_warning` and told to `on_warning`.
    """

    def __init__(self, link: StationLink) -> None:
        super().__init__()
        self.forbids_reconnect: EssCanError | None = None
        self.emergency = Guard()
        self.last_warning: BusError | None = None
        self.on_warning: Callable[[BusError], None] | None = None
        self._codec = link.codec
        self._guarded = link.codec.gateway_messages
        self._unwatch = link.bus.watch(self._on_bus)
        self._unsubscribe = link.bus.subscribe(self._guarded, self._on_foreign)
        link.subscribe(PcsStatus, self._on_pcs)
        link.subscribe(BmsHvStatus, self._on_rack)
        link.subscribe(BmsAlarms, self._on_alarms)
        link.subscribe(EmsUpgradeNotice, self._on_foreign_notice)
        self._armed = False

    def arm(self) -> None:
        """Watch from now on (before that the policy judges the same facts and refuses)."""
        self._armed = True

    def close(self) -> None:
        """Stop watching."""
        self._armed = False
        self._unwatch()
        self._unsubscribe()

    def _on_bus(self, error: BusError) -> None:
        if error.ends_use:
            self.trip(error)
            return
        self.last_warning = error
        if self.on_warning is not None:
            self.on_warning(error)

    def on_emergency(self, error: EssCanError) -> None:
        """Something was seen, here or elsewhere, after which a person must look first."""
        if not self._armed:
            return
        known = self.forbids_reconnect
        if known is None or (isinstance(error, EmergencyStop) and not isinstance(known, EmergencyStop)):
            self.forbids_reconnect = error
        self.emergency.trip(error)
        self.trip(error)

    def _on_pcs(self, received: Received[PcsStatus]) -> None:
        status = received.message
        if status.emergency_stop or status.state is PcsState.EMERGENCY_STOP:
            self.on_emergency(EmergencyStop("an emergency stop was pressed during the upgrade", why="PCS_Status"))
        elif status.state is PcsState.FAULT:
            self.on_emergency(PcsFault("the PCS went into fault during the upgrade", why=f"code {status.fault_code}"))

    def _on_rack(self, received: Received[BmsHvStatus]) -> None:
        status, name = received.message, f"rack {received.index}"
        if status.emergency_stop:
            self.on_emergency(EmergencyStop(f"{name} reports an emergency stop", why="BMS_HvStatus"))
        elif not status.hvil_closed:
            self.on_emergency(EmergencyStop(f"{name} reports an open HV interlock loop", why="BMS_HvStatus"))
        elif status.weld_plus or status.weld_minus:
            self.on_emergency(ContactorWelded(f"{name} reports a welded contactor", why="BMS_HvStatus"))

    def _on_alarms(self, received: Received[BmsAlarms]) -> None:
        alarms, name = received.message, f"rack {received.index}"
        if alarms.fire or alarms.emergency_stop or alarms.insulation or alarms.hvil_open:
            active = [field for field in alarms.__dataclass_fields__ if getattr(alarms, field)]
            self.on_emergency(EmergencyStop(f"{name} reports an emergency", why=", ".join(active)))
        elif alarms.weld:
            self.on_emergency(ContactorWelded(f"{name} reports a welded contactor", why="BMS_Alarms"))

    def _on_foreign(self, frame: CanFrame, at: float) -> None:
        if self._armed and not is_notice(self._codec, frame):
            self.trip(id_conflict(ForeignFrame(self._guarded[frame.can_id], frame, at)))

    def _on_foreign_notice(self, received: Received[EmsUpgradeNotice]) -> None:
        if self._armed:
            session = received.message.session
            self.trip(OtherGateway("another gateway began an upgrade", why=f"EMS_UpgradeNotice {session:#06x}"))
