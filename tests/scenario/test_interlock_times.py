"""How long after bad evidence the last write is on the wire, and the last flash operation begins.

Every kind of bad evidence, at instants of every step that writes; the time runs from the end of the first frame that is
bad, or from when the last good one is too old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

import pytest

from ess_can.bus.clock import pause
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.gateway.phases import NodeStep
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.sim.wire import WireFault
from tests.campaign.counts import Count
from tests.campaign.scale import chosen
from tests.scenario.support import QUICK, SETTLED_S, Scene, Sent, fill_inactive_banks, small_plant
from tests.support.evidence import KINDS, Bad

LIMIT_S = 0.100
WATCHED_S = 1.0
WRITES = ("34", "36", "37", "3101ff00", "3101fd10", "3101fd11", "3101fd12")
"""Requests that change the node's memory or what it boots, as they begin."""

Instant = Callable[[Scene], Awaitable[None]]


def step(which: NodeStep, after_s: float) -> Instant:
    async def wait(scene: Scene) -> None:
        await scene.step(which)
        await pause(after_s)

    return wait


def verified(offset: int) -> Instant:
    async def wait(scene: Scene) -> None:
        await scene.verified(offset)

    return wait


INSTANTS: dict[str, Instant] = {
    "announce": step(NodeStep.ANNOUNCE, 0.0),
    "transfer begins": step(NodeStep.TRANSFER, 0.002),
    "first block": step(NodeStep.TRANSFER, 0.040),
    "while it erases": step(NodeStep.TRANSFER, 0.300),
    "half of it": verified(10_000),
    "last block": verified(18_000),
    "verify": step(NodeStep.VERIFY, 0.0005),
    "activate": step(NodeStep.TRIAL_BOOT, 0.0),
    "confirm": step(NodeStep.CONFIRM, 0.001),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from the bad evidence to the last frame of a write, and to the begin of the last flash operation.

    Negative: it was before.  `at_work` says whether there was any of them in the second before.
    """

    frame_s: float
    flash_s: float
    at_work: bool


def writes(frames: Iterable[Sent]) -> list[Sent]:
    """The frames of requests that write, each consecutive frame with the request that it continues."""
    found: list[Sent] = []
    writing: dict[int, bool] = {}
    for sent in frames:
        kind, data = sent.frame.data[0] >> 4, sent.frame.data
        if kind in (0, 1):
            payload = data[(1 if data[0] else 2) if kind == 0 else (2 if data[0] & 0xF or data[1] else 6) :].hex()
            writing[sent.frame.can_id] = payload.startswith(WRITES)
        if kind != 3 and writing.get(sent.frame.can_id, False):
            found.append(sent)
    return found


def measure(bad: Bad, instant: Instant, spec: PlantSpec, bus: BusLimits, rack: int) -> Measured:
    async def run() -> Measured:
        plant = small_plant(spec)
        fill_inactive_banks(plant)
        plant.start()
        scene = Scene(plant)
        await pause(SETTLED_S)
        upgrade = asyncio.ensure_future(scene.run_upgrade(config=GatewayConfig(plant.addresses, bus=bus)))
        await instant(scene)
        last_good = last_heard(plant, bad, rack, scene)
        bad_at = await spoil(plant, bad, rack, last_good)
        await pause(max(0.0, bad_at + WATCHED_S - plant.wire.loop.time()))
        for node in plant.nodes.values():
            if node.running:
                node.memory.settle(plant.wire.loop.time())
        frames = [sent.at for sent in writes(scene.diagnostic_requests)]
        begun = [operation.started for _, operation in scene.monitors.operations]
        upgrade.cancel()
        plant.stop()
        at_work = any(bad_at - WATCHED_S < at < bad_at for at in (*frames, *begun))
        long_ago = bad_at - WATCHED_S
        return Measured(max(frames, default=long_ago) - bad_at, max(begun, default=long_ago) - bad_at, at_work)

    return run_virtual(run())


def last_heard(plant: Plant, bad: Bad, rack: int, scene: Scene) -> float:
    return scene.last_at(bad.can_id(plant.codec, rack))


async def spoil(plant: Plant, bad: Bad, rack: int, last_good: float) -> float:
    """Every frame of it is bad from now on; gives the time from which the evidence is."""
    can_id, first = bad.can_id(plant.codec, rack), list[float]()

    def fault(_index: int, frame: CanFrame) -> CanFrame | WireFault | None:
        if frame.can_id != can_id:
            return None
        first.append(plant.wire.loop.time())
        return bad.spoil(plant.codec, frame)

    plant.wire.fault = fault
    if bad.valid_s:
        return last_good + bad.valid_s
    async with asyncio.timeout(1.0):
        while not first:
            await pause(0.0005)
    return first[0]


@dataclass(frozen=True, slots=True)
class Case:
    bad: Bad
    instant: str
    rack: int


SILENT = tuple(bad for bad in KINDS if bad.valid_s)
SOME = tuple(KINDS[::7]) + SILENT
TWO_RACKS = replace(QUICK, racks=2)
ONE_RACK = replace(QUICK, racks=1)
SLOW = replace(QUICK, racks=2, bit_timing=BitTiming(125_000))
FAST = replace(QUICK, racks=2, bit_timing=BitTiming(1_000_000))
EIGHT = replace(QUICK, racks=8)
NO_CAP = BusLimits()


def worst(say: Callable[[str], None], title: str, cases: list[Case], spec: PlantSpec, bus: BusLimits) -> None:
    """Measure all of them, say the worst, and hold them to the limit."""
    results = [
        (measure(case.bad, INSTANTS[case.instant], spec, bus, case.rack), f"{case.bad.name}, {case.instant}")
        for case in cases
    ]
    frame, frame_name = max(results, key=lambda result: result[0].frame_s)
    flash, flash_name = max(results, key=lambda result: result[0].flash_s)
    say(
        f"{title}: {len(results)} cases; last frame of a write {1000 * frame.frame_s:.1f} ms after ({frame_name}), "
        f"last flash operation begun {1000 * flash.flash_s:.1f} ms after ({flash_name})"
    )
    slow = [f"{name}: {found}" for found, name in results if max(found.frame_s, found.flash_s) > LIMIT_S]
    assert not slow, "\n".join(slow)
    idle = [name for found, name in results if not (found.at_work or name.endswith(("announce", "confirm")))]
    assert not idle, f"nothing was being written: {idle}"


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line although output is captured."""

    def line(text: str) -> None:
        with capsys.disabled():
            request.config.get_terminal_writer().line(f"\n  {text}")

    return line


def every(kinds: Iterable[Bad], instants: Iterable[str], racks: int) -> list[Case]:
    return [Case(bad, name, 1 + number % racks) for name in instants for number, bad in enumerate(kinds)]


@pytest.mark.parametrize("name", list(INSTANTS))
def test_every_kind_of_bad_evidence_ends_all_writing_within_100_ms(
    name: str, say: Callable[[str], None], count: Count
) -> None:
    cases = chosen(every(KINDS, [name], 2), quick=8, slice_=20)
    worst(say, f"two racks, {name}", cases, TWO_RACKS, NO_CAP)
    count("bad evidence while a node is written, of every kind at every step", len(cases))


@pytest.mark.parametrize(
    ("title", "spec", "bus"),
    [
        ("one rack", ONE_RACK, NO_CAP),
        ("125 kbit/s", SLOW, NO_CAP),
        ("125 kbit/s, 20 % of the bus", SLOW, BusLimits(20.0)),
        ("500 kbit/s, 20 % of the bus", TWO_RACKS, BusLimits(20.0)),
        ("500 kbit/s, yielding", TWO_RACKS, BusLimits(None, yield_to_traffic=True)),
        ("1 Mbit/s", FAST, NO_CAP),
        ("eight racks", EIGHT, NO_CAP),
    ],
)
def test_on_whatever_bus(title: str, spec: PlantSpec, bus: BusLimits, say: Callable[[str], None], count: Count) -> None:
    instants = ("announce", "first block", "while it erases", "half of it", "last block")
    cases = chosen(every(SOME, instants, spec.racks), quick=6, slice_=15)
    worst(say, title, cases, spec, bus)
    count("bad evidence while a node is written, on slow, full and large buses", len(cases))
