"""The station bus's messages as typed values.

Names follow the DBC: class `BmsHvStatus` is message ``BMS_HvStatus`` (``BMS_HvStatus_1`` ... one per rack), field
`link_voltage_v` is signal ``LinkVoltage`` with unit V.  Enumerations are the DBC's value tables.  A field that may be
None is None when the signal carries its DBC value ``Invalid``.  Identifiers, scaling, cycle times and E2E data IDs are
in the DBC only; `ess_can.signals.dbc` binds both sides and refuses to start when they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ess_can.identity import NodeType, Version


class ContactorState(IntEnum):
    """Feedback of one contactor's auxiliary contacts."""

    OPEN = 0
    CLOSED = 1
    MOVING = 2
    INVALID = 3


class PcsCommandCode(IntEnum):
    """What the EMS orders.  OPEN and CLOSE are for the PCS and for every rack; LOCK holds until UNLOCK."""

    RELEASE = 0
    RUN = 1
    ZERO_POWER = 2
    OPEN = 3
    LOCK = 4
    UNLOCK = 5
    CLOSE = 6


class PcsState(IntEnum):
    """Operating state of the PCS."""

    INIT = 0
    STANDBY = 1
    RUNNING = 2
    RAMPING = 3
    CLOSING = 4
    FAULT = 5
    EMERGENCY_STOP = 6


class RackState(IntEnum):
    """Operating state of a rack's high-voltage part."""

    INIT = 0
    OPEN = 1
    PRECHARGING = 2
    CLOSED = 3
    FAULT = 4


class HvNoticeCondition(IntEnum):
    """What a BMU's notification says about high voltage."""

    NOT_DISCONNECTED = 0
    DISCONNECTED = 1
    WELDED = 2
    UNKNOWN = 3


class UpgradePhase(IntEnum):
    """Phase of the upgrade that EMS_UpgradeNotice announces."""

    NONE = 0
    PREPARING = 1
    PROGRAMMING = 2
    ACTIVATING = 3
    RECONNECTING = 4


class ImageState(IntEnum):
    """Standing of the image that a node runs."""

    CONFIRMED = 0
    TRIAL = 1
    RECOVERY = 2


@dataclass(frozen=True, slots=True)
class Message:
    """What every message of the station is."""


@dataclass(frozen=True, slots=True)
class EmsPcsCommand(Message):
    """EMS_PcsCommand: the EMS's order, cyclic, E2E.  Positive power discharges the battery."""

    command: PcsCommandCode
    power_setpoint_kw: float = 0.0
    upgrade_active: bool = False


@dataclass(frozen=True, slots=True)
class EmsHvStatusPoll(Message):
    """EMS_HvStatusPoll: asks every BMU for a BMS_HvNotice; `token` is a random 24-bit number."""

    token: int


@dataclass(frozen=True, slots=True)
class EmsUpgradeNotice(Message):
    """EMS_UpgradeNotice: which node is being upgraded and may be silent; `session` is random per gateway run."""

    phase: UpgradePhase
    target_type: NodeType
    target_index: int
    silent_up_to_s: float
    session: int


@dataclass(frozen=True, slots=True)
class PcsStatus(Message):
    """PCS_Status: cyclic, E2E."""

    state: PcsState
    contactors: ContactorState
    lock_acknowledged: bool
    remote_control: bool
    grid_service_active: bool
    emergency_stop: bool
    heartbeat_lost: bool
    fault_code: int
    dc_current_a: float | None


@dataclass(frozen=True, slots=True)
class BmsHvStatus(Message):
    """BMS_HvStatus_<rack>: cyclic, E2E.  `link_voltage_v` is measured on the PCS side of the rack's contactors."""

    main_plus: ContactorState
    main_minus: ContactorState
    precharge: ContactorState
    hvil_closed: bool
    weld_plus: bool
    weld_minus: bool
    hv_off: bool
    emergency_stop: bool
    link_voltage_v: float | None
    current_a: float | None


@dataclass(frozen=True, slots=True)
class BmsHvNotice(Message):
    """BMS_HvNotice_<rack>: the notification that answers a poll, E2E.  `off_duration_s` saturates at 409.5 s."""

    token: int
    condition: HvNoticeCondition
    off_duration_s: float


@dataclass(frozen=True, slots=True)
class BmsState(Message):
    """BMS_State_<rack>: cyclic telemetry."""

    state: RackState
    soc_percent: float | None
    string_voltage_v: float | None
    aux_voltage_v: float | None


@dataclass(frozen=True, slots=True)
class BmsCellSummary(Message):
    """BMS_Cells_<rack>, multiplexer page 0: the extremes over the rack's cells."""

    cell_voltage_min_v: float | None
    cell_voltage_max_v: float | None
    cell_temperature_min_degc: float | None
    cell_temperature_max_degc: float | None


@dataclass(frozen=True, slots=True)
class BmsCellGroup(Message):
    """BMS_Cells_<rack>, multiplexer pages 1 to 4: three cell voltages each."""

    page: int
    cell_voltage_a_v: float | None
    cell_voltage_b_v: float | None
    cell_voltage_c_v: float | None


@dataclass(frozen=True, slots=True)
class BmsAlarms(Message):
    """BMS_Alarms_<rack>: active alarms."""

    overvoltage: bool = False
    undervoltage: bool = False
    overtemperature: bool = False
    undertemperature: bool = False
    overcurrent: bool = False
    insulation: bool = False
    hvil_open: bool = False
    emergency_stop: bool = False
    fire: bool = False
    weld: bool = False
    precharge_failed: bool = False
    internal_fault: bool = False


BOOT_COUNTER_MODULUS: Final = 16
"""What Node_Info has room for of a node's boot counter."""


@dataclass(frozen=True, slots=True)
class NodeInfo(Message):
    """Node_Info_<node>: who a node is and what it runs.  `boot_counter` counts modulo `BOOT_COUNTER_MODULUS`."""

    node_type: NodeType
    bank: int
    boot_counter: int
    image_state: ImageState
    dbc_fingerprint: int
    hardware_id: int
    version_major: int
    version_minor: int
    version_revision: int

    @property
    def version(self) -> Version:
        """The running firmware's version."""
        return Version(self.version_major, self.version_minor, self.version_revision)
