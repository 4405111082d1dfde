"""The doctor's judgement of the bus and the plant, by what was heard, and by one node's answer if one was asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ess_can.bus.link_facts import LinkFacts
from ess_can.errors import (
    BusError,
    DbcMismatch,
    EssCanError,
    IdConflict,
    NodeMissing,
    NTimeoutA,
    OtherGateway,
    TransmitQueueFull,
    TransmitStalled,
)
from ess_can.gateway.doctor import Finding, Group, not_applicable, ok, problem, warning
from ess_can.gateway.station_snapshot import E2eVerdicts, Snapshot
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import ImageState, UpgradePhase

_BUSY = 0.7
"""Share of the wire's time beyond which an upgrade is slow and rare frames are late."""
_CONTESTED_FRAMES = 4
_CONTESTED = 0.2
"""From so many frames on, and so large a share of a message's, repeats and jumps mean a second sender."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of asking one node for its identifiers: the `version` it runs, or the `error`.

    `left` tells whether the link counted frames of ours as sent; None where there is no such counter.
    """

    node: NodeAddress
    version: str = ""
    took_s: float = 0.0
    error: EssCanError | None = None
    left: bool | None = None


def judge_bus(snapshot: Snapshot, before: LinkFacts | None, after: LinkFacts | None) -> Iterator[Finding]:
    """What was heard; `before` and `after` are what the link counted around the listening."""
    for one in snapshot.warnings:
        if isinstance(one.error, BusError) and not one.error.ends_use:
            yield warning(Group.BUS, one.error.name.lower(), str(one.error), one.error.remedy)
        else:
            yield problem(Group.BUS, one.error.name.lower(), one.error)
    e2e = _e2e(snapshot)
    if e2e.error is not None:  # before the traffic: frames that contradict each other may be why no plant is heard
        yield e2e
    silence = snapshot.silence()
    traffic = snapshot.traffic
    if silence is not None:
        yield problem(Group.BUS, "traffic", silence)
    else:
        unknown = f", {len(traffic.unknown_ids)} identifiers that the DBC does not have" if traffic.unknown else ""
        yield ok(Group.BUS, "traffic", f"the plant is heard: {traffic.frames_per_s:.0f} frames/s{unknown}")
        load = f"{100 * traffic.load:.1f} % of {traffic.bitrate / 1000:g} kbit/s"
        if traffic.load > _BUSY:
            yield warning(
                Group.BUS, "load", load, "Find out who sends that much; an upgrade takes what is left and is slow."
            )
        else:
            yield ok(Group.BUS, "load", load)
        if e2e.error is None:
            yield e2e
    if before is not None and after is not None:
        yield _growth(before, after)


def _e2e(snapshot: Snapshot) -> Finding:
    bad = [
        f"{one.name}: {one.repeated} repeated, {one.wrong_sequence} out of order, {one.crc_errors} CRC errors, "
        f"{one.unusable} unusable"
        for one in snapshot.e2e
        if one.repeated or one.wrong_sequence or one.crc_errors or one.unusable
    ]
    contested = [one.name for one in snapshot.e2e if _two_senders(one)]
    if contested:
        error = IdConflict(
            f"more than one sender of {', '.join(contested)}: counters are out of order all the time",
            why="; ".join(bad),
        )
        return problem(Group.BUS, "E2E", error, "ess-can monitor")
    if bad:
        return warning(
            Group.BUS,
            "E2E",
            "; ".join(bad),
            "A node that restarted, a wrong DBC or a broken node: if it goes on, mend that before an upgrade.",
        )
    lost = sum(one.lost for one in snapshot.e2e)
    good = sum(one.ok for one in snapshot.e2e)
    return ok(Group.BUS, "E2E", f"{good} protected frames good{f', {lost} gaps' if lost else ''}")


def _two_senders(one: E2eVerdicts) -> bool:
    """Whether frames are out of step steadily: a sender that restarts, or a gap, is so once."""
    out_of_step = one.repeated + one.wrong_sequence
    judged = out_of_step + one.ok + one.lost
    return out_of_step >= _CONTESTED_FRAMES and out_of_step > _CONTESTED * judged


def _growth(before: LinkFacts, after: LinkFacts) -> Finding:
    old, new = before.counts, after.counts
    grown = [
        f"{now - then} {word}"
        for then, now, word in (
            (old.bus_errors, new.bus_errors, "bus errors"),
            (old.rx_errors, new.rx_errors, "receive errors"),
            (old.rx_dropped, new.rx_dropped, "received frames dropped"),
            (old.tx_dropped, new.tx_dropped, "frames to send dropped"),
            (old.bus_off, new.bus_off, "times bus-off"),
        )
        if now > then
    ]
    if grown:
        return warning(
            Group.BUS, "counters", f"while listening: {', '.join(grown)}", "Check bit rate, termination and wiring."
        )
    return ok(Group.BUS, "counters", "no new errors while listening")


def judge_plant(snapshot: Snapshot, expected: Iterable[NodeAddress], fingerprint: int) -> Iterator[Finding]:
    """The nodes, and who else commands them.  `expected` is empty if nobody said what the station has."""
    if not snapshot.plant_heard:
        yield not_applicable(Group.PLANT, "nodes", "the plant was not heard")
        return
    yield _presence(snapshot, tuple(expected))
    for node in snapshot.nodes:
        if node.info is not None and not node.dbc_ok:
            theirs = node.info.message.dbc_fingerprint
            why = f"its fingerprint is {theirs:#06x}, ours is {fingerprint:#06x}"
            yield problem(Group.PLANT, "DBC", DbcMismatch(f"{node.address} runs with another DBC", why=why))
    heard = [(node.address, node.info.message) for node in snapshot.nodes if node.info is not None]
    if heard and all(node.dbc_ok for node in snapshot.nodes if node.info is not None):
        yield ok(Group.PLANT, "DBC", f"all {len(heard)} nodes run with ours")
    unconfirmed = [
        f"{address}: {info.image_state.name}" for address, info in heard if info.image_state is not ImageState.CONFIRMED
    ]
    versions = {info.version for address, info in heard if address.node_type is NodeType.BMU}
    if unconfirmed:
        yield warning(
            Group.PLANT,
            "images",
            ", ".join(unconfirmed),
            "An upgrade does not start on an unconfirmed image: wait until it is confirmed or reverted.",
        )
    elif len(versions) > 1:
        yield warning(
            Group.PLANT,
            "images",
            f"racks run different versions: {', '.join(map(str, sorted(versions)))}",
            "Upgrade them to one version.",
        )
    elif heard:
        yield ok(Group.PLANT, "images", ", ".join(f"{address} {info.version}" for address, info in heard))
    yield _masters(snapshot)


def _presence(snapshot: Snapshot, expected: tuple[NodeAddress, ...]) -> Finding:
    heard = {node.address for node in snapshot.nodes if node.info is not None}
    names = ", ".join(map(str, sorted(heard))) or "none"
    if not expected:
        return not_applicable(
            Group.PLANT, "nodes", f"heard: {names}; with --racks N they are compared with the station"
        )
    missing = [str(address) for address in expected if address not in heard]
    missing += [] if snapshot.pcs is not None else ["the PCS"]
    surplus = [str(address) for address in sorted(heard - set(expected)) if address.node_type is NodeType.BMU]
    if missing:
        error = NodeMissing(
            f"{', '.join(missing)} not heard", why=f"heard: {names}", remedy="Check that every node is powered."
        )
        return problem(Group.PLANT, "nodes", error)
    if surplus:
        error = NodeMissing(
            f"{', '.join(surplus)} heard but not expected",
            why=f"expected: {', '.join(map(str, expected))}",
            remedy="Correct --racks: all racks of the DC bus must be watched.",
        )
        return problem(Group.PLANT, "nodes", error)
    return ok(Group.PLANT, "nodes", f"{names} and the PCS")


def _masters(snapshot: Snapshot) -> Finding:
    notice, command = snapshot.notice, snapshot.command
    if notice is not None and not notice.stale and notice.message.phase is not UpgradePhase.NONE:
        told = notice.message
        why = f"EMS_UpgradeNotice of session {told.session:#06x} in phase {told.phase.name}"
        error = OtherGateway("another gateway is upgrading this plant", why=why)
        return problem(Group.PLANT, "masters", error, "ess-can monitor")
    if command is not None and not command.stale:
        return warning(
            Group.PLANT,
            "masters",
            f"somebody commands the plant: EMS_PcsCommand {command.message.command.name}",
            "Before an upgrade the EMS has to hand over: it stops sending EMS_PcsCommand.",
        )
    return ok(Group.PLANT, "masters", "nobody else commands the plant")


def judge_probe(probe: Probe | None, why_not: str) -> Finding:
    """Whether what we send arrives; `why_not` tells why nothing was sent, if so."""
    name = "transmission"
    if probe is None:
        return not_applicable(Group.PLANT, name, why_not)
    if probe.error is None:
        seen = f"{probe.node} answers: it runs {probe.version}; all its identifiers took {1000 * probe.took_s:.0f} ms"
        return ok(Group.PLANT, name, seen)
    error = probe.error
    stalls = isinstance(error, NTimeoutA | TransmitQueueFull) or probe.left is False
    if stalls and not isinstance(error, TransmitStalled):
        error = TransmitStalled("what we send does not leave", why=str(error))
    return problem(Group.PLANT, name, error)
