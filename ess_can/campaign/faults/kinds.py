"""Every kind of fault that can be put into a simulated station, and what all faults have in common."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from ess_can.campaign.station import Fault as StationFault


class FaultKind(Enum):
    """Each is reached in a campaign, or the campaign has a gap.  The value says what happens, for people."""

    FRAME_LOST = "a frame is lost"
    FRAME_DUPLICATED = "a frame is received twice"
    FRAME_SWAPPED = "a frame is received after the next one"
    FRAME_CORRUPTED = "a frame is received with other bits, unnoticed by CAN"
    FRAME_DELAYED = "a frame is received late"

    BUS_PASSIVE = "the gateway's controller becomes error passive"
    BUS_OFF = "the gateway's controller goes bus-off, once or as often as is said"
    BUS_SILENT = "nobody hears anybody"
    BUS_BABBLER = "somebody fills the bus with frames that win every arbitration, to so many percent"
    BUS_FOREIGN = "somebody sends frames with one of the gateway's own identifiers"
    BUS_SECOND_GATEWAY = "a second gateway announces that it upgrades this plant"
    BUS_ERRORS = "so many transmissions in a row end with an error"

    NODE_RESET = "a node restarts"
    NODE_POWER_LOST = "a node loses its supply for some seconds"
    NODE_HANGS = "a node hangs until its watchdog restarts it"
    NODE_SLOW = "a node answers late by so many seconds"
    NODE_REFUSES = "a node answers with this negative response code"
    NODE_GARBAGE = "a node answers with nonsense"
    NODE_WRONG_COUNTER = "a node answers with a wrong block counter"
    NODE_IMPOSTOR = "another node answers, with a serial number of its own"
    FIRMWARE_HANGS = "the new firmware never gets to its main loop"
    FIRMWARE_MUTE = "the new firmware sends no HV status"
    FIRMWARE_WRONG_SCALE = "the new firmware reports voltages with a wrong scale"
    FIRMWARE_BOOT_LOOPS = "the new firmware restarts itself again and again"

    CUT_BEFORE = "a node loses power just before a memory operation"
    CUT_PREFIX = "a node loses power in a memory operation, whose first part is done"
    CUT_BITS = "a node loses power in a memory operation, some of whose bits are done"
    CUT_UNSTABLE = "a node loses power in a memory operation, which leaves undecided cells"
    CUT_AFTER = "a node loses power just after a memory operation, before anybody knows"
    FLASH_UNREADABLE = "a unit of the slot that does not run cannot be read"
    FLASH_WORN = "a sector cannot be erased or programmed any more, and says so"
    FLASH_DEFECT = "a sector keeps wrong bits and does not say so"
    FLASH_ROT = "bits of the slot that does not run flip by themselves"
    FLASH_ROT_RUNNING = "bits of the running image flip by themselves"

    RAMP_IGNORED = "the PCS does not ramp its current down"
    PCS_CURRENT_STUCK = "the PCS's current sensor reads 0 A"
    RACK_CURRENT_STUCK = "a rack's current sensor reads 0 A"
    WELD_PLUS = "a rack's main+ contactor does not open any more"
    WELD_MINUS = "a rack's main- contactor does not open any more"
    FEEDBACK_OPEN = "a contactor reports open whatever it is"
    FEEDBACK_CLOSED = "a contactor reports closed whatever it is"
    LINK_CHARGED = "the link does not discharge"
    VOLTAGE_INVALID = "a rack's link voltage is invalid"
    VOLTAGE_FROZEN = "a rack's link voltage stays what it was"
    HV_STATUS_LOST = "nobody hears a rack's HV status"
    HV_STATUS_BAD = "a rack's HV status fails its end-to-end check"
    HV_CLOSES = "somebody energises the link by hand"
    HEARTBEAT_UNHEARD = "nobody hears the gateway's orders"
    PCS_RESTARTS = "the PCS restarts"
    EMERGENCY_STOP = "somebody presses an emergency stop"
    INSULATION = "a rack's insulation fails"
    FIRE = "a rack reports fire"
    HVIL_OPEN = "a rack's HVIL loop opens"
    AUX_LOW = "a rack's auxiliary supply is low"
    SOC_LOW = "all racks are nearly empty"
    PRECHARGE_FAILS = "a rack's precharge contactor does not close"
    STRINGS_APART = "a rack's voltage is far from the others'"
    GRID_SERVICE = "a grid service is active"
    CELL_HIGH = "a cell's voltage is out of the allowed band"
    CELL_UNKNOWN = "a cell's voltage is not known"
    CELL_HOT = "a cell's temperature is out of the allowed band"

    KILL_AT_TIME = "the gateway's process is killed"
    KILL_AT_STEP = "the gateway's process is killed at one of its steps"
    KILL_BEFORE_COMMIT = "the gateway's process is killed before a journal entry is on the disk"
    KILL_AFTER_COMMIT = "the gateway's process is killed when a journal entry is just on the disk"
    GATEWAY_POWER_LOST = "the gateway's computer loses its supply"
    GATEWAY_STARVED = "the gateway's process gets no processor time for some seconds"
    GATEWAY_SUSPENDED = "the gateway's computer sleeps for some seconds"
    CLOCK_JUMPS = "the gateway's wall clock jumps by so many seconds"
    DISK_FULL = "the gateway's disk is full from a journal entry on"
    DISK_ERROR = "the gateway's disk fails at a journal entry"
    ADAPTER_UNPLUGGED = "the gateway's adapter is unplugged"
    INTERRUPTED = "somebody interrupts the upgrade, as with Ctrl-C"


class Fault(StationFault, Protocol):
    """A fault: a frozen dataclass."""

    @property
    def kind(self) -> FaultKind:
        """Which."""
