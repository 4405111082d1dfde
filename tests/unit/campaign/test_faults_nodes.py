"""Faults of nodes, their firmware and their memories, on the nodes themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ess_can.bus.clock import now, pause, until
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.faults.memories import CUTS
from ess_can.campaign.plants import NEW
from ess_can.campaign.releases import FACTORY
from ess_can.campaign.station import Station
from ess_can.can.frame import CanFrame
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import PhaseEntered
from ess_can.identity import NodeAddress, NodeType
from ess_can.isotp.pci import FIRST_FRAME, SINGLE_FRAME, decode_first_frame, decode_single_frame
from ess_can.sim.flash import FlashError
from ess_can.sim.node import Behaviour, SimulatedNode
from ess_can.sim.power_cut import CutMode
from tests.unit.campaign.stations import healed, on_station, to_the_end

BMU1 = NodeAddress(NodeType.BMU, 1)


def bmu(station: Station) -> SimulatedNode:
    return station.plant.nodes[BMU1]


async def in_program(station: Station, seconds: float = 0.0) -> None:
    """Wait until the upgrade has been programming for so long."""
    station.start_upgrade()
    assert await until(
        lambda: any(isinstance(e, PhaseEntered) and e.phase is Phase.PROGRAM for e in station.events), 60
    )
    await pause(seconds)


# --- nodes --------------------------------------------------------------------------------------------


def test_a_node_restarts() -> None:
    async def act(station: Station) -> None:
        boots = bmu(station).boots
        await in_program(station, 0.15)
        assert not bmu(station).running
        await pause(1.0)
        assert bmu(station).running
        assert bmu(station).boots == boots + 1

    on_station(act, "node:bmu1:reset@PROGRAM+0.1")


@pytest.mark.parametrize(("fault", "off_s"), [("power@PROGRAM+0.1", 2.0), ("power@PROGRAM+0.1~5", 5.0)])
def test_a_node_without_power(fault: str, off_s: float) -> None:
    async def act(station: Station) -> None:
        await in_program(station, 0.15)
        assert not bmu(station).powered
        await pause(off_s - 0.1)
        assert not bmu(station).powered
        await pause(0.1)
        assert bmu(station).powered
        await pause(1.0)
        assert bmu(station).running

    on_station(act, f"node:bmu1:{fault}")


def test_healing_gives_power_back() -> None:
    async def act(station: Station) -> None:
        await in_program(station, 0.15)
        station.heal()
        await pause(1.0)
        assert bmu(station).running

    on_station(act, "node:bmu1:power@PROGRAM+0.1~500")


def test_a_node_hangs_with_its_contactors_as_they_are_until_its_watchdog_restarts_it() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        await pause(0.05)
        station.kill_gateway()
        heard: list[float] = []
        station.plant.wire.on_frame.append(lambda _f, at, sender: heard.append(at) if sender == "bmu1" else None)
        await pause(2.0)
        assert not [at for at in heard if at > (station.begun_at or 0) + 0.101]
        assert station.plant.circuit.racks[0].conductance_s
        station.plant.hardware[0].fire = True  # it does not even see that
        await pause(0.05)
        assert station.plant.circuit.racks[0].conductance_s
        boots = bmu(station).boots
        await pause(1.0)
        assert bmu(station).boots == boots + 1
        assert not station.plant.circuit.racks[0].conductance_s

    on_station(act, "node:bmu1:hang@0.1")


def answers_of(station: Station) -> list[tuple[float, bytes]]:
    """The beginnings of the node's answers, as they come."""
    _, answer_id = station.plant.codec.diagnostic_ids(BMU1)
    answers: list[tuple[float, bytes]] = []

    def on_frame(frame: CanFrame, at: float, _sender: str) -> None:
        if frame.can_id == answer_id:
            if frame.data[0] >> 4 == SINGLE_FRAME:
                answers.append((at, decode_single_frame(frame.data) or b""))
            elif frame.data[0] >> 4 == FIRST_FRAME:
                answers.append((at, (decode_first_frame(frame.data) or (0, b""))[1]))

    station.plant.wire.on_frame.append(on_frame)
    return answers


def test_a_slow_node() -> None:
    async def act(station: Station) -> tuple[float, float]:
        request_id, answer_id = station.plant.codec.diagnostic_ids(BMU1)
        at: dict[int, list[float]] = {request_id: [], answer_id: []}
        station.plant.wire.on_frame.append(lambda f, t, _s: at[f.can_id].append(t) if f.can_id in at else None)
        station.start_upgrade()
        await pause(2.0)
        first = at[answer_id][0] - at[request_id][0]
        await healed(station)
        return first, bmu(station).board.answer_s

    slow, afterwards = on_station(act, "node:bmu1:slow=0.04@0")
    assert slow == pytest.approx(0.04, abs=0.005)
    assert afterwards == 0.0


@pytest.mark.parametrize("fault", ["refuses=33", "garbage"])
def test_a_wrong_answer_once_and_the_same_every_time(fault: str) -> None:
    async def act(station: Station) -> list[bytes]:
        answers = answers_of(station)
        station.start_upgrade()
        await pause(3.0)
        assert station.took_effect(station.faults[0])
        return [answer for _, answer in answers]

    wrong, *right = on_station(act, f"node:bmu1:{fault}@0")
    assert wrong[:3] == bytes((0x7F, 0x22, 33)) if fault != "garbage" else wrong[0] not in (0x62, 0x7F)
    assert right[0][0] == 0x62
    assert on_station(act, f"node:bmu1:{fault}@0") == [wrong, *right]


def test_another_node_answers() -> None:
    async def act(station: Station) -> str:
        await to_the_end(station)
        assert station.report is not None
        assert station.report.error is not None
        return station.report.error.name

    assert on_station(act, "node:bmu1:impostor@PROGRAM+0") == "WRONG_TARGET"


def test_a_wrong_block_counter() -> None:
    async def act(station: Station) -> list[int]:
        answers = answers_of(station)
        await to_the_end(station)
        return [answer[1] for _, answer in answers if answer[0] == 0x76]

    good, bad = on_station(act), on_station(act, "node:bmu1:wrong-counter@PROGRAM+0")
    assert good[:2] == [1, 2]
    assert bad[0] != 1


def test_wrong_answers_for_a_time() -> None:
    async def act(station: Station) -> list[tuple[float, bytes]]:
        answers = answers_of(station)
        station.start_upgrade()
        begun_at = now()
        await pause(3.0)
        return [(at - begun_at, answer) for at, answer in answers]

    answers = on_station(act, "node:bmu1:refuses=33@0~1.6")
    early = [answer for at, answer in answers if at < 1.6]
    assert len(early) > 1
    assert all(answer[0] == 0x7F and answer[2] == 33 for answer in early)
    assert all(answer[0] != 0x7F for at, answer in answers if at > 1.6)


@pytest.mark.parametrize(
    ("name", "behaviour"),
    [
        ("hangs", Behaviour.HANGS),
        ("mute", Behaviour.NO_HV_STATUS),
        ("wrong-scale", Behaviour.WRONG_SCALE),
        ("boot-loops", Behaviour.BOOT_LOOPS),
    ],
)
def test_bad_firmware_is_tried_and_taken_back(name: str, behaviour: Behaviour) -> None:
    async def act(station: Station) -> None:
        fault = station.faults[0]
        assert bmu(station).behaviours.get(NEW) is behaviour
        await in_program(station)
        assert not station.took_effect(fault)
        await station.ended()
        assert station.took_effect(fault)
        assert station.plant.versions()[BMU1] == FACTORY
        await healed(station)
        await to_the_end(station)
        assert station.plant.versions()[BMU1] == NEW

    on_station(act, f"firmware:bmu1:{name}")


# --- memories -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", CUTS)
def test_power_is_lost_at_the_very_operation(mode: str) -> None:
    async def act(station: Station) -> None:
        power = bmu(station).flash.power
        before = power.operations
        cut: list[tuple[float, int]] = []
        power.on_cut.append(lambda: cut.append((now(), power.operations - before)))
        station.start_upgrade()
        assert await until(lambda: bool(cut), 60.0)
        assert station.took_effect(station.faults[0])
        [(at, operations)] = cut
        assert operations == (40 if mode == CutMode.BEFORE.value else 41)
        await pause(0.0)
        assert not bmu(station).powered
        assert bmu(station).flash.read(0, 0, 1) is FlashError.NO_POWER
        assert await until(lambda: bmu(station).powered, 5.0)
        assert now() - at == pytest.approx(2.0, abs=0.02)
        await station.ended()
        assert station.plant.versions()[BMU1] == NEW

    on_station(act, f"flash:bmu1:40:{mode}")


def test_a_second_cut_counts_from_when_power_came_back() -> None:
    async def act(station: Station) -> list[int]:
        power = bmu(station).flash.power
        counts = [power.operations]
        power.on_cut.append(lambda: counts.append(power.operations))
        await to_the_end(station)
        return [late - early for early, late in pairwise(counts)]

    assert on_station(act, "flash:bmu1:40+7:before") == [40, 7]


def test_healing_forgets_a_cut_that_did_not_come() -> None:
    async def act(station: Station) -> None:
        await in_program(station, 0.05)
        station.heal()
        await station.ended()
        assert not station.took_effect(station.faults[0])
        assert station.plant.versions()[BMU1] == NEW

    on_station(act, "flash:bmu1:100000:before")


@pytest.mark.parametrize("name", ["worn", "defect"])
def test_a_bad_sector(name: str) -> None:
    async def act(station: Station) -> None:
        await to_the_end(station)
        assert station.report is not None
        assert station.report.error is not None
        assert station.report.error.name == "FLASH_WRITE_FAILED"
        assert bmu(station).flash.counters.failed == (name == "worn")
        await healed(station)
        await to_the_end(station)
        assert station.plant.versions()[BMU1] == NEW

    on_station(act, f"flash:bmu1:{name}=1@0")


@pytest.mark.parametrize(("name", "running"), [("rot", False), ("rot-running", True), ("unreadable", False)])
def test_a_slot_goes_bad_by_itself(name: str, running: bool) -> None:
    async def act(station: Station) -> bytes | FlashError:
        flash = bmu(station).flash
        bank = flash.running_bank if running else 1 - (flash.running_bank or 0)
        assert bank is not None
        before = flash.read(bank, flash.geometry.slot_offset, 512)
        assert isinstance(before, bytes)
        station.start_upgrade()
        await pause(0.2)
        after = flash.read(bank, flash.geometry.slot_offset, 512)
        if isinstance(after, bytes):
            assert [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [100]
        else:
            assert after is FlashError.ECC
        station.kill_gateway()
        station.heal()
        assert (flash.read(bank, flash.geometry.slot_offset, 512) == before) is running
        return after

    bad = on_station(act, f"flash:bmu1:{name}=100@0.1")
    assert (bad is FlashError.ECC) == (name == "unreadable")
    assert on_station(act, f"flash:bmu1:{name}=100@0.1") == bad


def test_the_same_fault_twice_is_one_kind_only() -> None:
    assert parse_fault("flash:bmu1:3:bits").kind is parse_fault("flash:bmu1:4+1:bits").kind
