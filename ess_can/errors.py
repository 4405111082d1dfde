"""The one error tree.

Each failure has exactly one class.  A class says who is at fault (`blame`), the exit code of the
command line (unique, grouped by decade) and what to do (`remedy`); an instance adds what happened and why.

Exit codes: 0 done, 1 internal, 2 usage, 3 interrupted, 4 simulation, 5-19 adapter and bus, 20-39 upgrade file,
40-69 the plant refuses or the interlock does not hold, 70-89 transport and diagnostics,
90-99 the node's verdict, 100-109 how an upgrade ended short of success, 110-119 the journal, 120-129 what a
campaign of simulated upgrades found.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import ClassVar


class Blame(Enum):
    """Who has to act."""

    US = "ess-can"
    OPERATOR = "the operator"
    FILE = "the upgrade file"
    BUS = "the bus or the adapter"
    PLANT = "the plant"
    NODE = "the node"


class EssCanError(Exception):
    """Root of all errors of this package.

    `what` is one sentence that says what happened; `why` the evidence; `remedy` what to do (the class's unless given).
    """

    exit_code: ClassVar[int] = 1
    blame: ClassVar[Blame] = Blame.US
    default_remedy: ClassVar[str] = "Please report this as a bug, with the command and its output."

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy or self.default_remedy

    @property
    def name(self) -> str:
        """The stable name that scripts match on, for example ``BUS_SILENT``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).upper()

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what

    def describe(self) -> dict[str, object]:
        """What happened, who has to act, and what to do, for JSON."""
        return {
            "name": self.name,
            "message": str(self),
            "why": self.why,
            "blame": self.blame.value,
            "remedy": self.remedy,
        }


# --- usage and process ------------------------------------------------------------------------


class UsageError(EssCanError):
    """The command or the call makes no sense as given."""

    exit_code = 2
    blame = Blame.OPERATOR
    default_remedy = "See --help."


class Interrupted(EssCanError):
    """The operator stopped the upgrade; the plant was left safe."""

    exit_code = 3
    blame = Blame.OPERATOR
    default_remedy = "Run the same command again: what is already programmed is not sent twice."


class SimulationDeadlock(EssCanError):
    """In virtual time, everybody waits and no timer is left that could wake anyone."""

    exit_code = 4


# --- 5-19 adapter and bus ---------------------------------------------------------------------


class BusError(EssCanError):
    """The adapter or the bus fails us."""

    exit_code = 10
    blame = Blame.BUS
    default_remedy = "Check adapter, wiring, termination and bit rate."
    ends_use: ClassVar[bool] = True
    """Whether the bus cannot be used any more; False for a warning."""


class TraceUnwritable(EssCanError):
    """The file for the trace cannot be written."""

    exit_code = 5
    blame = Blame.OPERATOR
    default_remedy = "Give --trace a file in a directory that exists, on a disk with room; or leave --trace out."


class TemporaryFileFailed(EssCanError):
    """The private copy of the upgrade file, from which it is checked and sent, cannot be written or read."""

    exit_code = 6
    blame = Blame.OPERATOR
    default_remedy = "Make room in the directory for temporary files, or let TMPDIR name one with room for the file."


class InterfaceDown(BusError):
    """The CAN interface exists, but it is down."""

    exit_code = 7
    default_remedy = "Bring it up: `ip link set CHANNEL up`, with its bit rate set before on a real bus."


class TransmitStalled(BusError):
    """The driver takes our frames, but confirms none as sent."""

    exit_code = 8
    default_remedy = "Nothing acknowledges our frames, or the adapter hangs: check wiring and bit rate, then replug it."


class ErrorPassive(BusError):
    """The controller is error passive: most of what it sends or receives fails."""

    exit_code = 9
    default_remedy = "Check the bit rate first, then termination, wiring, and that another node is powered."
    ends_use = False


class InterfaceUnavailable(BusError):
    """The CAN interface cannot be opened."""

    exit_code = 11
    default_remedy = "List what exists with `ip -brief link show type can` or `python -m can.viewer --help`."


class AdapterLost(BusError):
    """The adapter vanished or its driver stopped."""

    exit_code = 12
    default_remedy = (
        "Replug the adapter, look with `ess-can status`, and run the command again; "
        "without our heartbeat the PCS ramps to zero by itself."
    )


class BusOff(BusError):
    """The controller went bus-off."""

    exit_code = 13


class BusInterrupted(BusOff):
    """The controller went bus-off and is being restarted; what was queued is gone."""

    exit_code = 108
    ends_use = False


class BusUnusable(BusOff):
    """The controller went bus-off again and again; it is not restarted any more."""

    exit_code = 109
    default_remedy = "Check wiring, termination and bit rate with the bus unused; then `ess-can resume`."


class BusSilent(BusError):
    """Nothing is heard on the bus."""

    exit_code = 14
    default_remedy = "Check that the plant is powered and that interface, channel and bit rate are right."


class TransmitQueueFull(BusError):
    """A frame could not be handed to the controller within its deadline."""

    exit_code = 15
    default_remedy = "Nothing acknowledges our frames, or the bus is overloaded: check wiring, bit rate and load."


class DbcMismatch(BusError):
    """The DBC does not describe what the code expects, or the plant runs with another DBC."""

    exit_code = 16
    blame = Blame.OPERATOR
    default_remedy = "Use the DBC that belongs to this version of ess-can and to the plant's firmware."


class IdConflict(BusError):
    """Somebody else sends on an identifier that is ours."""

    exit_code = 17
    default_remedy = "Find the node that sends on this identifier; two masters must never command one plant."


class OtherGateway(BusError):
    """Another gateway is upgrading this plant."""

    exit_code = 18
    default_remedy = "Wait until the other upgrade has ended."


class NoValidTraffic(BusError):
    """Frames are heard, but none of the plant's."""

    exit_code = 19
    default_remedy = "Check bit rate and channel; `ess-can status` shows what is heard."


# --- 20-39 upgrade file -----------------------------------------------------------------------


class UpgradeFileError(EssCanError):
    """The upgrade file is not acceptable.  Nothing was sent to the plant."""

    exit_code = 20
    blame = Blame.FILE
    default_remedy = "Obtain the file again from its publisher; `ess-can image show FILE` tells what it holds."


class FileUnreadable(UpgradeFileError):
    """The path cannot be read as a file."""

    exit_code = 21
    blame = Blame.OPERATOR
    default_remedy = "Give the path of a readable upgrade file."


class FileEmpty(UpgradeFileError):
    """The file has no bytes."""

    exit_code = 22


class FileTooLarge(UpgradeFileError):
    """The file, or an image in it, exceeds the limits."""

    exit_code = 23


class NotAnUpgradeFile(UpgradeFileError):
    """The file does not start as an upgrade file does."""

    exit_code = 24


class FileTruncated(UpgradeFileError):
    """The file ends before what it announces."""

    exit_code = 25


class TrailingBytes(UpgradeFileError):
    """Bytes follow the announced end: nothing covers them."""

    exit_code = 26


class ManifestInvalid(UpgradeFileError):
    """The signed manifest breaks a rule of the format."""

    exit_code = 27


class SignatureInvalid(UpgradeFileError):
    """A signature does not match the bytes that it covers."""

    exit_code = 28


class SignatureMissing(UpgradeFileError):
    """There is no signature."""

    exit_code = 29


class UnknownKey(UpgradeFileError):
    """Signed by a key that is not trusted here."""

    exit_code = 30
    default_remedy = "Pass the publisher's public key with --trusted-key if you trust it, else reject the file."


class TestKeyRefused(UpgradeFileError):
    """Signed by a published test key, which is no signature outside a bench."""

    __test__ = False  # not a test case
    exit_code = 31
    default_remedy = "Sign with a production key; test keys are accepted with --sim and --bench only."


class ImageCorrupt(UpgradeFileError):
    """An image does not have the length, hash or CRC that the signed manifest announces."""

    exit_code = 32


class ImageInvalid(UpgradeFileError):
    """An image is not a well-formed MCUboot image, or lacks a protected field that we need."""

    exit_code = 33


class WrongNodeType(UpgradeFileError):
    """The file names a node type that this plant does not have, or manifest and image disagree on it."""

    exit_code = 34


class WrongHardware(UpgradeFileError):
    """The image is for other hardware."""

    exit_code = 35


class VersionDowngrade(UpgradeFileError):
    """The image is older than what runs."""

    exit_code = 36


class SecurityDowngrade(UpgradeFileError):
    """The image's security counter is lower than the node's."""

    exit_code = 37


class UpgradeFileExpired(UpgradeFileError):
    """The publisher's signed expiry date has passed."""

    exit_code = 38
    default_remedy = "Obtain the publisher's current release; check this machine's date if that is what you have."


class SecurityCounterJump(UpgradeFileError):
    """The image's security counter is so far ahead of the node's that no later release could follow it."""

    exit_code = 39


# --- 40-69 the plant refuses ------------------------------------------------------------------


class PlantRefusal(EssCanError):
    """The plant's state does not allow an upgrade.  Nothing was changed."""

    exit_code = 40
    blame = Blame.PLANT
    default_remedy = "Bring the plant into a state that allows the upgrade, then run the command again."


class PcsFault(PlantRefusal):
    """The PCS reports a fault."""

    exit_code = 41


class DispatchActive(PlantRefusal):
    """A grid service is active."""

    exit_code = 42
    default_remedy = "End the grid service, or wait for it to end."


class EmergencyStop(PlantRefusal):
    """An emergency stop is active."""

    exit_code = 43
    default_remedy = "Find and clear the cause on site; the plant is never reconnected by this tool after it."


class BmsFault(PlantRefusal):
    """A BMS reports an active fault or alarm."""

    exit_code = 44


class SocOutOfBand(PlantRefusal):
    """State of charge is outside the allowed band."""

    exit_code = 45


class CellVoltageOutOfBand(PlantRefusal):
    """A cell voltage is outside the allowed band."""

    exit_code = 46


class CellTemperatureOutOfBand(PlantRefusal):
    """A cell temperature is outside the allowed band."""

    exit_code = 47


class AuxSupplyLow(PlantRefusal):
    """The auxiliary supply is too low to be sure of finishing."""

    exit_code = 48


class NodeMissing(PlantRefusal):
    """An expected node is not heard."""

    exit_code = 49


class NodeUnhealthy(PlantRefusal):
    """A node runs an unconfirmed image or is in recovery."""

    exit_code = 50


class ContactorWelded(PlantRefusal):
    """A contactor does not open.  Latched."""

    exit_code = 51
    default_remedy = "A qualified person must inspect and clear it on site."


class PcsNotStopping(PlantRefusal):
    """The PCS did not ramp its current to zero in time."""

    exit_code = 52


class CurrentMismatch(PlantRefusal):
    """PCS and BMS disagree on the current."""

    exit_code = 53


class ContactorsNotOpening(PlantRefusal):
    """Contactors did not open in time."""

    exit_code = 54


class DischargeTimeout(PlantRefusal):
    """The DC link stayed above the safe voltage."""

    exit_code = 55


class HvOffNotProved(PlantRefusal):
    """The evidence for HV off did not become complete in time."""

    exit_code = 56


class HvPermitRevoked(PlantRefusal):
    """The evidence for HV off was lost or contradicted while work depended on it."""

    exit_code = 57


class HvClosed(PlantRefusal):
    """High voltage came back while nodes were being programmed."""

    exit_code = 58
    default_remedy = "Find out who closed the contactors before trying again."


class ReconnectFailed(PlantRefusal):
    """High voltage could not be reconnected after the upgrade."""

    exit_code = 59
    default_remedy = "The plant is held open and safe; look at the alarms, then reconnect by the EMS."


class PrechargeFailed(ReconnectFailed):
    """Precharge did not bring the link to string voltage."""

    exit_code = 60


class DependencyUnmet(PlantRefusal):
    """Another node type runs firmware that is too old for the release."""

    exit_code = 61
    default_remedy = "Upgrade the other node type first, or use a release that holds both in the right order."


# --- 70-89 transport and diagnostics ----------------------------------------------------------


class PartlyConnected(PlantRefusal):
    """Some contactors of the plant are closed and others open: there is no state to put it back to."""

    exit_code = 62
    default_remedy = "Connect or disconnect the whole plant by the EMS first."


class PlantLocked(PlantRefusal):
    """The PCS is locked by an upgrade that did not end, so nobody can tell how the plant should be left."""

    exit_code = 63
    default_remedy = "Say --reconnect to close high voltage after this upgrade, or --hold-open to leave it open."


class BusOverloaded(PlantRefusal):
    """Others leave too little of the bus: commands and evidence would be late."""

    exit_code = 64
    blame = Blame.BUS
    default_remedy = "Find the node that floods the bus (`ess-can monitor` shows the load of each identifier)."


class IsoTpError(EssCanError):
    """An ISO-TP transfer failed (ISO 15765-2)."""

    exit_code = 70
    blame = Blame.NODE
    default_remedy = "Check that the node is powered and that nothing else uses its diagnostic identifiers."


class NTimeoutA(IsoTpError):
    """N_TIMEOUT_A: our frame was not confirmed as sent."""

    exit_code = 71
    blame = Blame.BUS


class NTimeoutBs(IsoTpError):
    """N_TIMEOUT_Bs: no flow control arrived."""

    exit_code = 72


class NTimeoutCr(IsoTpError):
    """N_TIMEOUT_Cr: no consecutive frame arrived."""

    exit_code = 73


class NWrongSn(IsoTpError):
    """N_WRONG_SN: a consecutive frame had the wrong sequence number."""

    exit_code = 74


class NInvalidFs(IsoTpError):
    """N_INVALID_FS: a flow control had an invalid status."""

    exit_code = 75


class NUnexpPdu(IsoTpError):
    """N_UNEXP_PDU: a new message ended the one under reception."""

    exit_code = 76


class NWftOvrn(IsoTpError):
    """N_WFT_OVRN: more wait frames than allowed."""

    exit_code = 77


class NBufferOvflw(IsoTpError):
    """N_BUFFER_OVFLW: the receiver has no room for the message."""

    exit_code = 78


class IsoTpTooSlow(IsoTpError):
    """The message moved, but slower than the minimum rate: every single time-out was just met."""

    exit_code = 79
    default_remedy = "The node or the bus is overloaded, or somebody stalls the transfer on purpose: look at bus load."


class UdsError(EssCanError):
    """A diagnostic exchange failed (ISO 14229-1)."""

    exit_code = 80
    blame = Blame.NODE
    default_remedy = "Run the command again; if it persists, read the node's identifiers with any UDS tool."


class UdsTimeout(UdsError):
    """No answer within P2, P2* or the total cap."""

    exit_code = 81


class UdsNegativeResponse(UdsError):
    """The node answered with a negative response code: `nrc`, to a request of `service`."""

    exit_code = 82

    def __init__(self, what: str, *, why: str = "", remedy: str = "", service: int = 0, nrc: int = 0) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.service = service
        self.nrc = nrc


class UdsProtocolError(UdsError):
    """The node's answer does not fit the request."""

    exit_code = 83


class AccessDenied(UdsError):
    """The node did not accept our authentication, or is locked for now: its response code `nrc`, 0 if none was had."""

    exit_code = 84
    default_remedy = "Check the access secret; after too many attempts the node stays locked for its delay time."

    def __init__(self, what: str, *, why: str = "", remedy: str = "", nrc: int = 0) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.nrc = nrc


class WrongTarget(UdsError):
    """The node that answers is not the one the upgrade is for."""

    exit_code = 85


# --- 90-99 the node's verdict -----------------------------------------------------------------


class VerificationFailed(EssCanError):
    """The node did not accept the image that it read back from flash."""

    exit_code = 90
    blame = Blame.NODE
    default_remedy = "The node still runs its old image. Run the command again; then suspect its flash."


class FlashWriteFailed(VerificationFailed):
    """The node could not erase or program its flash."""

    exit_code = 91


class TrialBootFailed(EssCanError):
    """The node did not come up with the new image."""

    exit_code = 92
    blame = Blame.FILE
    default_remedy = "The node reverts to its old image by itself. Report the image to its publisher."


class ConfirmFailed(EssCanError):
    """A node running the new image on trial could not be confirmed."""

    exit_code = 93
    blame = Blame.NODE


# --- 100-109 how an upgrade ended short of success --------------------------------------------


class RolledBack(EssCanError):
    """The upgrade failed after activation; every node runs what it ran before."""

    exit_code = 100
    blame = Blame.FILE
    default_remedy = "The plant is as it was. The cause is named above."


class HeldOpen(EssCanError):
    """The plant is held safe with high voltage open and needs a person."""

    exit_code = 101
    blame = Blame.PLANT
    default_remedy = "Run `ess-can status`, remove the cause, then run the upgrade again or reconnect by the EMS."


class HeldOpenByChoice(HeldOpen):
    """The upgrade is done, and high voltage is left open and locked as asked."""

    exit_code = 102
    blame = Blame.OPERATOR
    default_remedy = "Reconnect by the EMS, or run the command again with --reconnect."


# --- 110-119 the journal ----------------------------------------------------------------------


class JournalError(EssCanError):
    """The record of what is done cannot be kept.  No record, no upgrade."""

    exit_code = 110
    blame = Blame.OPERATOR
    default_remedy = "Look at the directory of the journal: it must exist, be writable and have room."


class JournalUnwritable(JournalError):
    """The journal cannot be written, or a write to it did not reach the disk."""

    exit_code = 111
    default_remedy = "Make room on that disk or have it mounted writable, or name another directory with --journal."


class JournalCorrupt(JournalError):
    """The journal's database is damaged."""

    exit_code = 112
    default_remedy = (
        "Move the journal's directory away (keep it: it is evidence) and run the upgrade again: "
        "what the nodes hold is read from the nodes."
    )


class JournalVersionUnknown(JournalError):
    """The journal was written by a newer version."""

    exit_code = 113
    default_remedy = "Use the version of ess-can that wrote it, or name another directory with --journal."


class Locked(JournalError):
    """Another ess-can process works with this journal."""

    exit_code = 114
    default_remedy = "Wait until that process has ended; its lock ends with it."


class NothingToResume(JournalError):
    """No upgrade stands unfinished in the journal."""

    exit_code = 115
    default_remedy = "`ess-can history` lists what was done; start an upgrade with `ess-can upgrade FILE`."


class NoSuchUpgrade(JournalError):
    """The journal has no upgrade with this name."""

    exit_code = 116
    default_remedy = "`ess-can history` lists the upgrades."


class AuditBroken(JournalError):
    """The chain of the journal's entries does not verify: an entry was changed, removed or added."""

    exit_code = 117
    default_remedy = (
        "Somebody tampered with it, or the disk is damaged: find out which. Nothing is upgraded with it: "
        "move its directory away (keep it: it is evidence) and run the upgrade again: "
        "what the nodes hold is read from the nodes."
    )


# --- 120-129 campaigns ------------------------------------------------------------------------


class InvariantViolated(EssCanError):
    """A simulated upgrade broke a rule of safety."""

    exit_code = 120
    default_remedy = "Replay it with `ess-can sim replay --seed N`, and please report it as a bug."
