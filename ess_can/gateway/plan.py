"""The check before the upgrade: what would be done to which node.  It reads the plant and changes nothing.

Listen first, transmit only once the plant is known to be ours; then the policy; then ask every target who it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from ess_can.bus.clock import now, pause, until
from ess_can.errors import (
    BusSilent,
    DbcMismatch,
    EssCanError,
    IsoTpError,
    NodeUnhealthy,
    NoValidTraffic,
    UdsError,
    WrongNodeType,
)
from ess_can.gateway.bus_load import BusLoad
from ess_can.gateway.node_client import NodeIdentity
from ess_can.gateway.phases import NodeStep
from ess_can.gateway.policy import Start, bus_refusal, diagnostics_refusal, refusals, targets_of_type
from ess_can.gateway.progress import NodeStepEntered, OnProgress
from ess_can.gateway.report import NodeRecord
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.signals.messages import ImageState
from ess_can.trust.compatibility import Compatibility, NodeFacts, check_compatibility, check_dependencies
from ess_can.trust.verify import VerifiedImage, VerifiedUpgrade


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node, as it was identified, and the image that it is to run."""

    address: NodeAddress
    identity: NodeIdentity
    image: VerifiedImage

    def record(self) -> NodeRecord:
        """What the report begins with."""
        runs = self.identity.boot_state.version
        return NodeRecord(self.address, runs, self.image.facts.version, self.image.size, runs=runs)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A node on which an upgrade that did not end may have left an activation; `on_trial` if it runs that image."""

    address: NodeAddress
    on_trial: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes to upgrade, in order, and those that run the release already.

    What is in `leftovers` goes back to its confirmed image first, and only then can be said what those on trial need.
    """

    nodes: tuple[NodePlan, ...] = ()
    up_to_date: tuple[NodePlan, ...] = ()
    leftovers: tuple[Leftover, ...] = ()

    @property
    def has_work(self) -> bool:
        """Whether any node is to be changed."""
        return bool(self.nodes or self.leftovers)

    def groups(self) -> list[tuple[NodePlan, ...]]:
        """The nodes to upgrade by their type, in order: those of one group are programmed together."""
        return [tuple(group) for _, group in groupby(self.nodes, key=lambda node: node.address.node_type)]


async def listen(master: StationMaster, start: Start = Start.FRESH) -> None:
    """Hear the whole plant, and anybody else who commands it, without sending anything.

    What may pass (a node or the PCS that is just coming up) is waited for as long as `listen_s`.
    Raises BusSilent when nothing is heard, NoValidTraffic when frames are heard but none of the plant's.
    """
    view, times = master.view, master.config.times
    if not await until(lambda: view.any_frame_at is not None, times.bus_silent_s):
        raise BusSilent("nothing is heard on the bus", why=_why(master, f"no frame within {times.bus_silent_s:g} s"))
    await pause(times.listen_min_s)  # another gateway speaks at least this often
    fingerprint = master.link.codec.fingerprint
    await until(lambda: not refusals(view, master.config, fingerprint, now(), start), times.listen_s)
    if view.plant_frame_at is None:
        raise NoValidTraffic(
            "frames are heard, but none of the plant's",
            why=_why(master, f"none that the DBC knows within {times.listen_s:g} s"),
        )


async def hear(master: StationMaster, others: BusLoad, start: Start = Start.FRESH) -> float:
    """`listen`; gives the share of the bus that others take.  Raises BusOverloaded, and what `listen` raises."""
    unheard: NoValidTraffic | None = None
    with others:
        try:
            await listen(master, start)
        except NoValidTraffic as error:  # perhaps because there is no room for it
            unheard = error
    refusal = bus_refusal(others.load, master.config.policy) or unheard
    if refusal is not None:
        raise refusal
    return others.load


def _why(master: StationMaster, heard: str) -> str:
    """The evidence, with what the adapter said of it: a controller that is error passive hears nothing valid."""
    warning = master.watch.last_warning
    return heard if warning is None else f"{heard}; the adapter warned: {warning}"


def require_allowed(master: StationMaster, start: Start = Start.FRESH) -> None:
    """Raise the gravest reason against a start now; the others are named in its `why`."""
    found = refusals(master.view, master.config, master.link.codec.fingerprint, now(), start)
    if not found:
        return
    first, *others = found
    if others:
        first.why = "; ".join([first.why, "also: " + "; ".join(str(other) for other in others)])
    raise first


def require_askable(master: StationMaster) -> None:
    """Raise OtherGateway or IdConflict if somebody else upgrades this plant or asks its nodes: we would disturb."""
    codec = master.link.codec
    requests = {codec.diagnostic_ids(node)[0] for node in codec.nodes()}
    refusal = diagnostics_refusal(master.view, requests, now())
    if refusal is not None:
        raise refusal


async def make_plan(
    master: StationMaster, upgrade: VerifiedUpgrade, on_progress: OnProgress, start: Start = Start.FRESH
) -> Plan:
    """Identify every target and decide what it gets.

    Of an upgrade that is resumed, nodes on trial become leftovers; else there must be none (NodeUnhealthy).  A node
    that needs nothing but would boot another image is one in any case.

    Raises the file's and the nodes' mismatches: WrongNodeType, WrongHardware, VersionDowngrade, SecurityDowngrade,
    DependencyUnmet, WrongTarget, DbcMismatch, and what the diagnostic exchange raises.
    """
    check_dependencies(upgrade.manifest, _lowest_versions(master))
    to_do: list[NodePlan] = []
    up_to_date: list[NodePlan] = []
    trials = set() if start is Start.FRESH else on_trial(master)
    armed: list[Leftover] = []
    for entry in upgrade.manifest.images:
        targets = targets_of_type(master.config, entry.node_type)
        if not targets:
            raise WrongNodeType(
                f"this plant has no {entry.node_type.name.lower()} that can be upgraded",
                why=f"expected nodes are {', '.join(map(str, master.config.expected))}",
            )
        for address in targets:
            if any(node.address == address for node in (*to_do, *up_to_date)):
                continue  # of another hardware than its neighbour, and planned with the image for that
            on_progress(NodeStepEntered(now(), address, NodeStep.IDENTIFY))
            identity = await identify(master, address)
            if identity.boot_state.standing == ImageState.TRIAL:
                if start is Start.FRESH:
                    raise NodeUnhealthy(f"{address} does not run a confirmed image", why="it says that it is on trial")
                trials.add(address)
                continue
            image = upgrade.image_for(entry.node_type, identity.hardware_id)
            if image is None or image.facts.version != entry.version:
                image = next(i for i in upgrade.images if i.sha256 == entry.sha256)
            verdict = check_compatibility(image.facts, facts_of(identity))
            node = NodePlan(address, identity, image)
            if verdict is not Compatibility.SAME_VERSION:
                to_do.append(node)
                continue
            up_to_date.append(node)
            if identity.boot_state.armed:
                armed.append(Leftover(address, on_trial=False))
    leftovers = (*(Leftover(address, on_trial=True) for address in sorted(trials)), *armed)
    return Plan(tuple(to_do), tuple(up_to_date), leftovers)


def on_trial(master: StationMaster) -> set[NodeAddress]:
    """The expected nodes whose last Node_Info says that they run an image on trial."""
    heard = master.view.nodes
    return {
        address
        for address in master.config.expected
        if address in heard and heard[address].value.image_state is ImageState.TRIAL
    }


async def identify(master: StationMaster, address: NodeAddress) -> NodeIdentity:
    """Ask one node who it is.  Raises WrongTarget or DbcMismatch when it is not who it should be."""
    try:
        identity = await master.client(address).identify()
    except (IsoTpError, UdsError) as error:
        error.why = _why(master, error.why)  # a node whose flow control was lost with the bus is busy for a while
        raise
    master.armed.told(address, identity.boot_state)
    heard = master.view.nodes.get(address)
    hardware_id = None if heard is None else heard.value.hardware_id
    serial = master.config.serial_of(address)
    identity.require(node_type=address.node_type, hardware_id=hardware_id, serial=serial)
    if identity.dbc_sha256 != master.link.codec.sha256:
        raise DbcMismatch(f"{address} runs with another DBC", why="the SHA-256 that it reports is not ours")
    return identity


async def ask_state(master: StationMaster, address: NodeAddress) -> None:
    """Have a node say now what it runs, as if its Node_Info had come; one that cannot be asked sends that anyway."""
    try:
        state = await master.client(address).boot_state()
    except EssCanError:
        return
    master.armed.told(address, state)
    master.view.node_told(address, state, now())


def facts_of(identity: NodeIdentity) -> NodeFacts:
    """The facts on which compatibility is decided."""
    return NodeFacts(identity.node_type, identity.hardware_id, identity.boot_state.version, identity.security_counter)


def _lowest_versions(master: StationMaster) -> dict[NodeType, Version]:
    """The lowest version that runs among the plant's nodes of each type."""
    lowest: dict[NodeType, Version] = {}
    for address in master.config.expected:
        sample = master.view.nodes.get(address)
        if sample is not None:
            version = sample.value.version
            lowest[address.node_type] = min(version, lowest.get(address.node_type, version))
    return lowest
