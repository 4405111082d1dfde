"""A run's plan: what plant, which faults, and how long it takes until somebody starts a dead gateway again.

Everything follows from the seed, the same in every process.  Each kind of fault is as likely as any other, and most
strike late in an upgrade, where it matters; how many there are is drawn first, so that some runs have none and no run
has more than can be told apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from ess_can.campaign.faults import Fault, FaultKind, parse_fault
from ess_can.campaign.faults.bus import NAMES as BUS
from ess_can.campaign.faults.bus import BusFault
from ess_can.campaign.faults.frames import CLASSES, WAYS
from ess_can.campaign.faults.gateway import AT_ENTRY, GatewayFault, KillAtStep
from ess_can.campaign.faults.gateway import NAMES as GATEWAY
from ess_can.campaign.faults.memories import CUTS, DAMAGE
from ess_can.campaign.faults.named import name_of
from ess_can.campaign.faults.nodes import FIRMWARE, NodeFault
from ess_can.campaign.faults.nodes import NAMES as NODE
from ess_can.campaign.faults.plant import NAMES as PLANT
from ess_can.campaign.faults.plant import OF_A_RACK, PlantFault
from ess_can.campaign.plants import SMALLEST, Site, random_site
from ess_can.gateway.phases import Phase
from ess_can.identity import NodeAddress


class Comeback(Enum):
    """What somebody does who finds an upgrade unfinished, in words."""

    RESUME = "resumes the upgrade"
    ROLL_BACK = "gives the upgrade up"
    TAKE_OVER = "starts the upgrade of another file"


@dataclass(frozen=True, slots=True)
class Mixture:
    """What one run is to be.

    `faults` are texts that `parse_fault` reads.  Each of `restarts` is after how many seconds a gateway that died is
    started again, while the faults last; if it dies once more after the last, it stays dead until they are over.
    `restarted_by` is what somebody does each time, `healed_by` what is done first about what is unfinished when they
    are over.
    """

    seed: int
    site: Site
    faults: tuple[str, ...] = ()
    restarts: tuple[float, ...] = (2.0,)
    restarted_by: Comeback = Comeback.RESUME
    healed_by: Comeback = Comeback.RESUME


def plain(
    *faults: str,
    site: Site = SMALLEST,
    seed: int = 1,
    restarts: tuple[float, ...] = (2.0,),
    restarted_by: Comeback = Comeback.RESUME,
) -> Mixture:
    """These faults on the smallest plant."""
    return Mixture(seed, site, faults, restarts, restarted_by)


def mixture_of(seed: int) -> Mixture:
    """What a seed stands for."""
    chance = random.Random(f"campaign {seed}")  # noqa: S311 - a simulation has to be repeatable
    site = random_site(chance, seed)
    how_many = chance.choices((0, 1, 2, 3, 4), (1, 6, 6, 4, 3))[0]
    faults = [random_fault(kind, chance, site) for kind in chance.sample(_BY_CHANCE, how_many)]
    restarts = tuple(round(chance.uniform(0.05, 20.0), 3) for _ in range(chance.randrange(1, 4)))
    restarted_by, healed_by = chance.choices(list(Comeback), (6, 2, 2), k=2)
    return Mixture(seed, site, tuple(_some_later(faults, chance)), restarts, restarted_by, healed_by)


def _some_later(faults: Sequence[str], chance: random.Random) -> Iterator[str]:
    """Where the gateway dies, and so comes back: some of what else is wrong not before its second attempt."""
    armed = [parse_fault(text) for text in faults]
    death = next((fault for fault in armed if fault.kind in _DEATHS), None)
    for fault in armed:
        later = death is not None and fault is not death and chance.random() < _LATER
        yield (_in_the_second_attempt(fault) if later else fault).text


def _in_the_second_attempt(fault: Fault) -> Fault:
    """The same fault then, if its text can say so."""
    if isinstance(fault, KillAtStep):
        return replace(fault, attempt=2)
    if isinstance(fault, BusFault | NodeFault | PlantFault | GatewayFault):
        return replace(fault, at=replace(fault.at, attempt=2))
    return fault


# --- faults -----------------------------------------------------------------------------------------

Make = Callable[[FaultKind, random.Random, Site], str]
"""Draws a fault of a kind, as text."""

_PHASES: Mapping[Phase, tuple[int, float]] = {
    Phase.RAMP_DOWN: (2, 0.3),
    Phase.OPEN_CONTACTORS: (2, 0.1),
    Phase.PROVE_HV_OFF: (3, 1.5),
    Phase.PROGRAM: (8, 0.6),
    Phase.TRIAL_BOOT: (7, 2.0),
    Phase.CONFIRM: (4, 0.2),
    Phase.RECONNECT: (5, 1.2),
    Phase.ROLL_BACK: (2, 2.0),
    Phase.HOLD_OPEN: (1, 0.5),
}
"""How often a fault strikes in a phase, and about how long the phase is, in seconds."""

_BEFORE_TRIAL = (Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.PROGRAM)
"""Once an image is on trial the other bank holds the only confirmed one: that it goes bad then nobody can survive."""

_CHECK_S = 1.0
_FRAMES = 2500
_OF_A_CLASS = 60
_OPERATIONS = 1500
_STEPS = 600
_ENTRIES = 70


_DEATHS = frozenset(
    {
        FaultKind.KILL_AT_TIME,
        FaultKind.GATEWAY_POWER_LOST,
        FaultKind.KILL_AT_STEP,
        FaultKind.KILL_BEFORE_COMMIT,
        FaultKind.KILL_AFTER_COMMIT,
    }
)
_LATER = 0.4


NOT_BY_CHANCE = frozenset({FaultKind.FLASH_ROT_RUNNING})
"""While an upgrade erases the other bank no node can survive that the image it runs goes bad, too."""


_BY_CHANCE = [kind for kind in FaultKind if kind not in NOT_BY_CHANCE]
"""No kind comes twice in a run: what ends by itself puts back what it found, and that would be the other's doing."""


def random_fault(kind: FaultKind, chance: random.Random, site: Site) -> str:
    """A fault of this kind, as text."""
    text = _MAKERS[kind](kind, chance, site)
    return parse_fault(text).text


def _moment(chance: random.Random, *, lasts_up_to_s: float = 0.0) -> str:
    """When, and for how long unless it lasts until everything is healed."""
    if chance.random() < 0.12:
        when = f"{round(chance.uniform(0.0, _CHECK_S), 3)}"
    else:
        phase = chance.choices(list(_PHASES), [weight for weight, _ in _PHASES.values()])[0]
        when = f"{phase.name}+{round(chance.uniform(0.0, _PHASES[phase][1]), 3)}"
    if not lasts_up_to_s or chance.random() < 0.25:
        return when
    shortest = 0.01
    return f"{when}~{round(shortest * (lasts_up_to_s / shortest) ** chance.random(), 3)}"


def _node(chance: random.Random, site: Site) -> NodeAddress:
    """Mostly one that is upgraded."""
    nodes = site.plant.addresses
    upgraded = [node for node in nodes if node.node_type in site.release]
    return chance.choice(upgraded if chance.random() < 0.8 else nodes)


def _frame(kind: FaultKind, chance: random.Random, _site: Site) -> str:
    way = name_of(kind, WAYS)
    of_a_class = chance.random() < 0.5
    which = (
        f"{chance.choice(CLASSES)}#{chance.randrange(_OF_A_CLASS)}" if of_a_class else f"{chance.randrange(_FRAMES)}"
    )
    count = chance.choices((1, 2, 3, 10), (6, 2, 1, 1))[0]
    delay = f"={round(chance.uniform(0.001, 1.0), 3)}" if kind is FaultKind.FRAME_DELAYED else ""
    return f"frame:{which}{f'x{count}' if count > 1 else ''}:{way}{delay}"


_BUS_AMOUNTS: Mapping[FaultKind, Sequence[int]] = {
    FaultKind.BUS_OFF: (1, 1, 2, 3, 4, 6),
    FaultKind.BUS_BABBLER: (20, 50, 80, 95, 100),
    FaultKind.BUS_ERRORS: (1, 5, 15, 40),
}


def _bus(kind: FaultKind, chance: random.Random, _site: Site) -> str:
    amounts = _BUS_AMOUNTS.get(kind)
    amount = f"={chance.choice(amounts)}" if amounts else ""
    return f"bus:{name_of(kind, BUS)}{amount}@{_moment(chance, lasts_up_to_s=10.0)}"


def _of_node(kind: FaultKind, chance: random.Random, site: Site) -> str:
    amount = ""
    if kind is FaultKind.NODE_SLOW:
        amount = f"={round(chance.uniform(0.02, 6.0), 3)}"
    elif kind is FaultKind.NODE_REFUSES:
        amount = (
            f"={chance.choice((0x10, 0x21, 0x22, 0x24, 0x31, 0x33, 0x35, 0x36, 0x37, 0x70, 0x71, 0x72, 0x73, 0x7F))}"
        )
    return f"node:{_node(chance, site)}:{name_of(kind, NODE)}{amount}@{_moment(chance, lasts_up_to_s=10.0)}"


def _firmware(kind: FaultKind, chance: random.Random, site: Site) -> str:
    upgraded = [node for node in site.plant.addresses if node.node_type in site.release]
    return f"firmware:{chance.choice(upgraded)}:{name_of(kind, FIRMWARE)}"


def _cut(kind: FaultKind, chance: random.Random, site: Site) -> str:
    operations = [chance.randrange(_OPERATIONS)]
    operations += [chance.randrange(300) for _ in range(chance.choices((0, 1, 2), (4, 2, 1))[0])]
    return f"flash:{_node(chance, site)}:{'+'.join(map(str, operations))}:{name_of(kind, CUTS)}"


def _damage(kind: FaultKind, chance: random.Random, site: Site) -> str:
    a_sector = kind in (FaultKind.FLASH_WORN, FaultKind.FLASH_DEFECT)
    where = chance.randrange(3 if a_sector else site.payload_bytes)
    before_trial = f"{chance.choice(_BEFORE_TRIAL).name}+{round(chance.uniform(0.0, 0.1), 3)}"
    return f"flash:{_node(chance, site)}:{name_of(kind, DAMAGE)}={where}@{before_trial}"


def _of_plant(kind: FaultKind, chance: random.Random, site: Site) -> str:
    rack = f":{chance.randrange(1, site.plant.racks + 1)}" if kind in OF_A_RACK else ""
    return f"plant:{name_of(kind, PLANT)}{rack}@{_moment(chance, lasts_up_to_s=60.0)}"


def _gateway(kind: FaultKind, chance: random.Random, _site: Site) -> str:
    name = name_of(kind, GATEWAY)
    if kind is FaultKind.CLOCK_JUMPS:
        amount = f"={chance.choice((1, 3600, 86400, 315_576_000))}"
        return f"gateway:{chance.choice(('clock-forward', 'clock-back'))}{amount}@{_moment(chance)}"
    if kind in (FaultKind.GATEWAY_STARVED, FaultKind.GATEWAY_SUSPENDED):
        return f"gateway:{name}={round(10 ** chance.uniform(-2, 1.5), 3)}@{_moment(chance)}"
    lasts_s = 20.0 if kind is FaultKind.ADAPTER_UNPLUGGED else 0.0
    return f"gateway:{name}@{_moment(chance, lasts_up_to_s=lasts_s)}"


def _at_step(_kind: FaultKind, chance: random.Random, _site: Site) -> str:
    return f"gateway:kill#{chance.randrange(1, _STEPS)}"


def _at_entry(kind: FaultKind, chance: random.Random, _site: Site) -> str:
    what = "disk" if kind in (FaultKind.DISK_FULL, FaultKind.DISK_ERROR) else "kill"
    return f"gateway:{what}%{chance.randrange(_ENTRIES)}:{name_of(kind, AT_ENTRY)}"


_MAKERS: Mapping[FaultKind, Make] = {
    **dict.fromkeys(WAYS.values(), _frame),
    **dict.fromkeys(BUS.values(), _bus),
    **dict.fromkeys(NODE.values(), _of_node),
    **dict.fromkeys(FIRMWARE.values(), _firmware),
    **dict.fromkeys(CUTS.values(), _cut),
    **dict.fromkeys(DAMAGE.values(), _damage),
    **dict.fromkeys(PLANT.values(), _of_plant),
    **dict.fromkeys(GATEWAY.values(), _gateway),
    **dict.fromkeys(AT_ENTRY.values(), _at_entry),
    FaultKind.KILL_AT_STEP: _at_step,
}
