"""What a simulated plant was busy with, at every instant, by its true state: the wire, its flash, its contactors.

`PlantTimeline` watches a plant while an upgrade runs on it; `PlantTimeline.parts` then cuts a span of time into what
each second was spent on.  Nothing that a node or the gateway says of itself is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf, log

from ess_can.bus.clock import Cycle
from ess_can.can.frame import CanFrame
from ess_can.can.timing import INTERMISSION_BITS, frame_duration_s
from ess_can.signals.messages import PcsState, RackState
from ess_can.sim.flash import FlashOperation
from ess_can.sim.plant import Plant
from ess_can.uds.rules import NEGATIVE_RESPONSE, START_ROUTINE, Sid
from ess_can.uds.target import Nrc, Rid

SAMPLE_S = 0.001
SAFE_V = 60.0
_GAP_S = 5e-6
"""Between two frames of a saturated wire: less than a bit."""
_DOWNLOAD = bytes((Sid.REQUEST_DOWNLOAD, 0x00, 0x44))
_VERIFY = bytes((Sid.ROUTINE_CONTROL, START_ROUTINE, *Rid.VERIFY_MEMORY.to_bytes(2, "big")))
_VERIFIED = bytes((Sid.ROUTINE_CONTROL + 0x40, *_VERIFY[1:]))
_NOT_VERIFIED = bytes((NEGATIVE_RESPONSE, Sid.ROUTINE_CONTROL))

Span = tuple[float, float]


class Part(Enum):
    """What a span of time is spent on; the first that applies."""

    WIRE = "wire"  # diagnostic frames, and what they wait for on a wire that is never idle in between
    FLASH = "flash"  # erasing, programming
    READ_BACK = "read-back"  # a node reads its flash and hashes it
    BOOT = "boot"  # a node restarts
    RAMP = "ramp"  # the PCS's current is not zero
    CONTACTORS = "contactors"  # contacts move
    DISCHARGE = "discharge"  # the link is above the safe voltage with all strings off
    CLOSING = "closing"  # precharge: a rack or the PCS is at it
    STAGGER = "stagger"  # the plant's own pause between one rack's closing and the next one's


@dataclass(frozen=True, slots=True)
class Sample:
    """The true state at one instant."""

    at: float
    ramping: bool
    moving: bool
    voltage_v: float
    strings_off: bool
    closing: bool
    connected: bool
    booting: bool


class PlantTimeline:
    """Watches `plant`; create it on the running loop before the plant starts.

    `samples` are the states, `frames` what was on the wire (start, end with intermission, identifier, first 8 bytes),
    `answers` the diagnostic identifiers: of a node's answers by those of its requests.
    """

    def __init__(self, plant: Plant, sample_s: float = SAMPLE_S) -> None:
        self.samples: list[Sample] = []
        self.frames: list[tuple[float, float, int, bytes]] = []
        self._plant = plant
        self._timing = plant.spec.bit_timing
        self._eof_s = INTERMISSION_BITS / self._timing.bitrate
        self._flash: list[Span] = []
        self.answers = dict(plant.codec.diagnostic_ids(address) for address in plant.nodes)
        for node in plant.nodes.values():
            node.flash.on_start.append(self._on_flash)
        plant.wire.on_frame.append(self._on_frame)
        self._cycle = Cycle(sample_s, self._sample)
        self._cycle.start()

    def stop(self) -> None:
        """Look no more."""
        self._cycle.stop()

    def _on_flash(self, operation: FlashOperation) -> None:
        self._flash.append((operation.started, operation.done_at))

    def _on_frame(self, frame: CanFrame, at: float, _sender: str) -> None:
        end = at + self._eof_s
        self.frames.append((end - frame_duration_s(frame, self._timing), end, frame.can_id, frame.data[:8]))

    def _sample(self, at: float) -> None:
        plant = self._plant
        circuit = plant.circuit
        racks = [rack.rack_state for rack in plant.racks]
        self.samples.append(
            Sample(
                at,
                ramping=circuit.bridge_request_a != 0.0 and circuit.pcs_contactor.closed,
                moving=any(contactor.due != inf for contactor in circuit.contactors),
                voltage_v=circuit.link_voltage_v,
                strings_off=not any(rack.conductance_s for rack in circuit.racks),
                closing=plant.pcs.state is PcsState.CLOSING or RackState.PRECHARGING in racks,
                connected=circuit.pcs_contactor.closed
                and all(rack.main_plus.closed and rack.main_minus.closed for rack in circuit.racks),
                booting=any(not node.running for node in plant.nodes.values()),
            )
        )

    # --- afterwards -----------------------------------------------------------------------------

    def safe_at(self, since: float) -> float:
        """When the link fell below the safe voltage after `since`, between two samples by the exponential."""
        before: Sample | None = None
        for sample in self.samples:
            if sample.at >= since and sample.voltage_v < SAFE_V:
                if before is None or before.voltage_v <= SAFE_V:
                    return sample.at
                share = log(before.voltage_v / SAFE_V) / log(before.voltage_v / sample.voltage_v)
                return before.at + share * (sample.at - before.at)
            if before is None or sample.voltage_v != before.voltage_v:  # the circuit steps more coarsely than we look
                before = sample
        return inf

    def connected_at(self, since: float) -> float:
        """When everything was connected again after `since`, by the main contacts themselves."""
        opened = next((s.at for s in self.samples if s.at >= since and not s.connected), inf)
        return next((s.at for s in self.samples if s.at > opened and s.connected), inf)

    def programming(self) -> Span:
        """From the first request to download to the last answer that an image is verified."""
        began = next((start for start, _, can_id, data in self.frames if can_id in self.answers and _DOWNLOAD in data))
        answers = frozenset(self.answers.values())
        return began, max(end for _, end, can_id, data in self.frames if can_id in answers and _VERIFIED in data)

    def other_traffic_s(self, begin: float, end: float) -> float:
        """Wire time between two instants of all frames that are not diagnostic."""
        diagnostic = {*self.answers, *self.answers.values()}
        spans = ((start, stop) for start, stop, can_id, _ in self.frames if can_id not in diagnostic)
        return sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)

    def parts(self, begin: float, end: float) -> tuple[dict[Part, float], list[Span]]:
        """Seconds of each part between two instants, and the spans that belong to none."""
        spans = {
            Part.WIRE: self._transfers(),
            Part.FLASH: self._flash,
            Part.READ_BACK: self._read_backs(),
            Part.BOOT: self._spans(begin, lambda s: s.booting),
            Part.RAMP: self._spans(begin, lambda s: s.ramping),
            Part.CONTACTORS: self._spans(begin, lambda s: s.moving),
            Part.DISCHARGE: self._discharges(begin),
            Part.CLOSING: self._spans(begin, lambda s: s.closing),
        }
        closing = spans[Part.CLOSING]
        spans[Part.STAGGER] = [(closing[0][0], closing[-1][1])] if closing else []
        left: list[Span] = [(begin, end)]
        seconds: dict[Part, float] = {}
        for part in Part:
            busy = merged(spans[part])
            rest = without(left, busy)
            seconds[part] = length(left) - length(rest)
            left = rest
        return seconds, left

    def _spans(self, begin: float, holds: Callable[[Sample], bool]) -> list[Span]:
        """From when to when a state held: it is what was found at its first sample until found otherwise."""
        spans: list[Span] = []
        since: float | None = None
        for sample in self.samples:
            if sample.at < begin - 1.0:
                continue
            if holds(sample):
                since = sample.at if since is None else since
            elif since is not None:
                spans.append((since, sample.at))
                since = None
        return spans

    def _discharges(self, begin: float) -> list[Span]:
        off = next((s.at for s in self.samples if s.at >= begin and s.strings_off and s.voltage_v >= SAFE_V), None)
        return [] if off is None else [(off, self.safe_at(off))]

    def _transfers(self) -> list[Span]:
        """Runs of frames without a gap, from the first to the last diagnostic one in each."""
        diagnostic = {*self.answers, *self.answers.values()}
        spans: list[Span] = []
        run_end = -inf
        first: float | None = None
        last = 0.0
        for start, end, can_id, _ in self.frames:
            if start > run_end + _GAP_S and first is not None:
                spans.append((first, last))
                first = None
            run_end = end
            if can_id in diagnostic:
                first = start if first is None else first
                last = end
        return spans if first is None else [*spans, (first, last)]

    def _read_backs(self) -> list[Span]:
        """From a request to verify to the node's answer."""
        requests = {answer: request for request, answer in self.answers.items()}
        asked: dict[int, float] = {}
        spans: list[Span] = []
        for start, end, can_id, data in self.frames:
            if can_id in self.answers and (can_id in asked or _VERIFY in data):
                asked[can_id] = end
            elif (request := requests.get(can_id)) in asked and request is not None and _ends_verify(data):
                spans.append((asked.pop(request), start))
        return spans


def _ends_verify(data: bytes) -> bool:
    return _VERIFIED in data or (_NOT_VERIFIED in data and Nrc.RESPONSE_PENDING not in data[3:4])


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same time without overlaps, in order."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def without(spans: list[Span], taken: list[Span]) -> list[Span]:
    """What of `spans` is not in `taken`; both merged."""
    result: list[Span] = []
    position = 0
    for start, end in spans:
        while position < len(taken) and taken[position][1] <= start:
            position += 1
        at, cursor = position, start
        while at < len(taken) and taken[at][0] < end:
            if taken[at][0] > cursor:
                result.append((cursor, taken[at][0]))
            cursor = max(cursor, taken[at][1])
            at += 1
        if cursor < end:
            result.append((cursor, end))
    return result


def length(spans: Iterable[Span]) -> float:
    """Seconds in all."""
    return sum(end - start for start, end in spans)


def within(spans: list[Span], begin: float, end: float) -> float:
    """Seconds of `spans` between two instants."""
    return sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)


def table(seconds: Mapping[Part, float]) -> str:
    """One line a part."""
    return "\n".join(f"  {part.value:<14}{seconds[part]:>9.3f} s" for part in Part if seconds[part])
