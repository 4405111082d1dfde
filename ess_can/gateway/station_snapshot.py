"""What a listener knows at one moment: frozen values that `ess_can.gateway.station_monitor` gives.

Ages are in seconds before the snapshot.  A value is stale once more of its cycles were missed than the HV-off gate
would bear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from ess_can.errors import BusError, BusSilent, NoValidTraffic
from ess_can.gateway.hv_gate import Source
from ess_can.identity import NodeAddress
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    BmsHvStatus,
    BmsState,
    EmsPcsCommand,
    EmsUpgradeNotice,
    Message,
    NodeInfo,
    PcsStatus,
)

M_co = TypeVar("M_co", bound=Message, covariant=True)


@dataclass(frozen=True, slots=True)
class Heard(Generic[M_co]):
    """The last usable message of a kind."""

    message: M_co
    age_s: float
    stale: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is on the bus.  Rates are over the last second, or less when listening began later.

    `load` is the share of the wire's time, by the exact length of every frame at the nominal `bitrate`.  `diagnostic`
    names the nodes whose UDS channels carry frames, with frames/s.  `unknown` counts frames of identifiers that the
    DBC does not have, `unusable` those on the plant's identifiers whose content could not be used.
    """

    frames: int = 0
    frames_per_s: float = 0.0
    load: float = 0.0
    bitrate: int = 0
    diagnostic: tuple[tuple[NodeAddress, float], ...] = ()
    unknown: int = 0
    unknown_ids: tuple[int, ...] = ()
    unusable: int = 0


@dataclass(frozen=True, slots=True)
class RackSnapshot:
    """One rack."""

    rack: int
    hv: Heard[BmsHvStatus] | None
    state: Heard[BmsState] | None
    cells: Heard[BmsCellSummary] | None
    alarms: Heard[BmsAlarms] | None


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """One upgradable node; `info` None for one that is expected and was not heard."""

    address: NodeAddress
    info: Heard[NodeInfo] | None
    dbc_ok: bool


@dataclass(frozen=True, slots=True)
class E2eVerdicts:
    """How often each verdict was given on one protected message.  `lost` counts gaps, not frames.

    A listener joins in the middle of the sequence, so the first frame has no verdict.  `unusable` are frames of a wrong
    kind, length or content.  `last` None before the first verdict.
    """

    name: str
    ok: int
    lost: int
    repeated: int
    wrong_sequence: int
    crc_errors: int
    unusable: int
    last: Verdict | None
    age_s: float
    stale: bool


@dataclass(frozen=True, slots=True)
class HvEvidence:
    """What one source contributes to the proof that high voltage is off: nothing `missing`, or what.

    `rack` is 0 for the PCS; `age_s` is that of the last frame that was evidence, None if its last word was none.
    """

    source: Source
    rack: int
    missing: str
    age_s: float | None


@dataclass(frozen=True, slots=True)
class BusWarning:
    """What the adapter reported: the last of its kind, and how often."""

    error: BusError
    times: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is known by listening for `listened_s` seconds.

    `polled` tells whether anybody asks the racks for their HV notification: without that there is none, and no proof.
    """

    listened_s: float
    traffic: Traffic
    plant_heard: bool
    pcs: Heard[PcsStatus] | None
    racks: tuple[RackSnapshot, ...]
    nodes: tuple[NodeSnapshot, ...]
    evidence: tuple[HvEvidence, ...]
    polled: bool
    e2e: tuple[E2eVerdicts, ...]
    command: Heard[EmsPcsCommand] | None
    notice: Heard[EmsUpgradeNotice] | None
    warnings: tuple[BusWarning, ...]

    @property
    def hv_off_proved(self) -> bool:
        """Whether the gateway's own rule would take high voltage for off, by what is heard."""
        return bool(self.racks) and not any(one.missing for one in self.evidence)

    def silence(self) -> BusError | None:
        """BusSilent or NoValidTraffic if the plant was not heard; None if it was."""
        if self.plant_heard:
            return None
        span = f"within {self.listened_s:.1f} s"
        if not self.traffic.frames:
            return BusSilent("nothing is heard on the bus", why=f"no frame {span}")
        return NoValidTraffic(
            "frames are heard, but none of the plant's",
            why=f"{self.traffic.frames} frames {span}, none of them usable as PCS_Status, BMS_HvStatus or Node_Info",
        )
