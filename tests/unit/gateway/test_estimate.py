"""What each term of an estimate follows from."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest

from ess_can.bus.load_limit import LoadLimit
from ess_can.can.timing import BitTiming
from ess_can.gateway.config import Afterwards, GatewayConfig, HvLimits, StationPhysics, TimeLimits
from ess_can.gateway.estimate import (
    ASSUMED_FLASH,
    Estimate,
    ExpectedPhase,
    StationState,
    Target,
    TargetGroup,
    estimate,
)
from ess_can.gateway.phases import Phase
from ess_can.gateway.transfer_model import WireModel
from ess_can.identity import NodeAddress, NodeType
from ess_can.image.content import BytesContent
from ess_can.isotp import IsoTpParams
from ess_can.uds.target import FlashProfile
from tests.support.scripted_plant import BMU1, BMU2, CODEC

COMM = NodeAddress(NodeType.COMM_GATEWAY)
CONFIG = GatewayConfig((BMU1, BMU2))
WIRE = WireModel(BitTiming(500_000), IsoTpParams())
CONNECTED = StationState(True, 40.0, 800.0)
OPEN = StationState(False, 0.0, 3.0)
QUICK = FlashProfile(128 * 1024, 1e-3, 1e-9, 1 << 20, 1e9, 4093)
SIZE = 100_000


def target(address: NodeAddress = BMU1, *, offset: int = 0, flash: FlashProfile | None = QUICK) -> Target:
    return Target(address, BytesContent(bytes(SIZE)), offset, flash)


def group(*targets: Target, at_once: int | None = None) -> TargetGroup:
    return TargetGroup(targets, at_once or len(targets), 4093)


def expect(
    *targets: Target,
    station: StationState = CONNECTED,
    wire: WireModel = WIRE,
    config: GatewayConfig = CONFIG,
    at_once: int | None = None,
) -> Estimate:
    return estimate([group(*(targets or (target(),)), at_once=at_once)], station, wire, CODEC, config)


def phase(expected: Estimate, name: Phase) -> float:
    return next(each.duration_s for each in expected.phases if each.phase is name)


def test_the_phases_are_those_of_an_upgrade_in_their_order() -> None:
    expected = expect()
    assert [each.phase for each in expected.phases] == [
        Phase.RAMP_DOWN,
        Phase.OPEN_CONTACTORS,
        Phase.PROVE_HV_OFF,
        Phase.PROGRAM,
        Phase.TRIAL_BOOT,
        Phase.CONFIRM,
        Phase.RECONNECT,
    ]
    assert expected.duration_s == pytest.approx(sum(each.duration_s for each in expected.phases))
    before = phase(expected, Phase.RAMP_DOWN) + phase(expected, Phase.OPEN_CONTACTORS)
    assert expected.hv_off_s == pytest.approx(expected.duration_s - before)


def test_what_remains_from_a_phase_on() -> None:
    expected = Estimate((ExpectedPhase(Phase.PROGRAM, 20.0), ExpectedPhase(Phase.CONFIRM, 1.0)), 18.0)
    assert expected.remaining_s(Phase.PROGRAM) == 21.0
    assert expected.remaining_s(Phase.CONFIRM) == 1.0
    assert expected.remaining_s(Phase.HOLD_OPEN) == 0.0


def test_the_ramp_is_as_long_as_the_current_takes() -> None:
    times = StationPhysics(pcs_ramp_a_per_s=10.0)
    slow = expect(config=replace(CONFIG, physics=times))
    charging = expect(station=replace(CONNECTED, current_a=-40.0), config=replace(CONFIG, physics=times))
    assert phase(slow, Phase.RAMP_DOWN) == phase(charging, Phase.RAMP_DOWN) == pytest.approx(4.0, abs=0.1)
    assert phase(expect(station=OPEN), Phase.RAMP_DOWN) < 0.1


def test_the_link_discharges_to_the_limit() -> None:
    times = StationPhysics(discharge_tau_s=3.0)
    config = replace(CONFIG, physics=times)
    proof_s = phase(expect(station=OPEN, config=config), Phase.PROVE_HV_OFF)
    expected = phase(expect(config=config), Phase.PROVE_HV_OFF)
    assert expected == pytest.approx(3.0 * log(800 / 60) + times.off_settling_s + proof_s)


def test_the_proof_is_so_many_statuses() -> None:
    more = replace(CONFIG, hv=HvLimits(consecutive_good=50))
    few, many = (phase(expect(station=OPEN, config=each), Phase.PROVE_HV_OFF) for each in (CONFIG, more))
    assert many - few == pytest.approx(40 * 0.05)


def test_nodes_of_a_group_are_programmed_together_and_groups_one_after_the_other() -> None:
    slow = replace(QUICK, sector_erase_s=100.0)
    one = expect(target(flash=slow)).transfer_s
    assert expect(target(flash=slow), target(BMU2, flash=slow)).transfer_s == pytest.approx(one, rel=0.05)
    groups = [group(target(COMM, flash=slow)), group(target(flash=slow), target(BMU2, flash=slow))]
    assert estimate(groups, CONNECTED, WIRE, CODEC, CONFIG).transfer_s == pytest.approx(2 * one, rel=0.05)


def test_fewer_at_once_take_turns_in_transfer_and_check() -> None:
    slow = target(flash=replace(QUICK, sector_erase_s=100.0, read_bytes_per_s=SIZE / 50.0))
    together, turns = (expect(slow, slow, slow, at_once=count) for count in (None, 1))
    assert turns.transfer_s == pytest.approx(3 * together.transfer_s, rel=0.1)
    checked_s = phase(turns, Phase.PROGRAM) - turns.transfer_s - (phase(together, Phase.PROGRAM) - together.transfer_s)
    assert checked_s == pytest.approx(2 * 50.0)


def test_verifying_reads_the_whole_image() -> None:
    slow = replace(QUICK, read_bytes_per_s=1e4)
    read, quick = (expect(target(flash=flash)) for flash in (slow, QUICK))
    assert phase(read, Phase.PROGRAM) - phase(quick, Phase.PROGRAM) == pytest.approx(SIZE / 1e4, rel=1e-3)
    assert read.transfer_s == quick.transfer_s


def test_what_a_node_holds_already_is_not_counted() -> None:
    whole, rest, nothing = (expect(target(offset=offset)).transfer_s for offset in (0, SIZE // 2, SIZE))
    assert rest == pytest.approx(whole / 2, rel=0.02)
    assert nothing == 0.0


def test_a_node_that_does_not_tell_is_assumed_to_be_slow_and_named() -> None:
    unknown = expect(target(), target(BMU2, flash=None))
    assert unknown.assumed == (BMU2,)
    assert unknown.transfer_s == expect(target(), target(BMU2, flash=ASSUMED_FLASH)).transfer_s
    assert expect().assumed == ()


def test_the_bus_is_shared_with_others_and_with_our_own_cyclic_frames() -> None:
    alone = expect().transfer_s
    assert expect(wire=replace(WIRE, other_load=0.4)).transfer_s > 1.6 * alone
    assert expect(wire=replace(WIRE, limit=LoadLimit(0.1))).transfer_s == pytest.approx(10 * alone, rel=0.1)
    four = replace(CONFIG, expected=tuple(NodeAddress(NodeType.BMU, number) for number in range(1, 5)))
    assert alone < expect(config=four).transfer_s < 1.05 * alone  # more racks answer the polls


@pytest.mark.parametrize("racks", [1, 2, 4])
def test_racks_close_one_after_the_other(racks: int) -> None:
    config = replace(CONFIG, expected=tuple(NodeAddress(NodeType.BMU, number + 1) for number in range(racks)))
    times = StationPhysics(stagger_s=5.0, precharge_s=2.0, link_steady_s=1.0)
    took = phase(expect(config=replace(config, physics=times)), Phase.RECONNECT)
    assert took == pytest.approx(max((racks - 1) * 5.0 + 2.0, 2.0 + 1.0), abs=0.3)


@pytest.mark.parametrize(
    ("station", "afterwards", "closes"),
    [
        (CONNECTED, Afterwards.AS_FOUND, True),
        (OPEN, Afterwards.AS_FOUND, False),
        (OPEN, Afterwards.CONNECT, True),
        (CONNECTED, Afterwards.HOLD_OPEN, False),
    ],
)
def test_a_plant_that_stays_open_is_not_waited_for(station: StationState, afterwards: Afterwards, closes: bool) -> None:
    config = replace(CONFIG, afterwards=afterwards)
    assert (phase(expect(station=station, config=config), Phase.RECONNECT) > 1.0) is closes


def test_the_trial_is_the_restart_and_the_soak_or_the_proof_whichever_is_longer() -> None:
    short, usual, long = (
        phase(expect(config=replace(CONFIG, times=TimeLimits(trial_soak_s=soak))), Phase.TRIAL_BOOT)
        for soak in (0.1, 1.0, 11.0)
    )
    assert long - usual == pytest.approx(10.0)
    assert usual - short < 0.5
    slow = replace(CONFIG, physics=StationPhysics(node_boot_s=5.8))
    assert phase(expect(config=slow), Phase.TRIAL_BOOT) == pytest.approx(usual + 5.0)


def test_small_messages_count_too() -> None:
    slow = replace(WIRE, timing=BitTiming(10_000))
    assert phase(expect(wire=slow, station=OPEN), Phase.CONFIRM) > 10 * phase(expect(station=OPEN), Phase.CONFIRM)
    fd = WireModel(BitTiming(500_000, 2_000_000), IsoTpParams(tx_dl=64, fd=True, brs=True))
    assert phase(expect(wire=fd), Phase.CONFIRM) < phase(expect(), Phase.CONFIRM)
