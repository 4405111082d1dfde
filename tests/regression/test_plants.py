"""What went wrong in machines and batteries whose nodes were updated while they worked, and must not here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import Received, StationLink
from ess_can.campaign.monitors import Invariant
from ess_can.errors import HeldOpen
from ess_can.gateway.config import BusLimits, GatewayConfig, TimeLimits
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import BmsHvStatus, EmsPcsCommand, Message, PcsCommandCode, PcsStatus
from ess_can.sim.boot_records import BootRecord
from ess_can.sim.electrical import Contactor
from ess_can.sim.pcs import PcsFaults
from ess_can.sim.plant import Plant
from tests.scenario.support import (
    BMU1,
    COMM_GATEWAY,
    NEW,
    NODE_INFO_S,
    OLD,
    QUICK,
    Outcome,
    Scene,
    changes_plant,
    play,
    release,
)
from tests.scenario.test_direct_client import Attacker, attack

ONE_RACK = replace(QUICK, racks=1)
LARGE = release(kib=40)
OFF_A = 1.0
ENTER_PROGRAMMING = bytes.fromhex("021002")


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on the wire: of which kind, from which rack, when; of an order also what it orders."""

    kind: type[Message]
    index: int
    at: float
    order: PcsCommandCode | None


@dataclass(slots=True)
class Listener:
    """Hears the plant's messages on the wire, and looks at its true state every 10 ms."""

    heard: list[Heard] = field(default_factory=list)
    locked: list[tuple[float, bool]] = field(default_factory=list)
    loads_a: list[tuple[float, float]] = field(default_factory=list)

    def prepare(self, plant: Plant) -> None:
        link = StationLink(plant.wire.controller("listener"), plant.codec)

        def note(received: Received[EmsPcsCommand] | Received[BmsHvStatus] | Received[PcsStatus]) -> None:
            message = received.message
            order = message.command if isinstance(message, EmsPcsCommand) else None
            self.heard.append(Heard(type(message), received.index, received.at, order))

        link.subscribe(EmsPcsCommand, note)
        link.subscribe(BmsHvStatus, note)
        link.subscribe(PcsStatus, note)

        def look(at: float) -> None:
            self.locked.append((at, plant.pcs.locked))
            self.loads_a.append((at, max(abs(hardware.current_a) for hardware in plant.circuit.racks)))

        Cycle(0.010, look).start()

    def orders(self, since: float = 0.0, until: float = 1e9) -> list[PcsCommandCode]:
        return [each.order for each in self.heard if each.order is not None and since < each.at < until]

    def longest_gap(self, kind: type[Message], since: float, until: float) -> float:
        """The longest time between two messages of this kind from one sender."""
        longest = 0.0
        for index in {each.index for each in self.heard if each.kind is kind}:
            times = [e.at for e in self.heard if (e.kind, e.index) == (kind, index) and since < e.at < until]
            longest = max(longest, *(after - before for before, after in pairwise(times)))
        return longest


def opened_under(outcome: Outcome) -> float:
    """The largest current that any contactor of the plant ever broke, in A."""
    contactors: list[Contactor] = list(outcome.scene.plant.circuit.contactors)
    return max(contactor.broken_a for contactor in contactors)


# --- Opentrons --------------------------------------------------------------------------------------


def test_opentrons_14431_restarting_node_is_not_taken_for_absent() -> None:
    """While a node was updated it answered nothing, was taken for detached, and the current that held it was lowered.

    Ours is announced before it falls silent, and nobody acts on its silence: the plant stays as it was ordered.
    """
    listener = Listener()
    outcome = play(prepare=listener.prepare, spec=ONE_RACK)
    outcome.require(Phase.DONE)
    gaps = outcome.scene.gaps(BMU1)
    assert gaps
    for begin, end in gaps:
        assert any(since <= begin + NODE_INFO_S and end <= until for since, until in outcome.scene.announced)
        assert set(listener.orders(begin, end)) == {PcsCommandCode.LOCK}
        assert all(locked for at, locked in listener.locked if begin < at < end)


def test_opentrons_14431_node_in_its_bootloader_is_named_as_such() -> None:
    """And a node that is found in its bootloader is no missing one: it is refused as what it is, nothing is changed."""

    def lose_records(plant: Plant) -> None:
        plant.nodes[COMM_GATEWAY].records.boot.store(BootRecord())

    outcome = play(
        prepare=lose_records, spec=ONE_RACK, breaks=frozenset({Invariant.BOOTABLE})
    )  # we bricked it ourselves
    outcome.require(Phase.REFUSED, "NODE_UNHEALTHY", 50)
    assert "RECOVERY" in outcome.why
    assert not changes_plant(outcome.scene)


@pytest.mark.parametrize("racks", [3, 6])
def test_opentrons_13413_parallel_updates_do_not_saturate_the_bus(racks: int) -> None:
    """All nodes updated at the same time filled the bus: acknowledgements came 20 s late, and updates failed.

    Ours share the wire in an order: nothing is sent twice, and every status of the plant keeps its cycle.
    """
    listener = Listener()
    outcome = play(prepare=listener.prepare, spec=replace(QUICK, racks=racks), upgrade=LARGE)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    scene = outcome.scene
    for node in outcome.report.nodes:
        assert node.bytes_sent == node.image_bytes
        assert len(scene.steps(NodeStep.TRANSFER, node.address)) == 1
    begin, end = scene.steps(NodeStep.TRANSFER)[0].at, scene.steps(NodeStep.VERIFY)[0].at
    for kind in (BmsHvStatus, PcsStatus, EmsPcsCommand):
        cycle_s = scene.plant.codec.route(kind).cycle_s
        assert cycle_s is not None
        assert 0.9 * cycle_s < listener.longest_gap(kind, begin, end) < cycle_s + 0.0015


# --- PX4 --------------------------------------------------------------------------------------------


def test_px4_28184_window_of_a_bootloader_does_not_expire_while_others_are_served() -> None:
    """Nodes were sent to their bootloaders at once and served one a second: from the fourth on their time had run out.

    Ours opens a node's session when its turn comes: none waits in it, each is announced, sent and restarted once.
    """

    def one_at_a_time(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, bus=BusLimits(nodes_at_once=1))

    racks = tuple(NodeAddress(NodeType.BMU, number) for number in range(1, 7))
    outcome = play(spec=replace(QUICK, racks=len(racks)), upgrade=LARGE, config=one_at_a_time)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    scene = outcome.scene
    served_at = 0.0
    for address in racks:
        request_id = scene.plant.codec.diagnostic_ids(address)[0]
        opened = [s.at for s in scene.frames if s.frame.can_id == request_id and s.frame.data[:3] == ENTER_PROGRAMMING]
        assert len(opened) == 1
        assert served_at < opened[0]
        assert scene.steps(NodeStep.ANNOUNCE, address)[0].at - opened[0] < 0.5
        assert len(scene.steps(NodeStep.TRANSFER, address)) == 1
        assert scene.plant.nodes[address].boots == 2
        served_at = scene.steps(NodeStep.VERIFY, address)[0].at


def test_px4_28184_trial_that_took_too_long_is_given_up_as_a_whole() -> None:
    """Where a window does run, the trial's, all nodes are confirmed inside it or none is."""

    def slow(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, times=TimeLimits(trial_soak_s=5.0, trial_limit_s=4.0))

    outcome = play(config=slow)
    outcome.require(Phase.ROLLED_BACK, "ROLLED_BACK", 100)
    assert "CONFIRM_FAILED" in outcome.why or "trial took too long" in outcome.why
    outcome.require_confirmed(OLD)


# --- Battery-Emulator -------------------------------------------------------------------------------


def test_battery_emulator_2489_contactors_opened_under_load_by_an_update() -> None:
    """An update restarted the controller at once, and its contactors opened under whatever they carried.

    Ours orders zero power first, and opens only once PCS and racks agree that nothing flows.
    """
    listener = Listener()
    outcome = play(prepare=listener.prepare)
    outcome.require(Phase.DONE)
    first = next(each.at for each in listener.heard if each.order is PcsCommandCode.OPEN)
    assert set(listener.orders(until=first)) == {PcsCommandCode.ZERO_POWER}
    before = [load for at, load in listener.loads_a if at < outcome.scene.entered_at(Phase.RAMP_DOWN)]
    after = [load for at, load in listener.loads_a if first <= at < first + 0.05]
    assert max(before) > 10.0, "there was no load to begin with"
    assert max(after) < OFF_A
    assert opened_under(outcome) < OFF_A


def test_battery_emulator_2489_controller_refuses_a_restart_under_load() -> None:
    """And a rack's controller that carries current does not restart, whoever asks it to."""

    async def script(attacker: Attacker, scene: Scene) -> None:
        assert await attacker.ask("1003") == "5003003201f4"
        assert await attacker.ask("1101") == "7f1122"
        await pause(1.0)
        assert scene.plant.nodes[BMU1].boots == 1
        assert scene.all_connected

    attack(BMU1, script)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("stuck", [False, True])
def test_battery_emulator_1750_stop_that_opens_at_once(after_s: float, stuck: bool) -> None:
    """The stop button opened the contactors at once, instead of asking for zero current first.

    Ours: whoever stops an upgrade while it ramps down, nothing opens above zero current, also if the PCS does not obey.
    """

    def prepare(plant: Plant) -> None:
        plant.pcs.faults = PcsFaults(ignores_ramp=stuck)

    async def stop(scene: Scene) -> None:
        await scene.phase(Phase.RAMP_DOWN)
        await pause(after_s)
        assert scene.upgrade is not None
        scene.upgrade.cancel()

    outcome = play(stop, prepare=prepare)
    outcome.require(Phase.FAILED, "INTERRUPTED", 3)
    assert opened_under(outcome) < OFF_A
    assert outcome.scene.all_connected


def test_battery_emulator_1750_rack_refuses_to_open_under_load() -> None:
    """And a rack that is ordered open under load, by whomever, first waits for its own current to go."""

    async def script(_attacker: Attacker, scene: Scene) -> None:
        link = StationLink(scene.plant.wire.controller("somebody"), scene.plant.codec)
        scene.plant.pcs.faults = PcsFaults(ignores_ramp=True)
        cycle = Cycle(0.05, lambda _: link.send(EmsPcsCommand(PcsCommandCode.OPEN)))
        cycle.start()
        await pause(2.0)
        assert all(rack.main_plus.closed and rack.main_minus.closed for rack in scene.plant.circuit.racks)
        assert not any(contactor.broken_a for contactor in scene.plant.circuit.contactors)
        cycle.stop()

    attack(BMU1, script)


# --- Jeep -------------------------------------------------------------------------------------------


def test_jeep_4xe_2025_update_of_one_node_restarts_another() -> None:
    """An update of the telematics box made the hybrid controller reset while driving: incomplete communication.

    Ours restarts exactly the nodes that it is for, and only while the plant is open, locked and proved off.
    """
    listener = Listener()
    spec = replace(QUICK, racks=2)
    outcome = play(prepare=listener.prepare, spec=spec, upgrade=release(NodeType.COMM_GATEWAY))
    outcome.require(Phase.DONE)
    scene = outcome.scene
    assert {address: node.boots for address, node in scene.plant.nodes.items()} == {
        address: 2 if address == COMM_GATEWAY else 1 for address in scene.plant.nodes
    }
    for address in scene.plant.nodes:
        for begin, end in scene.gaps(address):
            assert address == COMM_GATEWAY
            assert all(locked for at, locked in listener.locked if begin + NODE_INFO_S < at < end)
    outcome.require_confirmed(OLD)  # of the racks


def test_jeep_4xe_2025_no_restart_while_the_plant_works() -> None:
    """And if high voltage is on when nodes are to go back to what they ran, nobody is restarted into it."""

    async def energise(scene: Scene) -> None:
        await scene.step(NodeStep.CONFIRM)
        scene.plant.circuit.step(scene.plant.wire.loop.time())
        scene.plant.circuit.racks[0].main_minus.drive(True, scene.plant.wire.loop.time())
        scene.plant.circuit.racks[0].precharge.drive(True, scene.plant.wire.loop.time())

    outcome = play(
        energise, breaks=frozenset({Invariant.HEARTBEAT, Invariant.LOCK})
    )  # somebody closes a rack whose image is on trial
    assert isinstance(outcome.report.error, HeldOpen)
    assert [node.boots for address, node in outcome.scene.plant.nodes.items() if address == BMU1] == [2]
