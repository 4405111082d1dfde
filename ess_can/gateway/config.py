"""Thresholds and time limits of the gateway.  Every number may be configured; no check can be switched off."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final

from ess_can.bus.load_limit import YIELD_SHARE, LoadLimit
from ess_can.errors import UsageError
from ess_can.identity import NodeAddress, NodeType

SILENT_UP_TO_S: Final = 15.0
"""What EMS_UpgradeNotice announces for a node's restart, unless a station says otherwise."""


class Afterwards(Enum):
    """How the plant is left after the upgrade."""

    AS_FOUND = "as it was found"
    CONNECT = "connected"
    HOLD_OPEN = "open and locked"


@dataclass(frozen=True, slots=True)
class PolicyLimits:
    """The band in which an upgrade may start.  Cell limits suit LFP cells.

    `bus_load_max_percent` is how much of the wire's time others may take: a station of eight racks takes 33 % at 125
    kbit/s, and what we send of orders, polls and notices, with their answers, another 10 %.  Raises UsageError for a
    bus load at which commands and evidence would be late.
    """

    soc_min_percent: float = 10.0
    soc_max_percent: float = 95.0
    cell_voltage_min_v: float = 2.8
    cell_voltage_max_v: float = 3.6
    cell_temperature_min_degc: float = 0.0
    cell_temperature_max_degc: float = 50.0
    aux_voltage_min_v: float = 21.0
    current_mismatch_a: float = 10.0
    bus_load_max_percent: float = 80.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.bus_load_max_percent <= 90.0:
            raise UsageError(
                f"bus_load_max_percent = {self.bus_load_max_percent:g} is outside 1..90",
                why="beyond that commands and evidence would be late",
            )


@dataclass(frozen=True, slots=True)
class HvLimits:
    """When high voltage counts as off.  Raises UsageError for a value that would make the proof worthless."""

    link_voltage_off_v: float = 60.0
    current_off_a: float = 1.0
    consecutive_good: int = 10
    evidence_age_s: float = 0.250
    missed_cycles: int = 3
    poll_period_s: float = 0.100
    token_age_s: float = 0.5

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("link_voltage_off_v", self.link_voltage_off_v, 1.0, 60.0),
            ("current_off_a", self.current_off_a, 0.1, 5.0),
            ("consecutive_good", self.consecutive_good, 3, 100),
            ("evidence_age_s", self.evidence_age_s, 0.1, 0.250),
            ("missed_cycles", self.missed_cycles, 1, 3),
            ("poll_period_s", self.poll_period_s, 0.02, 0.2),
            ("token_age_s", self.token_age_s, 0.1, 1.0),
        ):
            if not low <= value <= high:
                raise UsageError(
                    f"{name} = {value:g} is outside {low:g}..{high:g}",
                    why="within these bounds the proof that high voltage is off means something",
                )


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Every wait of the upgrade has one of these deadlines, in seconds.

    `revert_s` must exceed the time after which a node gives up a trial that nobody confirms.  Beside them a number: how
    often a node's programming is attempted.
    """

    bus_silent_s: float = 1.0
    listen_min_s: float = 0.75
    listen_s: float = 2.5
    ramp_down_s: float = 10.0
    contactor_opening_s: float = 2.0
    discharge_s: float = 60.0
    prove_off_s: float = 10.0
    permit_regain_s: float = 30.0
    node_boot_s: float = 10.0
    trial_s: float = 30.0
    trial_soak_s: float = 1.0
    trial_limit_s: float = 45.0
    revert_s: float = 75.0
    reconnect_s: float = 20.0
    program_attempts: int = 4

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value <= 3600:
                raise UsageError(f"{each.name} = {value:g} is outside 0..3600", why="every wait has a finite deadline")


@dataclass(frozen=True, slots=True)
class BusLimits:
    """How much of the bus our requests may take, in percent of the wire's time; None, and 100, for no cap.

    With `yield_to_traffic` it is what all traffic together may take, and `YIELD_SHARE` unless given: see `LoadLimit`.
    `nodes_at_once` is how many nodes at most are programmed at the same time; None for as many as the bus allows.
    Raises UsageError for what is no share, and for no node at all.
    """

    max_load_percent: float | None = None
    yield_to_traffic: bool = False
    nodes_at_once: int | None = None

    def __post_init__(self) -> None:
        if self.nodes_at_once is not None and self.nodes_at_once < 1:
            raise UsageError(
                f"nodes_at_once = {self.nodes_at_once} lets no node be programmed",
                remedy="Say 1 or more, or leave it out for as many as the bus allows.",
            )
        if self.max_load_percent is not None:
            LoadLimit(self.max_load_percent / 100)

    @property
    def load(self) -> LoadLimit | None:
        """The cap; None if none was asked for."""
        percent = self.max_load_percent
        if self.yield_to_traffic:
            return LoadLimit(YIELD_SHARE if percent is None else percent / 100, yields=True)
        return None if percent is None or percent == 100 else LoadLimit(percent / 100)


@dataclass(frozen=True, slots=True)
class StationPhysics:
    """The station's physics, for the estimate of how long an upgrade takes; nothing is decided by them.

    A gateway hears voltages and currents, but not how fast they change.  The defaults are those of the simulated plant.
    `contactor_s` is one movement, `discharge_tau_s` the link's capacitance times its bleeder, `off_settling_s` how long
    a rack wants to see no voltage before it says so, `node_boot_s` from restart to the first message.  A rack closes
    `precharge_s` after it began, each `stagger_s` after the one before, and the PCS closes on a link that has been
    steady for `link_steady_s`.
    """

    pcs_ramp_a_per_s: float = 200.0
    contactor_s: float = 0.04
    discharge_tau_s: float = 1.92
    off_settling_s: float = 0.2
    node_boot_s: float = 0.8
    precharge_s: float = 0.25
    stagger_s: float = 1.0
    link_steady_s: float = 0.3

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value <= 3600:
                raise UsageError(f"{each.name} = {value:g} is outside 0..3600", why="it is a time, or a rate")


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """One station as the gateway knows it.

    `expected` names every node that must be present: a silent rack must never be taken for an absent one.
    `silent_up_to_s` is what EMS_UpgradeNotice announces for a node's restart.  `serials` are the serial numbers that
    nodes must have, of those that one is known of: at another site, or with another board, nothing is begun.
    """

    expected: tuple[NodeAddress, ...]
    policy: PolicyLimits = field(default_factory=PolicyLimits)
    hv: HvLimits = field(default_factory=HvLimits)
    times: TimeLimits = field(default_factory=TimeLimits)
    bus: BusLimits = field(default_factory=BusLimits)
    physics: StationPhysics = field(default_factory=StationPhysics)
    afterwards: Afterwards = Afterwards.AS_FOUND
    silent_up_to_s: float = SILENT_UP_TO_S
    serials: tuple[tuple[NodeAddress, str], ...] = ()

    racks: tuple[int, ...] = field(init=False)
    """Numbers of the racks."""

    def __post_init__(self) -> None:
        racks = tuple(sorted(node.index for node in self.expected if node.node_type is NodeType.BMU))
        object.__setattr__(self, "racks", racks)  # it is asked for with every frame
        if not racks:
            raise UsageError(
                "no rack is expected", why="high voltage is proved off by the racks", remedy="Name the station's racks."
            )
        if len(set(self.expected)) != len(self.expected):
            raise UsageError("a node is named twice", why=", ".join(map(str, self.expected)))
        strangers = [str(address) for address, _ in self.serials if address not in self.expected]
        if strangers:
            raise UsageError("a serial number is given of a node that is not expected", why=", ".join(strangers))

    def serial_of(self, address: NodeAddress) -> str | None:
        """The serial number that this node must have; None if any will do."""
        return dict(self.serials).get(address)
