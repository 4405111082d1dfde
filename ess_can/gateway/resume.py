"""What an upgrade that did not end left behind, by the journal; and what is done about it, by the plant.

The journal says only what was intended.  Whether nodes hold, run or confirmed an image, and how contactors stand, is
read from the plant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ess_can.bus.clock import now, until
from ess_can.errors import RolledBack
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep
from ess_can.gateway.plan import Leftover, NodePlan, Plan, identify, on_trial
from ess_can.gateway.plant_view import Connection, PlantView
from ess_can.gateway.policy import FRESH_S, Start, refusals, targets_of_type, unheard
from ess_can.gateway.progress import NodeStepEntered, Noted, OnProgress
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress
from ess_can.journal.entries import Deed, Entry, Kind, UpgradeRecord
from ess_can.journal.journal import Journal
from ess_can.signals.messages import ImageState
from ess_can.trust.verify import VerifiedUpgrade

_HIGH_VOLTAGE = (
    *(Deed.RAMP_DOWN, Deed.OPEN_CONTACTORS, Deed.LOCK, Deed.UNLOCK, Deed.CLOSE),
    *(Deed.HAND_BACK, Deed.HOLD_OPEN),
)

_LOCKS = (Deed.LOCK, Deed.HOLD_OPEN)
_UNLOCKS = (Deed.UNLOCK, Deed.HAND_BACK)


@dataclass(frozen=True, slots=True)
class Earlier:
    """The upgrade that stands unfinished in the journal.

    `last_order` is the newest entry about high voltage: the result of the last order, or its intent if there is none.
    `locks` says that the PCS's lock, if it stands, is ours: it was ordered, and nothing that takes it away was carried
    out since.  `activated` says that an image may have been activated on some node; `inherited`, that it was by an
    upgrade which this one superseded, and that it activated none itself since.
    """

    record: UpgradeRecord
    last_order: Entry | None
    locks: bool
    activated: bool
    inherited: bool

    @classmethod
    def of(cls, journal: Journal) -> Self | None:
        """None if every upgrade ended."""
        record = journal.unfinished()
        if record is None:
            return None
        orders = [entry for deed in _HIGH_VOLTAGE if (entry := journal.last(deed)) is not None]
        last = max(orders, key=lambda entry: entry.answers or entry.seq, default=None)
        activation = journal.last(Deed.ACTIVATE)
        locked_at = max(_seq(journal.last(deed)) for deed in _LOCKS)
        unlocked_at = max(_seq(journal.last(deed), carried_out=True) for deed in _UNLOCKS)
        inherited = activation is not None and activation.upgrade != record.id
        return cls(record, last, locked_at > unlocked_at, activation is not None, inherited)

    @property
    def holds_plant(self) -> bool:
        """Whether it took the plant into its hands and did not give it back."""
        last = self.last_order
        return last is not None and not (last.deed is Deed.HAND_BACK and last.kind is Kind.RESULT and last.ok)

    @property
    def start(self) -> Start:
        """How another attempt starts."""
        return Start.RESUMED if self.holds_plant else Start.FRESH

    def is_of(self, upgrade: VerifiedUpgrade) -> bool:
        """Whether it is the upgrade of this very file."""
        return self.record.file_sha256 == upgrade.file_sha256

    def left_nothing_to(self, upgrade: VerifiedUpgrade) -> bool:
        """Whether only this file's images can have been activated, which an upgrade of it takes into account itself."""
        return self.is_of(upgrade) and not self.inherited

    def found(self, view: PlantView, config: GatewayConfig, at: float) -> Connection:
        """How the plant is to be taken as found.

        As it was before the first attempt if our lock still stands: it proves that the plant is open because we opened
        it, and that nobody took it over since.  Without it nothing tells our contactors from those that a person opened
        an hour later: the plant is as it is now.  A lock that is not ours tells nothing of what is behind it: UNKNOWN.
        """
        is_now = view.connection(config.racks, at - FRESH_S)
        if not self.holds_plant:
            return is_now
        if view.pcs is None or not view.pcs.value.lock_acknowledged:
            return is_now
        return (self.before or is_now) if self.locks else Connection.UNKNOWN

    @property
    def before(self) -> Connection | None:
        """How high voltage was connected before the first attempt; None if nobody wrote it down."""
        return {connection.value: connection for connection in Connection}.get(self.record.found)


def _seq(entry: Entry | None, *, carried_out: bool = False) -> int:
    """Where in the journal a deed was intended, or, if it has to be known of, `carried_out`; 0 if it was not."""
    if entry is None or (carried_out and not (entry.kind is Kind.RESULT and entry.ok)):
        return 0
    return entry.seq if carried_out else entry.answers or entry.seq


async def let_trials_end(master: StationMaster, on_progress: OnProgress, start: Start) -> None:
    """Wait for nodes that are not heard, or not completely, as long as an image on trial may be the reason.

    A rack that does not say that high voltage is off must not be restarted; but a node gives up a trial by itself.  It
    is waited for while nothing else is against the start.  The gateway sends nothing meanwhile: the PCS keeps its lock,
    and racks stay open, without it.
    """
    view, config, fingerprint = master.view, master.config, master.link.codec.fingerprint

    def missing() -> list[str]:
        """Who is not heard, if that alone is against the start."""
        names = unheard(view, config, now())
        return names if len(refusals(view, config, fingerprint, now(), start)) == len(names) else []

    names, limit_s = ", ".join(missing()), config.times.revert_s
    if not names:
        return
    why = "not heard, or not completely, perhaps because of the image that the earlier attempt put on trial"
    told = f"{names}: {why}; a node gives that up by itself, which is waited for, for {limit_s:g} s at most"
    on_progress(Noted(now(), told))
    if await until(lambda: not missing(), limit_s):
        await until(lambda: not refusals(view, config, fingerprint, now(), start), config.times.listen_s)


async def plan_to_give_up(
    earlier: Earlier, master: StationMaster, upgrade: VerifiedUpgrade | None, on_progress: OnProgress
) -> Plan:
    """What is to be taken back, by what every node says; `upgrade` is the release, if it can be read.

    Raises what the diagnostic exchange raises.
    """
    trials = set[NodeAddress]()
    up_to_date: list[NodePlan] = []
    for address in master.config.expected:
        on_progress(NodeStepEntered(now(), address, NodeStep.IDENTIFY))
        identity = await identify(master, address)
        state = identity.boot_state
        image = None if upgrade is None else upgrade.image_for(address.node_type, identity.hardware_id)
        if state.standing == ImageState.TRIAL:
            trials.add(address)
        elif image is not None and image.facts.version == state.version:
            up_to_date.append(NodePlan(address, identity, image))
    leftovers = [Leftover(address, address in trials) for address in master.config.expected]
    keep = earlier.activated or trials or master.armed.nodes
    return Plan(up_to_date=tuple(up_to_date), leftovers=tuple(leftovers) if keep else ())


def is_complete(plan: Plan, upgrade: VerifiedUpgrade, config: GatewayConfig) -> bool:
    """Whether every node that the release is for runs it, confirmed."""
    done = {node.address for node in plan.up_to_date}
    targets = {node for entry in upgrade.manifest.images for node in targets_of_type(config, entry.node_type)}
    return targets <= done and not any(leftover.on_trial for leftover in plan.leftovers)


def given_up() -> RolledBack:
    """How an upgrade ends that is given up on request."""
    return RolledBack("the upgrade was given up", why="as asked", remedy="The plant is as it was.")


def leftovers_of(earlier: Earlier, master: StationMaster, plan: Plan) -> Plan:
    """`plan`, after whatever another release's upgrade may have activated anywhere was taken back."""
    if not earlier.activated:
        return plan
    trials = on_trial(master) | {leftover.address for leftover in plan.leftovers if leftover.on_trial}
    leftovers = tuple(Leftover(address, on_trial=address in trials) for address in master.config.expected)
    return Plan(plan.nodes, plan.up_to_date, leftovers)


def is_as_wanted(view: PlantView, config: GatewayConfig, found: Connection, at: float) -> bool:
    """Whether the plant is under its own control already, and high voltage as it is to be left."""
    pcs = view.pcs
    if pcs is None or pcs.value.lock_acknowledged or pcs.value.remote_control:
        return False
    match config.afterwards:
        case Afterwards.HOLD_OPEN:
            return False
        case Afterwards.CONNECT:
            found = Connection.CONNECTED
    return view.connection(config.racks, at - FRESH_S) is found


_UNEXPLAINED = (
    ", because it is {found} now: it was {before} before, but no lock of this upgrade stands which would prove that "
    "nobody else commanded the plant since (--reconnect or --hold-open says otherwise)"
)


def decision(earlier: Earlier, plan: Plan, config: GatewayConfig, found: Connection, upgrade: str) -> str:
    """What will be done, as a sentence.  `upgrade` is the release; empty if the upgrade is given up."""
    began = f"{earlier.record.began_at:%Y-%m-%d %H:%M} UTC"
    texts = []
    if plan.leftovers:
        names = ", ".join(str(leftover.address) for leftover in plan.leftovers)
        texts.append(f"{names}: back to the confirmed image first")
    if plan.nodes:
        texts.append(f"to upgrade: {', '.join(str(node.address) for node in plan.nodes)}")
    if plan.up_to_date:
        texts.append(f"done already: {', '.join(str(node.address) for node in plan.up_to_date)}")
    left = config.afterwards.value
    if config.afterwards is Afterwards.AS_FOUND:
        left = found.value if found in (Connection.CONNECTED, Connection.OPEN) else "open and locked"
    texts.append(f"high voltage is left {left}")
    if earlier.holds_plant and config.afterwards is Afterwards.AS_FOUND and earlier.before not in (None, found):
        texts[-1] += _UNEXPLAINED.format(found=found.value, before=earlier.record.found)
    does = f"goes on with {upgrade}" if upgrade else "gives up"
    return f"{does}, after the upgrade that began on {began}; {'; '.join(texts)}"
