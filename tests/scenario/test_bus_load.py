"""The cap on the bus load, measured on the simulated wire: what was asked is what is taken, and safety frames pass."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks.bus_load import BUSES, CAPS, ForeignTraffic, Stream, isotp_for, measure, name_of
from ess_can.bus.clock import pause
from ess_can.bus.limited_bus import LoadLimitedBus
from ess_can.bus.load_limit import YIELD_FLOOR, LoadLimit
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import UsageError
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.identity import NodeType
from ess_can.signals.messages import EmsPcsCommand
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.sim.wire import Wire
from tests.scenario.support import BMU1, NEW, QUICK, Outcome, Scene, play, release

FAST = replace(QUICK, racks=1, speed=100.0)
"""One rack, and a flash that is faster than the wire."""
COMMAND_CYCLE_S = 0.1


@pytest.mark.parametrize("timing", BUSES, ids=name_of)
@pytest.mark.parametrize("cap", CAPS)
def test_a_stream_takes_the_share_that_was_asked(timing: BitTiming, cap: float) -> None:
    (figure,) = measure(cap, timing, seconds=2.0)
    assert figure.stream == pytest.approx(cap, rel=0.02)


def test_several_streams_take_it_together() -> None:
    (figure,) = measure(0.4, BUSES[1], streams=5, seconds=2.0)
    assert figure.stream == pytest.approx(0.4, rel=0.02)


@pytest.mark.parametrize("timing", BUSES, ids=name_of)
def test_a_yielding_stream_keeps_the_total_in_every_tenth_of_a_second(timing: BitTiming) -> None:
    """Others begin and end, by steps: no window, not even that of a step, holds more than the cap and 2 %."""
    cap, steps, window_s = 0.8, (0.0, 0.3, 0.6, 0.0), 0.1

    async def run() -> list[tuple[float, float]]:
        wire = Wire(timing)
        bus = LoadLimitedBus(wire.controller("gateway"), LoadLimit(cap, yields=True), timing)
        foreign = ForeignTraffic(wire.controller("others"), timing)
        stream = Stream(wire, bus, 0, isotp_for(timing))
        tasks = [asyncio.ensure_future(work.run()) for work in (stream, foreign)]
        windows = []
        for foreign.share in steps:
            for _ in range(10):
                before = wire.busy_s(), wire.busy_s([stream.request_id])
                await pause(window_s)
                after = wire.busy_s(), wire.busy_s([stream.request_id])
                total, ours = ((then - since) / window_s for since, then in zip(before, after, strict=True))
                windows.append((total, ours))
        for task in tasks:
            task.cancel()
        return windows

    windows = run_virtual(run())
    one_frame = 0.0012 / window_s * 125_000 / timing.bitrate  # that is in one window or in the next
    assert all(total <= cap + 0.02 + one_frame for total, _ in windows)
    for step, others in enumerate(steps):
        settled = windows[10 * step + 1 : 10 * step + 10]  # from a tenth of a second after the step on
        assert sum(ours for _, ours in settled) / 9 == pytest.approx(cap - others, abs=0.02)


def test_a_yielding_stream_gets_through_a_bus_that_others_fill() -> None:
    figures = measure(0.8, BUSES[0], yields=True, others=(0.0, 0.9, 0.0), streams=2)
    assert [figure.stream for figure in figures] == pytest.approx([0.8, YIELD_FLOOR, 0.8], abs=0.01)


@pytest.mark.parametrize("timing", [BUSES[0], BUSES[3]], ids=name_of)
def test_at_the_lowest_share_that_is_allowed_no_receiver_gives_up(timing: BitTiming) -> None:
    isotp = isotp_for(timing)

    def allowed(share: float) -> bool:
        try:
            LoadLimit(share).require(timing, isotp)
        except UsageError:
            return False
        return True

    lowest = next(n / 100_000 for n in range(1, 100_000) if allowed(n / 100_000))
    (figure,) = measure(lowest, timing, seconds=150.0)
    assert figure.stream == pytest.approx(lowest, rel=0.02)
    (figure,) = measure(8 * lowest, timing, streams=8, seconds=150.0)
    assert figure.stream == pytest.approx(8 * lowest, rel=0.02)


# --- whole upgrades -----------------------------------------------------------------------------------


def upgraded(spec: PlantSpec, limits: BusLimits, kib: int, foreign: float = 0.0) -> Outcome:
    """An upgrade of one rack; somebody else's frames may take a share of the wire."""

    def config(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, bus=limits)

    async def others(scene: Scene) -> None:
        controller = scene.plant.wire.controller("others")
        traffic = ForeignTraffic(controller, spec.bit_timing, can_id=0x7F0)
        traffic.share = foreign
        task = asyncio.ensure_future(traffic.run())
        await scene.step(NodeStep.VERIFY)
        task.cancel()

    outcome = play(others if foreign else None, spec=spec, upgrade=release(NodeType.BMU, kib=kib), config=config)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    return outcome


def taken(outcome: Outcome) -> float:
    """The share of the wire that requests took from the second block's beginning to the last one's end."""
    scene, timing = outcome.scene, outcome.scene.plant.spec.bit_timing
    since, until = (scene.steps(step, BMU1)[0].at for step in (NodeStep.TRANSFER, NodeStep.VERIFY))
    sent = [one for one in scene.diagnostic_requests if since < one.at < until]
    return sum(frame_duration_s(one.frame, timing) for one in sent) / (until - since)


def worst_delay_of_a_command(outcome: Outcome) -> float:
    """By how much an interval between two commands exceeded their cycle."""
    scene = outcome.scene
    ids = scene.can_ids(EmsPcsCommand)
    since, until = (scene.steps(step, BMU1)[0].at for step in (NodeStep.TRANSFER, NodeStep.VERIFY))
    sent = [one.at for one in scene.frames if one.frame.can_id in ids and since < one.at < until]
    assert len(sent) > 5
    return max(after - before for before, after in pairwise(sent)) - COMMAND_CYCLE_S


@pytest.mark.parametrize(
    ("timing", "percent", "kib"),
    [(BitTiming(500_000), 40.0, 40), (BitTiming(125_000), 10.0, 4), (BitTiming(500_000, 2_000_000), 10.0, 60)],
    ids=["500k", "125k", "FD 500k/2M"],
)
def test_an_upgrade_under_a_cap(timing: BitTiming, percent: float, kib: int) -> None:
    spec = replace(FAST, bit_timing=timing, isotp=isotp_for(timing))
    outcome = upgraded(spec, BusLimits(percent), kib)
    assert taken(outcome) == pytest.approx(percent / 100, rel=0.02)
    assert worst_delay_of_a_command(outcome) < 3 * 150 / timing.bitrate


def test_an_upgrade_with_one_percent_of_a_slow_bus() -> None:
    spec = replace(FAST, bit_timing=BitTiming(125_000))
    outcome = upgraded(spec, BusLimits(1.0), 2)
    assert taken(outcome) == pytest.approx(0.01, rel=0.05)


def test_an_upgrade_that_yields() -> None:
    outcome = upgraded(FAST, BusLimits(60.0, yield_to_traffic=True), 24, foreign=0.3)
    assert 0.6 - 0.3 - 0.05 < taken(outcome) < 0.6 - 0.3  # the plant's own telemetry is on the bus, too
    assert worst_delay_of_a_command(outcome) < 3 * 150 / 500_000
