"""The station's receivers, ours and the plant's, that hear arbitrary frames on every identifier."""

from __future__ import annotations

import random

from ess_can.bus.clock import now, pause
from ess_can.bus.station import Received, StationLink
from ess_can.can.frame import CanFrame
from ess_can.gateway.config import HvLimits
from ess_can.gateway.interlock import Interlock
from ess_can.gateway.plant_view import Connection, PlantView
from ess_can.gateway.watch import PlantWatch
from ess_can.signals.binding import FAMILIES
from ess_can.signals.e2e import protect
from ess_can.signals.messages import (
    BmsHvNotice,
    BmsHvStatus,
    ContactorState,
    EmsPcsCommand,
    HvNoticeCondition,
    PcsStatus,
)
from ess_can.sim.loop import run_virtual
from tests.fuzz.inputs import dice, noise, one_of
from tests.support.memory_bus import MemoryBus
from tests.support.scripted_plant import CODEC, PCS_OFF, RACK_OFF
from tests.unit.sim.hv_station import Station

FRAMES = 150
RACKS = (1, 2)
ROUTES = [route for message_type in FAMILIES for route in CODEC.routes(message_type)]
OFF = {CODEC.route(BmsHvStatus, rack).can_id: CODEC.encode(RACK_OFF, rack) for rack in RACKS} | {
    CODEC.route(PcsStatus).can_id: CODEC.encode(PCS_OFF)
}


class Hostile:
    """Frames of every kind; those with end-to-end protection are often protected well, so that their content counts."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._counters: dict[int, int] = {}

    def frame(self) -> CanFrame:
        rng = self._rng
        route = rng.choice(ROUTES)
        data = rng.randbytes(route.length)
        if route.can_id in OFF and rng.random() < 0.5:  # nearly what proves high voltage off
            data = OFF[route.can_id]
            if rng.random() < 0.3:
                at = rng.randrange(24, 8 * len(data))
                data = data[: at // 8] + bytes((data[at // 8] ^ 1 << at % 8,)) + data[at // 8 + 1 :]
        if route.e2e_data_id is not None and rng.random() < 0.9:
            counter = (self._counters.get(route.can_id, 255) + rng.choice((0, 1, 1, 1, 1, 2, 9))) % 256
            self._counters[route.can_id] = counter
            data = protect(data, route.e2e_data_id, counter)
        if rng.random() < 0.1:
            data = noise(rng, 8)
        fd = rng.random() < 0.03
        remote = not fd and rng.random() < 0.03
        can_id = route.can_id | (0x8000_0000 if rng.random() < 0.03 else 0)
        return CanFrame(can_id, b"" if remote else data, fd, False, remote)


def gateway_case(number: int) -> None:
    """Never an exception, and never a proof: nobody echoes a token of ours, so that something is always missing."""
    rng = dice("station", number)

    async def listen() -> None:
        bus = MemoryBus()
        link = StationLink(bus, CODEC)
        view, watch = PlantView(), PlantWatch(link)
        view.attach(link)
        watch.arm()
        interlock = Interlock(link, RACKS, HvLimits(), random.Random(number))
        notices: list[BmsHvNotice] = []
        polled = {token_of(frame) for frame in bus.sent}
        link.subscribe(BmsHvNotice, lambda received: keep(notices, received))
        interlock.start_polling()
        hostile = Hostile(rng)
        for _ in range(FRAMES):
            bus.deliver(hostile.frame())
            if rng.random() < 0.5:
                await pause(rng.choice((0.001, 0.01, 0.05)))
            polled = {token_of(frame) for frame in bus.sent}
            echoed = any(n.token in polled and n.condition is HvNoticeCondition.DISCONNECTED for n in notices)
            assert echoed or interlock.gate.missing(now())
            assert view.connection(RACKS, now() - 0.3) in Connection
            assert set(view.racks) <= {route.index for route in ROUTES}
            assert len(view.nodes) <= len(ROUTES) * 3
        interlock.close()
        watch.close()
        link.close()

    run_virtual(listen())


def keep(notices: list[BmsHvNotice], received: Received[BmsHvNotice]) -> None:
    notices.append(received.message)


def token_of(frame: CanFrame) -> int:
    """Of a poll of ours."""
    decoded = CODEC.decode(frame.can_id, frame.data)
    return getattr(decoded.message, "token", -1) if decoded else -1


def plant_case(number: int) -> None:
    """Racks and PCS that are told anything: never an exception, and programming is never allowed on a live link."""
    rng = dice("plant", number)
    station = Station(racks=1, closed=rng.random() < 0.7)
    hostile = Hostile(rng)
    if rng.random() < 0.3:
        station.isolate()
    for _ in range(FRAMES):
        frame = hostile.frame()
        decoded = None if frame.remote or frame.fd else CODEC.decode(frame.can_id, frame.data)
        message = decoded.message if decoded else None
        if isinstance(message, EmsPcsCommand):
            station.pcs.receive_command(message, station.now)
            station.rack.on_command(message, station.now)
        elif isinstance(message, PcsStatus):
            station.rack.on_pcs_status(message, station.now)
        elif frame.can_id == CODEC.route(PcsStatus).can_id:
            station.rack.on_pcs_status_rejected()
        station.pcs_heard = rng.random() < 0.5
        for _ in range(one_of(rng, 1, 2, 20)):
            station.step()
            judge_plant(station)


def judge_plant(station: Station) -> None:
    rack, at = station.rack, station.now
    status = rack.hv_status(at)
    contactors = (status.main_plus, status.main_minus, status.precharge)
    if rack.programming_allowed(at):
        assert contactors == (ContactorState.OPEN,) * 3
        assert station.circuit.link_voltage_v < 60.0
    if rack.reset_allowed(at):
        assert ContactorState.CLOSED not in contactors
    rack.notice(1, at)
    rack.state(at)
    rack.alarms(at)
    station.pcs.status(at)
