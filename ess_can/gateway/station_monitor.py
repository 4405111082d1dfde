"""Listens to a station and knows, at any moment, all that can be known without sending.  Sans-IO.

Feed it by `attach`, or call `on_frame`, `on_message`, `on_rejected` and `on_bus_error`; `snapshot` gives what is known.
Whether high voltage is off is judged by the gateway's own gate, from the polls and notifications of others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from ess_can.bus.station import Received, Rejected, StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import BusError
from ess_can.gateway.config import HvLimits
from ess_can.gateway.hv_gate import HvGate, Source
from ess_can.gateway.station_snapshot import (
    BusWarning,
    E2eVerdicts,
    Heard,
    HvEvidence,
    NodeSnapshot,
    RackSnapshot,
    Snapshot,
    Traffic,
)
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.dbc import StationCodec
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    Message,
    NodeInfo,
    PcsStatus,
)

M = TypeVar("M", bound=Message)

_HEARD: tuple[type[Message], ...] = (
    *(PcsStatus, BmsHvStatus, BmsHvNotice, EmsPcsCommand),
    *(BmsState, BmsCellSummary, BmsAlarms, NodeInfo, EmsHvStatusPoll, EmsUpgradeNotice),
)
_PLANT = (PcsStatus, BmsHvStatus, NodeInfo)
"""What only the plant sends, and what the gateway takes for a sign of it."""

_SOURCES: dict[type[Message], Source] = {
    PcsStatus: Source.PCS_STATUS,
    BmsHvStatus: Source.RACK_STATUS,
    BmsHvNotice: Source.RACK_NOTICE,
}
_WINDOW_S = 1.0
_ACYCLIC_S = 1.0
"""After this long, what has no cycle in the DBC is not going on any more."""
_UNKNOWN_IDS_KEPT = 64

_Key = tuple[type[Message], int | NodeAddress]


@dataclass(slots=True)
class _Tally:
    """Verdicts on one protected message so far."""

    name: str
    ok: int = 0
    lost: int = 0
    repeated: int = 0
    wrong_sequence: int = 0
    crc_errors: int = 0
    unusable: int = 0
    last: Verdict | None = None
    at: float | None = None

    def add(self, verdict: Verdict | None, at: float) -> bool:
        """Count a frame; false if it was the first and only shows where the sequence stands."""
        joined = self.at is None and verdict in (Verdict.WRONG_SEQUENCE, Verdict.OK_SOME_LOST)
        self.at = at
        if joined:
            return False
        match verdict:
            case Verdict.OK:
                self.ok += 1
            case Verdict.OK_SOME_LOST:
                self.lost += 1
            case Verdict.REPEATED:
                self.repeated += 1
            case Verdict.WRONG_SEQUENCE:
                self.wrong_sequence += 1
            case Verdict.ERROR:
                self.crc_errors += 1
            case _:
                self.unusable += 1
        self.last = verdict
        return True


@dataclass(slots=True)
class _Warning:
    error: BusError
    times: int
    at: float


class StationMonitor:
    """See the module.  `expected` nodes are shown even if they are not heard; all times are loop seconds.

    `bit_timing` is what the load is reckoned with.
    """

    def __init__(
        self,
        codec: StationCodec,
        bit_timing: BitTiming,
        began_at: float,
        *,
        expected: Iterable[NodeAddress] = (),
        limits: HvLimits | None = None,
    ) -> None:
        self._codec = codec
        # A frame with CAN FD on a bus said to be classic still has a length; its data phase counts at the nominal rate.
        self._timing = BitTiming(bit_timing.bitrate, bit_timing.data_bitrate or bit_timing.bitrate)
        self._began_at = began_at
        self._expected = frozenset(expected)
        self._limits = limits or HvLimits()
        routes = {kind: codec.routes(kind) for kind in _HEARD}
        self._cycles = {kind: routes[kind][0].cycle_s for kind in _HEARD}
        self._channels = {can_id: node for node in codec.nodes() for can_id in codec.diagnostic_ids(node)}
        self._known = {route.can_id for of_kind in routes.values() for route in of_kind} | set(self._channels)
        racks = [route.index for route in routes[BmsHvStatus]]
        self._gate = HvGate(racks, self._limits, self._cycles[BmsHvStatus] or 0.0)
        self._last: dict[_Key, tuple[Message, float]] = {}
        self._tallies: dict[_Key, _Tally] = {}
        self._warnings: dict[str, _Warning] = {}
        self._window: deque[tuple[float, float, NodeAddress | None]] = deque()
        self._frames = 0
        self._unknown = 0
        self._unknown_ids: set[int] = set()
        self._unusable = 0
        self._plant_heard = False

    def attach(self, link: StationLink, now: Callable[[], float]) -> Callable[[], None]:
        """Hear everything that `link`'s bus carries; gives a function that ends it.  `now` tells the loop's time."""
        for kind in _HEARD:
            link.subscribe(kind, self.on_message, self.on_rejected)
        stop_listening = link.bus.subscribe(None, self.on_frame)
        stop_watching = link.bus.watch(lambda error: self.on_bus_error(error, now()))

        def detach() -> None:
            stop_listening()
            stop_watching()
            link.close()

        return detach

    # --- what is heard ----------------------------------------------------------------------------

    def on_frame(self, frame: CanFrame, at: float) -> None:
        """Any frame, for the figures of the bus."""
        self._frames += 1
        try:
            duration_s = frame_duration_s(frame, self._timing)
        except ValueError:  # no such frame can be on a wire: the adapter made it up
            duration_s = 0.0
        self._window.append((at, duration_s, self._channels.get(frame.can_id)))
        self._forget_before(at - _WINDOW_S)
        if frame.can_id not in self._known:
            self._unknown += 1
            if len(self._unknown_ids) < _UNKNOWN_IDS_KEPT:
                self._unknown_ids.add(frame.can_id)

    def on_message(self, received: Received[Message]) -> None:
        """A usable message of the station."""
        message, index, at = received.message, received.index, received.at
        key = _key(message, index)
        self._last[key] = message, at
        self._plant_heard = self._plant_heard or isinstance(message, _PLANT)
        if received.verdict is not None:
            self._tally(type(message), index).add(received.verdict, at)
        match message:
            case PcsStatus():
                self._gate.on_pcs_status(message, received.verdict, at)
            case BmsHvStatus():
                self._gate.on_rack_status(index, message, received.verdict, at)
            case EmsHvStatusPoll():
                self._gate.poll_sent(message.token, at)
            case BmsHvNotice():
                self._gate.on_notice(index, message, at)

    def on_rejected(self, rejected: Rejected) -> None:
        """A frame on one of the station's identifiers that must not be used."""
        kind, index = rejected.message_type, rejected.index
        protected = kind in _SOURCES or kind is EmsPcsCommand
        if protected and not self._tally(kind, index).add(rejected.verdict, rejected.at):
            return
        self._unusable += 1
        source = _SOURCES.get(kind)
        if source is not None:
            self._gate.on_bad_frame(source, 0 if source is Source.PCS_STATUS else index, rejected.verdict)

    def on_bus_error(self, error: BusError, at: float) -> None:
        """What the adapter reports."""
        before = self._warnings.get(error.name)
        self._warnings[error.name] = _Warning(error, before.times + 1 if before else 1, at)

    # --- what is known ----------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        """Everything that is known now."""
        bmus = {node for node in self._expected if node.node_type is NodeType.BMU}
        racks = {node.index for node in bmus} | {
            index for kind, index in self._last if kind in (BmsHvStatus, BmsState) and isinstance(index, int)
        }
        poll = self._heard(EmsHvStatusPoll, 1, now)
        return Snapshot(
            listened_s=now - self._began_at,
            traffic=self._traffic(now),
            plant_heard=self._plant_heard,
            pcs=self._heard(PcsStatus, 1, now),
            racks=tuple(self._rack(rack, now) for rack in sorted(racks)),
            nodes=self._nodes(now),
            evidence=tuple(
                HvEvidence(s.source, s.rack, s.missing, None if s.last_good_at is None else now - s.last_good_at)
                for s in self._gate.standings(now)
                if s.source is Source.PCS_STATUS or s.rack in racks
            ),
            polled=poll is not None and not poll.stale,
            e2e=tuple(self._verdicts(key, tally, now) for key, tally in sorted(self._tallies.items(), key=_order)),
            command=self._heard(EmsPcsCommand, 1, now),
            notice=self._heard(EmsUpgradeNotice, 1, now),
            warnings=tuple(BusWarning(w.error, w.times, now - w.at) for w in self._warnings.values()),
        )

    def _rack(self, rack: int, now: float) -> RackSnapshot:
        return RackSnapshot(
            rack,
            self._heard(BmsHvStatus, rack, now),
            self._heard(BmsState, rack, now),
            self._heard(BmsCellSummary, rack, now),
            self._heard(BmsAlarms, rack, now),
        )

    def _nodes(self, now: float) -> tuple[NodeSnapshot, ...]:
        heard = {index for kind, index in self._last if kind is NodeInfo and isinstance(index, NodeAddress)}
        found = []
        for address in sorted(heard | self._expected):
            info = self._heard(NodeInfo, address, now)
            dbc_ok = info is not None and info.message.dbc_fingerprint == self._codec.fingerprint
            found.append(NodeSnapshot(address, info, dbc_ok))
        return tuple(found)

    def _heard(self, kind: type[M], index: int | NodeAddress, now: float) -> Heard[M] | None:
        message, at = self._last.get((kind, index), (None, 0.0))
        if not isinstance(message, kind):
            return None
        return Heard(message, now - at, now - at > self._stale_after_s(kind))

    def _stale_after_s(self, kind: type[Message]) -> float:
        cycle_s = self._cycles[kind]
        if cycle_s is None:
            return _ACYCLIC_S
        return max((self._limits.missed_cycles + 1) * cycle_s, self._limits.evidence_age_s)

    def _tally(self, kind: type[Message], index: int) -> _Tally:
        key = kind, index
        if key not in self._tallies:
            self._tallies[key] = _Tally(self._codec.route(kind, index).name)
        return self._tallies[key]

    def _verdicts(self, key: _Key, tally: _Tally, now: float) -> E2eVerdicts:
        age_s = now - (self._began_at if tally.at is None else tally.at)
        return E2eVerdicts(
            tally.name,
            tally.ok,
            tally.lost,
            tally.repeated,
            tally.wrong_sequence,
            tally.crc_errors,
            tally.unusable,
            tally.last,
            age_s,
            age_s > self._stale_after_s(key[0]),
        )

    def _traffic(self, now: float) -> Traffic:
        self._forget_before(now - _WINDOW_S)
        span_s = min(_WINDOW_S, now - self._began_at)
        channels: dict[NodeAddress, int] = {}
        busy_s = 0.0
        for _, duration_s, node in self._window:
            busy_s += duration_s
            if node is not None:
                channels[node] = channels.get(node, 0) + 1
        rate = 1 / span_s if span_s > 0 else 0.0
        return Traffic(
            frames=self._frames,
            frames_per_s=len(self._window) * rate,
            load=busy_s * rate,
            bitrate=self._timing.bitrate,
            diagnostic=tuple((node, count * rate) for node, count in sorted(channels.items())),
            unknown=self._unknown,
            unknown_ids=tuple(sorted(self._unknown_ids)),
            unusable=self._unusable,
        )

    def _forget_before(self, at: float) -> None:
        window = self._window
        while window and window[0][0] < at:
            window.popleft()


def _key(message: Message, index: int) -> _Key:
    if isinstance(message, NodeInfo):
        return NodeInfo, NodeAddress(message.node_type, index)
    return type(message), index


def _order(entry: tuple[_Key, _Tally]) -> tuple[int, str]:
    return _HEARD.index(entry[0][0]), entry[1].name
