"""Every kind of fault with an example of its text, and how texts are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults import gateway, memories
from ess_can.campaign.faults.bus import BusFault
from ess_can.campaign.faults.frames import CLASSES, FrameFault
from ess_can.campaign.faults.nodes import FirmwareFault, NodeFault
from ess_can.campaign.faults.plant import PlantFault
from ess_can.campaign.station import Fault
from ess_can.errors import UsageError
from ess_can.gateway.phases import Phase

_FAMILIES: Mapping[str, Callable[[str], Fault]] = MappingProxyType(
    {
        "frame": FrameFault.parse,
        "bus": BusFault.parse,
        "node": NodeFault.parse,
        "firmware": FirmwareFault.parse,
        "flash": memories.parse,
        "plant": PlantFault.parse,
        "gateway": gateway.parse,
    }
)

EXAMPLES: tuple[str, ...] = (
    "frame:120:lost",
    "frame:hv-status#3:duplicated",
    "frame:request#7:swapped",
    "frame:pcs-status#5x2:corrupted",
    "frame:answer#4:delayed=0.3",
    "bus:passive@PROGRAM+0.5",
    "bus:off=2@PROGRAM+0.5",
    "bus:silent@PROGRAM+0.5~2",
    "bus:babbler=40@PROGRAM+0.1~2",
    "bus:foreign@PROGRAM+0.5~1",
    "bus:second-gateway@PROGRAM+0.5~1",
    "bus:errors=5@PROGRAM+0.5",
    "node:bmu1:reset@PROGRAM+0.5",
    "node:bmu1:power@PROGRAM+0.5~3",
    "node:bmu1:hang@PROGRAM+0.05",
    "node:bmu1:slow=0.4@PROGRAM+0.1~2",
    "node:bmu1:refuses=34@PROGRAM+0.2",
    "node:bmu1:garbage@PROGRAM+0.2",
    "node:bmu1:wrong-counter@PROGRAM+0",
    "node:bmu1:impostor@0",
    "firmware:bmu1:hangs",
    "firmware:bmu1:mute",
    "firmware:bmu1:wrong-scale",
    "firmware:bmu1:boot-loops",
    "flash:bmu1:30:before",
    "flash:bmu1:30:prefix",
    "flash:bmu1:30:bits",
    "flash:bmu1:30:unstable",
    "flash:bmu1:30+2:after",
    "flash:bmu1:unreadable=100@TRIAL_BOOT+0",
    "flash:bmu1:worn=1@0",
    "flash:bmu1:defect=0@0",
    "flash:bmu1:rot=100@TRIAL_BOOT+0",
    "flash:bmu1:rot-running=100@PROGRAM+0.2",
    "plant:ramp-ignored@0",
    "plant:pcs-current-stuck@0",
    "plant:rack-current-stuck:1@0",
    "plant:weld-plus:1@0",
    "plant:weld-minus:1@0",
    "plant:feedback-open:1@0",
    "plant:feedback-closed:1@OPEN_CONTACTORS+0",
    "plant:link-charged@0",
    "plant:voltage-invalid:1@PROVE_HV_OFF+0.1",
    "plant:voltage-frozen:1@0",
    "plant:hv-status-lost:1@PROGRAM+0.2~2",
    "plant:hv-status-bad:1@PROGRAM+0.2~2",
    "plant:hv-closes@PROGRAM+0.2",
    "plant:closed-by-hand:1@PROGRAM+0.2~2",
    "plant:heartbeat-unheard@PROGRAM+0.2~2",
    "plant:pcs-restarts@PROGRAM+0.2",
    "plant:emergency-stop:1@PROGRAM+0.2",
    "plant:insulation:1@PROGRAM+0.2",
    "plant:fire:1@PROGRAM+0.2",
    "plant:hvil:1@PROGRAM+0.2",
    "plant:aux-low:1@0",
    "plant:soc-low@0",
    "plant:precharge-fails:1@0",
    "plant:strings-apart:1@PROGRAM+0.2",
    "plant:grid-service@0",
    "plant:cell-high:1@0",
    "plant:cell-unknown:1@0",
    "plant:cell-hot:1@0",
    "gateway:kill@PROGRAM+0.2",
    "gateway:kill#200",
    "gateway:kill%3:before",
    "gateway:kill%3:after",
    "gateway:power@PROGRAM+0.2",
    "gateway:starved=2@PROGRAM+0.2",
    "gateway:suspended=10@PROGRAM+0.2",
    "gateway:clock-back=315576000@PROGRAM+0.2",
    "gateway:disk%3:full",
    "gateway:disk%3:error",
    "gateway:unplugged@PROGRAM+0.2~5",
    "gateway:interrupted@PROGRAM+0.2",
)
"""One of each kind, in the order of `FaultKind`."""


def parse_fault(text: str) -> Fault:
    """Read a fault's text.  Raises UsageError for what is none."""
    family, _, rest = text.partition(":")
    try:
        if family not in _FAMILIES:
            raise ValueError(f"a fault begins with one of {', '.join(_FAMILIES)}")
        return _FAMILIES[family](rest)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no fault", why=str(error), remedy="See `ess-can sim replay --seed 1 --faults help`."
        ) from error


def fault_help() -> str:
    """All kinds with an example each, for people."""
    faults = [parse_fault(example) for example in EXAMPLES]
    width = max(map(len, EXAMPLES))
    return "\n".join(
        [
            *(f"{fault.text:{width}}  {fault.kind.value}" for fault in faults),
            "",
            "A moment is in seconds since the upgrade began, or since it entered a phase: 3.5, PROGRAM+0.5.",
            "With an attempt before it, it is in that one only: 2:ROLL_BACK+0.1, and kill#2:40 for a step of it.",
            "With ~ it says how long something lasts: PROGRAM+0.5~2.  Without, it lasts until everything is healed.",
            f"Phases: {', '.join(phase.name for phase in Phase)}.",
            f"Frames go by their index on the wire since the upgrade began, or by class: {', '.join(CLASSES)};",
            "x2 means two in a row.",
        ]
    )


def kinds_with_examples() -> Mapping[FaultKind, str]:
    """The example of each kind."""
    return {parse_fault(example).kind: example for example in EXAMPLES}
