"""The check before the upgrade: who is there, and what would each get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import (
    BusOverloaded,
    BusSilent,
    DbcMismatch,
    DependencyUnmet,
    EmergencyStop,
    ErrorPassive,
    IdConflict,
    NodeMissing,
    NodeUnhealthy,
    NoValidTraffic,
    SecurityDowngrade,
    UdsTimeout,
    VersionDowngrade,
    WrongHardware,
    WrongNodeType,
    WrongTarget,
)
from ess_can.gateway.armed_trials import ArmedTrials
from ess_can.gateway.bus_load import BusLoad
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.node_client import NodeIdentity
from ess_can.gateway.phases import NodeStep
from ess_can.gateway.plan import (
    Leftover,
    NodePlan,
    Plan,
    ask_state,
    facts_of,
    hear,
    identify,
    listen,
    make_plan,
    require_allowed,
    require_askable,
)
from ess_can.gateway.plant_view import PlantView
from ess_can.gateway.policy import Start
from ess_can.gateway.progress import NodeStepEntered, ignore
from ess_can.gateway.station_master import StationMaster
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.image.manifest import Dependency
from ess_can.signals.messages import EmsUpgradeNotice, ImageState, NodeInfo, UpgradePhase
from ess_can.sim.loop import run_virtual
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file
from ess_can.uds.target import BootState, ResumeState
from tests.firmware_images import RING, small_image, small_upgrade
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, NEW, OLD, RACK_CLOSED, ScriptedPlant

COMM = NodeAddress(NodeType.COMM_GATEWAY)


SILENT = 99
"""The boot counter of a node that does not say what it runs."""


def identity(address: NodeAddress, version: Version = OLD, hardware_id: int = 0x11) -> NodeIdentity:
    boot = BootState(0, 0, 3, version)
    serial = f"{address}-000001"
    resume = ResumeState(0, bytes(32))
    return NodeIdentity(address.node_type, hardware_id, serial, version, boot, resume, CODEC.sha256, 1)


@dataclass
class Station:
    """As much of a `StationMaster` as the check needs; `identities` are what nodes answer."""

    bus: MemoryBus
    config: GatewayConfig
    identities: dict[NodeAddress, NodeIdentity]
    view: PlantView = field(default_factory=PlantView)

    def __post_init__(self) -> None:
        self.link = StationLink(self.bus, CODEC)
        self.view.attach(self.link)
        self.watch = PlantWatch(self.link)
        self.armed = ArmedTrials()

    def client(self, address: NodeAddress) -> _Client:
        return _Client(self.identities[address])


@dataclass
class _Client:
    answer: NodeIdentity

    async def identify(self) -> NodeIdentity:
        await pause(0.01)
        return self.answer

    async def boot_state(self) -> BootState:
        await pause(0.01)
        if self.answer.boot_state.boot_counter == SILENT:
            raise UdsTimeout("silent")
        return self.answer.boot_state


def station(bus: MemoryBus, *identities: NodeIdentity) -> StationMaster:
    known = {BMU1: identity(BMU1), BMU2: identity(BMU2)}
    known.update(zip((BMU1, BMU2), identities, strict=False))
    return cast(StationMaster, Station(bus, GatewayConfig((BMU1, BMU2)), known))


class TestListen:
    def listen(self, act: Callable[[MemoryBus, ScriptedPlant], object]) -> tuple[StationMaster, float]:
        async def scenario() -> tuple[StationMaster, float]:
            bus, peer = bus_pair()
            master = station(bus)
            act(bus, ScriptedPlant(peer))
            await listen(master)
            assert bus.sent == []
            return master, now()

        return run_virtual(scenario())

    def test_a_whole_plant_is_heard_in_less_than_a_second(self) -> None:
        _, at = self.listen(lambda _, plant: plant.start())
        assert 0.75 <= at < 1.0

    def test_silence(self) -> None:
        with pytest.raises(BusSilent):
            self.listen(lambda *_: None)

    def test_what_the_adapter_warned_of_is_part_of_the_evidence(self) -> None:
        async def scenario() -> None:
            bus = MemoryBus()
            master = station(bus)
            bus.warn(ErrorPassive("the controller is error passive", why="REC 128"))
            with pytest.raises(BusSilent) as caught:
                await listen(master)
            assert "the controller is error passive: REC 128" in caught.value.why

        run_virtual(scenario())

    def test_strange_frames_only(self) -> None:
        async def scenario() -> None:
            bus = MemoryBus()
            master = station(bus)
            bus.deliver(CanFrame(0x7FF, b""))
            with pytest.raises(NoValidTraffic):
                await listen(master)
            assert now() < 5.0

        run_virtual(scenario())

    def test_an_incomplete_plant_is_waited_for_and_then_refused_by_name(self) -> None:
        def half(_bus: MemoryBus, plant: ScriptedPlant) -> None:
            plant.silent |= {2, BMU2}
            plant.start()

        async def scenario() -> None:
            bus, peer = bus_pair()
            master = station(bus)
            half(bus, ScriptedPlant(peer))
            await listen(master)
            assert now() == pytest.approx(3.25, abs=0.1)
            with pytest.raises(NodeMissing, match="bmu2") as caught:
                require_allowed(master)
            assert "also: rack 2 is not heard completely" in caught.value.why

        run_virtual(scenario())


def test_the_gravest_reason_is_raised_and_the_others_are_named() -> None:
    async def scenario() -> None:
        bus, peer = bus_pair()
        master, plant = station(bus), ScriptedPlant(peer)
        plant.set_racks(replace(RACK_CLOSED, emergency_stop=True))
        plant.start()
        await pause(0.2)
        plant.link.send(EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 1, 0.0, 9))
        await pause(0.1)
        with pytest.raises(EmergencyStop) as caught:
            require_allowed(master)
        assert "another gateway is upgrading this plant" in caught.value.why

    run_virtual(scenario())


def test_a_plant_that_is_well_is_allowed() -> None:
    async def scenario() -> None:
        bus, peer = bus_pair()
        master, plant = station(bus), ScriptedPlant(peer)
        plant.start()
        await pause(0.2)
        require_allowed(master)
        plant.set_racks(replace(RACK_CLOSED, hvil_closed=False))
        await pause(0.2)
        with pytest.raises(EmergencyStop) as caught:
            require_allowed(master)
        assert caught.value.remedy

    run_virtual(scenario())


def test_a_station_is_asked_only_if_nobody_else_asks_it() -> None:
    async def scenario() -> None:
        bus, _ = bus_pair()
        master = station(bus)
        require_askable(master)
        bus.deliver(CanFrame(CODEC.diagnostic_ids(BMU2)[0], b"\x02\x3e\x00"))
        with pytest.raises(IdConflict, match="UDS_Request_BMU2"):
            require_askable(master)

    run_virtual(scenario())


def release(*images: bytes, depends: tuple[Dependency, ...] = ()) -> VerifiedUpgrade:
    return open_upgrade_file(small_upgrade(*images, depends=depends), RING)


def plan_for(upgrade: VerifiedUpgrade, *identities: NodeIdentity) -> tuple[list[NodeAddress], list[NodeAddress]]:
    async def scenario() -> tuple[list[NodeAddress], list[NodeAddress]]:
        bus, peer = bus_pair()
        master, plant = station(bus, *identities), ScriptedPlant(peer)
        plant.start()
        await pause(0.2)
        plan = await make_plan(master, upgrade, ignore)
        assert all(node.image.sha256 == upgrade.images[0].sha256 for node in plan.nodes)
        return [node.address for node in plan.nodes], [node.address for node in plan.up_to_date]

    return run_virtual(scenario())


class TestMakePlan:
    def test_older_nodes_are_upgraded_in_order(self) -> None:
        assert plan_for(release()) == ([BMU1, BMU2], [])

    def test_nodes_that_run_it_already_are_left_alone(self) -> None:
        assert plan_for(release(), identity(BMU1, NEW)) == ([BMU2], [BMU1])
        assert plan_for(release(), identity(BMU1, NEW), identity(BMU2, NEW)) == ([], [BMU1, BMU2])

    def test_one_that_runs_it_and_would_boot_another_image_is_taken_back_first(self) -> None:
        done = identity(BMU1, NEW)
        plans: list[Plan] = []

        async def scenario() -> None:
            master = station(MemoryBus(), replace(done, boot_state=replace(done.boot_state, armed=True)))
            plans.append(await make_plan(master, release(), ignore))

        run_virtual(scenario())
        assert [node.address for node in plans[0].up_to_date] == [BMU1]
        assert plans[0].leftovers == (Leftover(BMU1, on_trial=False),)

    def test_each_identification_is_told(self) -> None:
        async def scenario() -> None:
            told: list[object] = []
            await make_plan(station(MemoryBus()), release(), told.append)
            assert [(e.node, e.step) for e in told if isinstance(e, NodeStepEntered)] == [
                (BMU1, NodeStep.IDENTIFY),
                (BMU2, NodeStep.IDENTIFY),
            ]

        run_virtual(scenario())

    def test_a_plant_without_such_nodes(self) -> None:
        with pytest.raises(WrongNodeType, match="comm_gateway"):
            plan_for(release(small_image(node_type=NodeType.COMM_GATEWAY)))

    def test_older_than_what_runs(self) -> None:
        with pytest.raises(VersionDowngrade):
            plan_for(release(), identity(BMU1), identity(BMU2, Version(2, 0, 0)))

    def test_a_lower_security_counter(self) -> None:
        with pytest.raises(SecurityDowngrade):
            plan_for(release(), replace(identity(BMU1), security_counter=9))

    def test_other_hardware(self) -> None:
        with pytest.raises(WrongHardware):
            plan_for(release(small_image(hardware_ids=(0x12,))))

    def test_a_dependency_on_nodes_that_run_older_firmware(self) -> None:
        upgrade = release(depends=(Dependency(NodeType.COMM_GATEWAY, Version(3, 0, 0)),))
        with pytest.raises(DependencyUnmet):
            plan_for(upgrade)

    def test_a_node_is_planned_once_with_the_image_for_its_hardware(self) -> None:
        upgrade = release(small_image(hardware_ids=(0x11,)), small_image(payload=b"other", hardware_ids=(0x12,)))

        async def scenario() -> None:
            bus, peer = bus_pair()
            master, plant = station(bus, identity(BMU1), identity(BMU2, hardware_id=0x12)), ScriptedPlant(peer)
            plant.nodes[BMU2] = replace(plant.nodes[BMU2], hardware_id=0x12)
            plant.start()
            await pause(0.2)
            plan = await make_plan(master, upgrade, ignore)
            assert [(node.address, node.image.sha256) for node in plan.nodes] == [
                (BMU1, upgrade.images[0].sha256),
                (BMU2, upgrade.images[1].sha256),
            ]

        run_virtual(scenario())


def test_nodes_are_programmed_by_type_in_the_plans_order() -> None:
    image = open_upgrade_file(small_upgrade(), RING).images[0]
    comm, *bmus = (NodePlan(address, identity(address), image) for address in (COMM, BMU1, BMU2))
    assert Plan((comm, *bmus), ()).groups() == [(comm,), tuple(bmus)]
    assert Plan((*bmus, comm), (comm,)).groups() == [tuple(bmus), (comm,)]
    assert Plan((), (comm,)).groups() == []


class TestAskState:
    """A node's word on what it runs, without waiting for its next Node_Info."""

    def ask(self, answer: BootState) -> tuple[NodeInfo, NodeInfo, float]:
        async def scenario() -> tuple[NodeInfo, NodeInfo, float]:
            bus, peer = bus_pair()
            master, plant = station(bus, replace(identity(BMU1), boot_state=answer)), ScriptedPlant(peer)
            plant.speak()
            await pause(1.0)
            before = master.view.nodes[BMU1]
            await ask_state(master, BMU1)
            after = master.view.nodes[BMU1]
            return before.value, after.value, after.at - before.at

        return run_virtual(scenario())

    def test_it_counts_as_heard_now(self) -> None:
        before, after, later_s = self.ask(BootState(1, ImageState.TRIAL, 20, NEW))
        assert later_s == pytest.approx(1.01, abs=0.01)
        assert (after.bank, after.boot_counter, after.image_state, after.version) == (1, 4, ImageState.TRIAL, NEW)
        assert (after.hardware_id, after.dbc_fingerprint) == (before.hardware_id, before.dbc_fingerprint)

    @pytest.mark.parametrize("answer", [BootState(1, 9, 20, NEW), BootState(1, 0, SILENT, NEW)])
    def test_a_senseless_or_missing_answer_changes_nothing(self, answer: BootState) -> None:
        before, after, later_s = self.ask(answer)
        assert (after, later_s) == (before, 0.0)

    def test_who_was_never_heard_is_not_made_up(self) -> None:
        async def scenario() -> None:
            master = station(MemoryBus())
            await ask_state(master, BMU1)
            assert not master.view.nodes

        run_virtual(scenario())


class TestIdentify:
    def identify(self, answer: NodeIdentity) -> NodeIdentity:
        async def scenario() -> NodeIdentity:
            bus, peer = bus_pair()
            master, plant = station(bus, answer), ScriptedPlant(peer)
            plant.start()
            await pause(0.2)
            return await identify(master, BMU1)

        return run_virtual(scenario())

    def test_the_node_that_is_meant(self) -> None:
        answer = self.identify(identity(BMU1))
        facts = facts_of(answer)
        assert (facts.node_type, facts.hardware_id, facts.version, facts.security_counter) == (
            NodeType.BMU,
            0x11,
            OLD,
            1,
        )

    def test_another_type_of_node(self) -> None:
        with pytest.raises(WrongTarget):
            self.identify(identity(COMM))

    def test_other_hardware_than_its_node_info_says(self) -> None:
        with pytest.raises(WrongTarget):
            self.identify(identity(BMU1, hardware_id=0x12))

    def test_another_dbc(self) -> None:
        with pytest.raises(DbcMismatch):
            self.identify(replace(identity(BMU1), dbc_sha256=bytes(32)))


class _Others:
    """What others take of the bus."""

    def __init__(self, load: float) -> None:
        self.load = load

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None: ...


@pytest.mark.parametrize(
    ("load", "known", "error"),
    [(0.2, True, None), (0.99, True, BusOverloaded), (0.2, False, NoValidTraffic), (0.99, False, BusOverloaded)],
)
def test_a_bus_without_room_is_graver_than_hearing_nothing_on_it(
    load: float, known: bool, error: type[Exception] | None
) -> None:
    async def scenario() -> None:
        bus, peer = bus_pair()
        master = station(bus)
        if known:
            ScriptedPlant(peer).start()
        bus.deliver(CanFrame(0x7FF, b""))
        listening = hear(master, cast(BusLoad, _Others(load)))
        if error is None:
            assert await listening == load
        else:
            with pytest.raises(error):
                await listening
        assert bus.sent == []

    run_virtual(scenario())


def test_a_node_on_trial_that_nobody_resumes_is_refused_by_name() -> None:
    """Its Node_Info said otherwise: the identifiers are what counts."""
    trial = identity(BMU2)
    trial = replace(trial, boot_state=replace(trial.boot_state, standing=ImageState.TRIAL))

    async def scenario() -> None:
        bus, peer = bus_pair()
        plant = ScriptedPlant(peer)
        plant.start()
        master = station(bus, identity(BMU1), trial)
        await pause(0.2)
        upgrade = open_upgrade_file(small_upgrade(small_image(version=NEW)), RING)
        with pytest.raises(NodeUnhealthy, match="bmu2 does not run a confirmed image"):
            await make_plan(master, upgrade, ignore)
        assert [left.address for left in (await make_plan(master, upgrade, ignore, Start.RESUMED)).leftovers] == [BMU2]

    run_virtual(scenario())
