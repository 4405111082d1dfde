"""Faults that no seed draws, each aimed at one error or one change of state, and runs under them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ess_can.bus.clock import Cycle, now
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults import Fault, parse_fault
from ess_can.campaign.moments import Moment
from ess_can.campaign.plants import SMALLEST, Site
from ess_can.campaign.station import Station, Verdict
from ess_can.can.frame import CanFrame
from ess_can.can.timing import frame_duration_s
from ess_can.errors import BusError
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.progress import Event, NodeStepEntered, PhaseEntered
from ess_can.identity import NodeAddress, NodeType
from ess_can.isotp.pci import CONSECUTIVE_FRAME, FIRST_FRAME, FLOW_CONTROL
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.electrical import ContactorFault, LinkSpec
from ess_can.sim.pcs import PcsFaultCode
from ess_can.sim.rack_states import RackEvent
from ess_can.sim.wire import WireFault
from ess_can.uds.rules import RESPONSE_FLAG, Sid
from ess_can.uds.target import Did

BMU1 = NodeAddress(NodeType.BMU, 1)
_CTS, _WAIT, _OVERFLOW, _NO_STATUS = 0x30, 0x31, 0x32, 0x3F
_IDLE_ANSWER = bytes((0x02, 0x7E, 0x00))  # a single frame: the answer to a TesterPresent
_BULKY = CanFrame(0x600, bytes(8))  # gives way to all of the station's messages and answers, and to no request
_NOBODYS = 0x7F1
_OFF_ERRORS = 32
_LONG_S = 60.0


@dataclass(frozen=True)
class Directed:
    """`happens` is called at a moment of the upgrade, or when the station is made if there is none."""

    text: str
    happens: Callable[[Station], None]
    at: Moment | None = None

    kind = FaultKind.BUS_FOREIGN  # has to be one; it is not counted, because nothing says that it took effect

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        if self.at is None:
            self.happens(station)
        else:
            station.at(self.at, lambda: self.happens(station))


# --- frames -----------------------------------------------------------------------------------------


def _answers_become(text: str, change: Callable[[CanFrame], Verdict], at: str = "PROGRAM+0~6") -> Directed:
    """What becomes of a node's answers for a time."""
    moment = Moment.parse(at)

    def happens(station: Station) -> None:
        answer_id = station.plant.codec.diagnostic_ids(BMU1)[1]
        remove = station.on_transmission(lambda _index, frame: change(frame) if frame.can_id == answer_id else None)
        if moment.lasts_s is not None:
            station.later(moment.lasts_s, remove)

    return Directed(text, happens, moment)


def _is(frame: CanFrame, kind: int) -> bool:
    return frame.data[0] >> 4 == kind


def _flow_controls_say(status: int) -> Directed:
    def change(frame: CanFrame) -> Verdict:
        return replaced(frame, status) if _is(frame, FLOW_CONTROL) else None

    return _answers_become(f"every flow control says {status:02X}", change)


def replaced(frame: CanFrame, first_byte: int) -> CanFrame:
    """The frame with another byte 0."""
    return CanFrame(frame.can_id, bytes((first_byte,)) + frame.data[1:])


def _flow_controls_lost() -> Directed:
    return _answers_become("flow controls lost", lambda frame: WireFault.LOSE if _is(frame, FLOW_CONTROL) else None)


def _wrong_sequence() -> Directed:
    def change(frame: CanFrame) -> Verdict:
        return replaced(frame, frame.data[0] ^ 0x08) if _is(frame, CONSECUTIVE_FRAME) else None

    return _answers_become("every sequence number wrong", change)


def _another_controls_the_flow(text: str, wait: Callable[[CanFrame], Sequence[float]], status: int) -> Directed:
    """The node's flow controls are lost.  Somebody else sends some, so many seconds after a frame of ours: `wait`."""

    def happens(station: Station) -> None:
        request_id, answer_id = station.plant.codec.diagnostic_ids(BMU1)
        stranger = station.plant.wire.controller("stranger")
        flow_control = CanFrame(answer_id, bytes((status, 1, 0)))

        def rule(_index: int, frame: CanFrame) -> Verdict:
            if frame.can_id == request_id:
                for seconds in wait(frame):
                    station.later(seconds, lambda: stranger.send(flow_control))
            nodes_own = frame.can_id == answer_id and _is(frame, FLOW_CONTROL) and frame != flow_control
            return WireFault.LOSE if nodes_own else None

        station.later(_LONG_S, station.on_transmission(rule))

    return Directed(text, happens, Moment.parse("PROGRAM+0"))


def _kept_waiting() -> Directed:
    """Eleven wait frames in a row: one more than are obeyed."""
    many = tuple(0.02 * number for number in range(1, 12))
    return _another_controls_the_flow("kept waiting", lambda frame: many if _is(frame, FIRST_FRAME) else (), _WAIT)


def _kept_slow() -> Directed:
    """Blocks of one frame, each let through just before the time-out."""
    missing = 0

    def wait(frame: CanFrame) -> Sequence[float]:
        nonlocal missing
        if _is(frame, FIRST_FRAME):
            missing = (frame.data[0] & 0xF) * 256 + frame.data[1] - 6
        elif _is(frame, CONSECUTIVE_FRAME):
            missing -= 7
        else:
            return ()
        return (0.9,) if missing > 0 else ()

    return _another_controls_the_flow("kept slow", wait, _CTS)


def _challenge_lost() -> Directed:
    """Of the answer that is waited for longest, the challenge, only the first frame comes."""
    challenge = False

    def change(frame: CanFrame) -> Verdict:
        nonlocal challenge
        if _is(frame, FIRST_FRAME):
            challenge = frame.data[2] == Sid.SECURITY_ACCESS + RESPONSE_FLAG
        return WireFault.LOSE if challenge and _is(frame, CONSECUTIVE_FRAME) else None

    return _answers_become("challenges lost", change)


def _in_a_cycle(station: Station, moment: Moment, period_s: float, send: Callable[[], None]) -> None:
    def act(_at: float) -> None:
        with suppress(BusError):  # a queue that is full sends all the same
            send()

    cycle = Cycle(period_s, act)
    cycle.start()
    station.to_heal(cycle.stop)
    if moment.lasts_s is not None:
        station.later(moment.lasts_s, cycle.stop)


def _answers_interrupted() -> Directed:
    """Right after the first frame of an answer another answer comes in one frame."""

    def happens(station: Station) -> None:
        answer_id = station.plant.codec.diagnostic_ids(BMU1)[1]
        stranger = station.plant.wire.controller("stranger")

        def rule(_index: int, frame: CanFrame) -> Verdict:
            if frame.can_id == answer_id and _is(frame, FIRST_FRAME):
                stranger.send(CanFrame(answer_id, _IDLE_ANSWER))
            return None

        station.later(1.0, station.on_transmission(rule))

    return Directed("answers interrupted", happens, Moment.parse("PROGRAM+0"))


def _requests_give_way() -> Directed:
    """From the first request on the bus is full of frames that a request gives way to."""

    def happens(station: Station) -> None:
        wire = station.plant.wire
        babbler = wire.controller("babbler")

        def full(event: Event) -> None:
            if isinstance(event, NodeStepEntered) and event.step is NodeStep.IDENTIFY:
                station.on_event.remove(full)
                period_s = frame_duration_s(_BULKY, wire.timing)
                _in_a_cycle(station, Moment(0.0, lasts_s=6.0), period_s, lambda: babbler.send(_BULKY))

        station.on_event.append(full)

    return Directed("requests give way", happens)


def _another_plants_bus() -> Directed:
    def happens(station: Station) -> None:
        station.on_transmission(lambda _index, frame: CanFrame(_NOBODYS, frame.data))

    return Directed("nothing but another plant's frames", happens, Moment(0.0))


FRAMES = (
    _flow_controls_say(_NO_STATUS),
    _flow_controls_say(_OVERFLOW),
    _flow_controls_lost(),
    _challenge_lost(),
    _wrong_sequence(),
    _kept_waiting(),
    _kept_slow(),
    _answers_interrupted(),
    _requests_give_way(),
    _another_plants_bus(),
)
"""What raises each error of ISO-TP, and that nobody of this plant is heard."""


# --- nodes, gateway ---------------------------------------------------------------------------------


def _no_restart(station: Station) -> None:
    """The gateway's controller goes bus-off, and cannot be restarted from the gateway."""
    controller = station.controller
    controller.restart = lambda: False  # type: ignore[method-assign]

    def heal() -> None:
        del controller.restart

    station.to_heal(heal)
    controller.disturb(_OFF_ERRORS)


def _another_dbc(station: Station) -> None:
    """The node was built with another DBC whose short fingerprint, by chance, is that of ours."""
    node = station.plant.nodes[BMU1]
    head = bytes((0x62, *Did.DBC_FINGERPRINT.to_bytes(2, "big")))
    node.alter_answer = lambda answer: answer[:-1] + bytes((answer[-1] ^ 1,)) if answer.startswith(head) else answer

    def heal() -> None:
        node.alter_answer = None

    station.to_heal(heal)


def _boots_at_once(station: Station) -> None:
    """A node that is back before its rack has tested itself."""
    node = station.plant.nodes[BMU1]
    node.board = replace(node.board, boot_s=0.05)


def _hub_fails(station: Station) -> None:
    """Adapter and disk hang on one USB hub, which fails as the first image is about to be activated."""
    failed = False

    def on_write(_number: int) -> None:
        if failed:
            raise sqlite3.OperationalError("disk I/O error")

    def on_event(event: Event) -> None:
        nonlocal failed
        if isinstance(event, PhaseEntered) and event.phase is Phase.TRIAL_BOOT and not failed:
            failed = True
            station.plugged = False
            station.controller.unplug()

    station.disk.before.append(on_write)
    station.on_event.append(on_event)
    station.to_heal(lambda: station.disk.before.remove(on_write))
    station.to_heal(lambda: station.on_event.remove(on_event))


NO_RESTART = Directed("bus-off for good", _no_restart, Moment.parse("PROGRAM+0.1"))
ANOTHER_DBC = Directed("bmu1 with another DBC", _another_dbc)
BOOTS_AT_ONCE = Directed("bmu1 boots at once", _boots_at_once)
HUB_FAILS = Directed("the hub fails", _hub_fails)


# --- PCS, racks -------------------------------------------------------------------------------------


def _pcs_contactor(fault: ContactorFault, at: str) -> Directed:
    """The PCS's own contactor is bad from a moment on."""

    def happens(station: Station) -> None:
        contactor = station.plant.circuit.pcs_contactor
        contactor.fault = fault

        def heal() -> None:
            contactor.fault = ContactorFault.NONE
            contactor.closed = contactor.coil

        station.to_heal(heal)

    return Directed(f"PCS contactor {fault.value}", happens, Moment.parse(at))


def _pcs_trips(at: str) -> Directed:
    """The PCS finds a fault of its own."""

    def happens(station: Station) -> None:
        station.plant.pcs.trip(PcsFaultCode.INTERNAL, now())

    return Directed(f"PCS trips@{at}", happens, Moment.parse(at))


def _locked(station: Station) -> None:
    """Somebody else locked the PCS, and is gone."""
    station.plant.pcs.receive_command(EmsPcsCommand(PcsCommandCode.LOCK, upgrade_active=False), now())


def _precharge_broken_off(station: Station) -> None:
    """The PCS restarts while the link is being charged."""
    rack = station.plant.racks[0]

    def on_event(event: RackEvent) -> None:
        if event is RackEvent.CLOSE:
            rack.on_event.remove(on_event)
            station.later(0.15, lambda: station.plant.pcs_node.restart(now()))

    rack.on_event.append(on_event)


LOCKED = Directed("PCS locked", _locked)
PRECHARGE_BROKEN_OFF = Directed("precharge broken off", _precharge_broken_off)
SLOW_LINK = replace(SMALLEST, plant=replace(SMALLEST.plant, link=LinkSpec()))
FOUND_OPEN = replace(SMALLEST, plant=replace(SMALLEST.plant, running=False))
_WELDED = _pcs_contactor(ContactorFault.WELDED, "0")


def runs() -> Iterator[tuple[Site, Sequence[Fault]]]:
    """Sites, and what goes wrong there."""
    for fault in (*FRAMES, NO_RESTART, ANOTHER_DBC, HUB_FAILS):
        yield SMALLEST, [fault]
    yield SLOW_LINK, [PRECHARGE_BROKEN_OFF]
    yield FOUND_OPEN, [LOCKED]
    resets = [parse_fault(f"node:bmu1:reset@PROGRAM+{seconds}") for seconds in (0.05, 0.15)]
    yield SMALLEST, [BOOTS_AT_ONCE, *resets]
    pcs_restarts = [parse_fault(f"plant:pcs-restarts@{at}") for at in ("PROGRAM+0", "4", "PROGRAM+0.1")]
    yield SMALLEST, [_WELDED]
    yield SMALLEST, [_WELDED, pcs_restarts[0]]
    yield SMALLEST, [_WELDED, pcs_restarts[1]]
    yield SMALLEST, [_pcs_contactor(ContactorFault.STUCK_OPEN, "PROGRAM+0")]
    yield SMALLEST, [_pcs_trips("PROGRAM+0.1"), _pcs_trips("PROGRAM+0.2")]
    yield SMALLEST, [pcs_restarts[2], _pcs_trips("PROGRAM+0.2")]
