"""How long an upgrade will take, and for how much of it high voltage will be off.

Worked out after the check, from what is known then: the bit timing, the images, what each node says of its flash and
holds already, what else was heard on the bus, the link's voltage and the PCS's current, and the station's physics as
configured (`StationPhysics`).  Nothing is decided by it.  It reckons with an upgrade in which nothing goes wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, log

from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.transfer_model import Job, WireModel, transfer_time_s
from ess_can.identity import NodeAddress
from ess_can.image.content import ImageContent
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import BmsHvNotice, BmsHvStatus, EmsHvStatusPoll, EmsPcsCommand, EmsUpgradeNotice
from ess_can.uds.target import FlashProfile

ASSUMED_FLASH = FlashProfile(
    sector_bytes=128 * 1024,
    sector_erase_s=2.0,
    program_s_per_byte=200e-6 / 32,
    buffer_bytes=8192,
    read_bytes_per_s=2e6,
    block_bytes=2048,
)
"""For a node that does not tell: twice the typical times of an STM32H743, with little RAM and a slow processor."""

_NOTICE_PERIOD_S = 0.5

# Lengths in bytes of requests and answers, in the order of docs/protocol.md.
_IDENTIFY = ((3, 8), (3, 13), (3, 4), (3, 4), (3, 17), (3, 39), (3, 35), (3, 7), (3, 27))
_UNLOCK = ((2, 6), (4, 4))
_AUTHENTICATE = ((3, 13), (2, 18), (18, 2))
_BEFORE_TRANSFER = (*_IDENTIFY, *_UNLOCK, (2, 6), *_AUTHENTICATE, (40, 4))
_AROUND_TRANSFER = ((11, 6), (1, 1))
_VERIFY = ((8, 8),)
_TRIAL = ((4, 4), (2, 2), *_IDENTIFY)
_CONFIRM = (*_IDENTIFY, *_UNLOCK, *_AUTHENTICATE, (4, 4), *_IDENTIFY)


@dataclass(frozen=True, slots=True)
class Target:
    """One node to upgrade: its image, of which it holds `offset` bytes already, and what it says of its flash."""

    address: NodeAddress
    content: ImageContent
    offset: int
    flash: FlashProfile | None


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """Nodes that are programmed together, `at_once` of them at the same time.

    `longest_block` is how many bytes one request to them may carry.
    """

    targets: tuple[Target, ...]
    at_once: int
    longest_block: int


@dataclass(frozen=True, slots=True)
class StationState:
    """The station as the check found it: whether it is `connected`, the PCS's current and the DC link's voltage."""

    connected: bool
    current_a: float
    link_voltage_v: float


@dataclass(frozen=True, slots=True)
class ExpectedPhase:
    """A phase and how long it is expected to take, in seconds."""

    phase: Phase
    duration_s: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is expected of the upgrade from the end of the check on; seconds.

    `transfer_s` is for how long at least one node is between its RequestDownload and the answer to its
    RequestTransferExit.  `assumed` are the nodes that do not tell what their flash is like (`ASSUMED_FLASH`).
    """

    phases: tuple[ExpectedPhase, ...]
    transfer_s: float
    assumed: tuple[NodeAddress, ...] = ()

    @property
    def duration_s(self) -> float:
        """The whole upgrade, without the check before it."""
        return sum(each.duration_s for each in self.phases)

    @property
    def hv_off_s(self) -> float:
        """From open contactors until the plant is given back."""
        return self.remaining_s(Phase.PROVE_HV_OFF)

    def remaining_s(self, phase: Phase) -> float:
        """This phase and all that follow it; 0 for one that is not part of what is expected."""
        names = [each.phase for each in self.phases]
        if phase not in names:
            return 0.0
        return sum(each.duration_s for each in self.phases[names.index(phase) :])


def estimate(
    groups: Sequence[TargetGroup],
    station: StationState,
    wire: WireModel,
    codec: StationCodec,
    config: GatewayConfig,
) -> Estimate:
    """What to expect of an upgrade of these nodes, one group after the other.

    `wire.other_load` is what was heard before the upgrade; what the upgrade itself adds is put on top.
    """
    wire = replace(wire, other_load=wire.other_load + _own_load(wire, codec, config))
    work = _NodeTimes(wire, codec)
    targets = [target for group in groups for target in group.targets]
    transfer_s = sum(work.transfer_s(group) for group in groups)
    verify_s = sum(work.verify_s(group) for group in groups)
    around_s = work.exchange_s(targets, (*_BEFORE_TRANSFER, *_VERIFY))
    proof_s = _proof_s(codec, config)
    times = config.physics
    soak_s = max(config.times.trial_soak_s, times.off_settling_s + proof_s)
    return Estimate(
        (
            *_off(station, codec, config),
            ExpectedPhase(Phase.PROGRAM, around_s + transfer_s + verify_s),
            ExpectedPhase(Phase.TRIAL_BOOT, work.exchange_s(targets, _TRIAL) + times.node_boot_s + soak_s),
            ExpectedPhase(Phase.CONFIRM, work.exchange_s(targets, _CONFIRM)),
            ExpectedPhase(Phase.RECONNECT, _reconnect_s(station, codec, config)),
        ),
        transfer_s,
        tuple(target.address for target in targets if target.flash is None),
    )


def _flash(target: Target) -> FlashProfile:
    return target.flash or ASSUMED_FLASH


class _NodeTimes:
    """What is done with nodes over the wire."""

    def __init__(self, wire: WireModel, codec: StationCodec) -> None:
        self._wire = wire
        self._codec = codec
        self._full_frame_s: dict[tuple[int, int], float] = {}

    def transfer_s(self, group: TargetGroup) -> float:
        """From the first RequestDownload to the last answer to RequestTransferExit."""
        unfinished = [target for target in group.targets if target.offset < target.content.size]
        jobs = [self._job(target, group.longest_block) for target in unfinished]
        return transfer_time_s(jobs, self._wire, group.at_once) + self.exchange_s(unfinished, _AROUND_TRANSFER)

    def verify_s(self, group: TargetGroup) -> float:
        """Reading and hashing the image in each node's flash, after its transfer: in as many turns as there are."""
        longest = max(target.content.size / _flash(target).read_bytes_per_s for target in group.targets)
        return longest * ceil(len(group.targets) / group.at_once)

    def _job(self, target: Target, longest_block: int) -> Job:
        flash = _flash(target)
        request_id, response_id = self._codec.diagnostic_ids(target.address)
        return Job(
            target.content.size,
            target.offset,
            min(longest_block, flash.block_bytes),
            self._frame_s(request_id, target),
            self._wire.short_message_s(response_id),
            flash,
        )

    def _frame_s(self, request_id: int, target: Target) -> float:
        """Worked out once for an image: nodes' identifiers make no difference worth the time."""
        key = id(target.content), target.offset
        if key not in self._full_frame_s:
            self._full_frame_s[key] = self._wire.full_frame_s(request_id, target.content, target.offset)
        return self._full_frame_s[key]

    def exchange_s(self, targets: Iterable[Target], lengths: Iterable[tuple[int, int]]) -> float:
        """Wire time of small requests and their answers, to all of these nodes."""
        frames = sum(self._frames(request) + self._frames(answer) for request, answer in lengths)
        per_frame = (self._wire.short_message_s(self._codec.diagnostic_ids(each.address)[0]) for each in targets)
        return frames * sum(per_frame) / self._wire.free_share

    def _frames(self, length: int) -> int:
        dl = self._wire.isotp.tx_dl
        single = dl - 1 if dl <= 8 else dl - 2
        return 1 if length <= single else 2 + ceil((length - (dl - 2)) / (dl - 1))


def _own_load(wire: WireModel, codec: StationCodec, config: GatewayConfig) -> float:
    """The share of the time that the upgrade's own cyclic frames take, with the racks' answers to its polls."""
    command, poll, notice = codec.route(EmsPcsCommand), codec.route(EmsHvStatusPoll), codec.route(EmsUpgradeNotice)
    answers = [codec.route(BmsHvNotice, rack) for rack in config.racks]
    busy = wire.frame_s(command.can_id, command.length) / (command.cycle_s or 0.05)
    busy += wire.frame_s(notice.can_id, notice.length) / _NOTICE_PERIOD_S
    polled = wire.frame_s(poll.can_id, poll.length) + sum(wire.frame_s(each.can_id, each.length) for each in answers)
    return busy + polled / config.hv.poll_period_s


def _status_s(codec: StationCodec) -> float:
    """How often racks and PCS say how they are."""
    return codec.route(BmsHvStatus).cycle_s or 0.05


def _proof_s(codec: StationCodec, config: GatewayConfig) -> float:
    """So many good statuses in a row, the first of them half a cycle away."""
    return (config.hv.consecutive_good - 0.5) * _status_s(codec)


def _off(station: StationState, codec: StationCodec, config: GatewayConfig) -> tuple[ExpectedPhase, ...]:
    """Ramp-down, contactors, discharge and proof."""
    times, status_s = config.physics, _status_s(codec)
    proof_s = _proof_s(codec, config)
    if station.link_voltage_v > config.hv.link_voltage_off_v:
        proof_s += times.discharge_tau_s * log(station.link_voltage_v / config.hv.link_voltage_off_v)
        proof_s += times.off_settling_s
    return (
        ExpectedPhase(Phase.RAMP_DOWN, abs(station.current_a) / times.pcs_ramp_a_per_s + status_s),
        ExpectedPhase(Phase.OPEN_CONTACTORS, (times.contactor_s if station.connected else 0.0) + status_s / 2),
        ExpectedPhase(Phase.PROVE_HV_OFF, proof_s),
    )


def _reconnect_s(station: StationState, codec: StationCodec, config: GatewayConfig) -> float:
    """Unlock, close rack after rack, close the PCS once a rack holds the link, give back: each told by a status."""
    times, status_s = config.physics, _status_s(codec)
    given_back_s = 2 * status_s
    closes = config.afterwards is Afterwards.CONNECT or (config.afterwards is Afterwards.AS_FOUND and station.connected)
    if not closes:
        return given_back_s
    last_rack_s = (len(config.racks) - 1) * times.stagger_s + times.precharge_s
    pcs_s = times.precharge_s + times.link_steady_s + times.contactor_s
    return given_back_s + max(last_rack_s, pcs_s) + status_s
