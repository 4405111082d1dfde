"""The upgrade's order of work, and what it leaves behind after whatever goes wrong, with nodes of a few lines."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.port import Bus
from ess_can.errors import (
    AdapterLost,
    BusError,
    BusOff,
    ConfirmFailed,
    EmergencyStop,
    EssCanError,
    HeldOpen,
    HeldOpenByChoice,
    HvClosed,
    HvOffNotProved,
    HvPermitRevoked,
    IdConflict,
    InterfaceDown,
    Interrupted,
    PcsNotStopping,
    RolledBack,
    TrialBootFailed,
    UdsTimeout,
    VerificationFailed,
)
from ess_can.gateway import upgrade as module
from ess_can.gateway.config import Afterwards, BusLimits, GatewayConfig, TimeLimits
from ess_can.gateway.node_client import NodeIdentity
from ess_can.gateway.phases import FINAL, Phase
from ess_can.gateway.plan import NodePlan, Plan
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.progress import Event, Noted, OnProgress, PhaseEntered
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.report import NodeRecord, Report
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.isotp import IsoTpParams
from ess_can.journal.journal import Journal
from ess_can.signals.messages import ContactorState, EmsPcsCommand, ImageState, PcsCommandCode, PcsState, UpgradePhase
from ess_can.sim.loop import run_virtual
from ess_can.trust.verify import VerifiedImage, verify_node_image
from ess_can.uds.access import CmacAccess
from ess_can.uds.target import BootState, ResumeState
from tests.firmware_images import RING, small_image
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, NEW, OLD, RACK_OFF, ScriptedPlant, node_info

C = PcsCommandCode
TIMES = TimeLimits(ramp_down_s=2.0, discharge_s=2.0, prove_off_s=2.0, permit_regain_s=2.0, trial_s=2.0, reconnect_s=2.0)
IMAGE: VerifiedImage = verify_node_image(small_image(), RING)
Hook = Callable[["Bench"], Awaitable[None]]


def identity(version: Version = OLD) -> NodeIdentity:
    boot = BootState(0, 0, 3, version)
    return NodeIdentity(NodeType.BMU, 0x11, "BMU-1", version, boot, ResumeState(0, bytes(32)), CODEC.sha256, 1)


@dataclass
class Bench:
    """The gateway's station over a scripted plant, and what happens at which step of which node."""

    plant: ScriptedPlant
    bus: MemoryBus
    hooks: dict[str, Hook] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    report: Report = field(default_factory=Report)
    journal: Journal = field(default_factory=Journal.in_memory)
    listener: OnProgress | None = None
    opened: StationMaster | None = None

    @property
    def master(self) -> StationMaster:
        assert self.opened is not None
        return self.opened

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if self.listener is not None:
            self.listener(event)

    @property
    def phases(self) -> list[Phase]:
        return [event.phase for event in self.events if isinstance(event, PhaseEntered)]


_BENCH: list[Bench] = []


class FakeNode:
    """Stands in for `NodeUpgrade`; each step runs the test's hook of that name, or ``step:node``."""

    def __init__(self, _master: StationMaster, plan: NodePlan, _log: UpgradeLog) -> None:
        self.address = plan.address
        self.activated = False
        self.confirm_sent = False
        self.record = NodeRecord(plan.address, OLD, NEW, plan.image.size)
        self.bench = _BENCH[-1]
        self.running_version = OLD
        self.confirmed = False
        self.silent = False
        self.runs_since = 0.0

    @property
    def may_be_on_trial(self) -> bool:
        return self.bench.plant.nodes[self.address].image_state is ImageState.TRIAL

    async def _do(self, step: str) -> None:
        name = f"{step}:{self.address}"
        self.bench.steps.append(name)
        hook = self.bench.hooks.get(name) or self.bench.hooks.get(step)
        if hook is not None:
            await hook(self.bench)
        else:
            await pause(0.05)

    def _runs(self, state: ImageState, version: Version) -> None:
        self.running_version = version
        self.bench.plant.nodes[self.address] = node_info(state, version)

    def may_try_again(self, error: EssCanError) -> bool:
        return not isinstance(error, VerificationFailed)

    async def hang_up(self) -> None: ...

    async def end_session(self) -> None: ...

    def complete_record(self) -> None:
        self.record.runs = self.running_version

    async def program(self, at_once: int = 1) -> None:
        self.bench.at_once.append(at_once)
        await self._do("program")

    async def activate_on_trial(self) -> None:
        self.activated = True
        await self._do("activate")

    async def restart(self) -> None:
        await self._do("restart")
        self._runs(ImageState.TRIAL, NEW)

    async def see_it_run(self, state: ImageState, within_s: float, *, reverted: bool = False) -> None:
        await self._do("see reverted" if reverted else f"see {state.name.lower()}")
        self.runs_since = now()

    async def prepare_to_confirm(self) -> None:
        await self._do("prepare")

    async def is_confirmed(self) -> bool | None:
        return None if self.silent else self.running_version == NEW and self.confirmed

    async def confirm(self) -> None:
        self.confirm_sent = True
        await self._do("confirm")
        self.confirmed = True
        self._runs(ImageState.CONFIRMED, NEW)

    async def revert(self) -> None:
        await self._do("revert")
        self._runs(ImageState.CONFIRMED, OLD)


@pytest.fixture(autouse=True)
def _fake_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NodeUpgrade", FakeNode)


def station(bus: Bus, config: GatewayConfig) -> StationMaster:
    return StationMaster(
        bus, CODEC, config, CmacAccess(bytes(16)), isotp=IsoTpParams(), bit_timing=None, entropy=random.Random(1)
    )


async def no_plan() -> Plan:
    return Plan()


def plan_of(*nodes: NodeAddress) -> Plan:
    return Plan(tuple(NodePlan(address, identity(), IMAGE) for address in nodes))


def play(
    hooks: dict[str, Hook] | None = None,
    *,
    prepare: Callable[[Bench], object] = lambda _: None,
    afterwards: Afterwards = Afterwards.AS_FOUND,
    at: tuple[float, Callable[[Bench], object]] | None = None,
    nodes: tuple[NodeAddress, ...] = (BMU1, BMU2),
    nodes_at_once: int | None = None,
    times: TimeLimits = TIMES,
    plan: Plan | None = None,
    replan: module.Replan | None = no_plan,
) -> Bench:
    """Upgrade both racks; the bench afterwards.  Whatever happens the report is complete and nothing waits for ever."""

    async def scenario() -> Bench:
        bus, peer = bus_pair()
        bench = Bench(ScriptedPlant(peer), bus, hooks or {})
        _BENCH.append(bench)
        prepare(bench)
        bench.plant.start()
        limits = BusLimits(nodes_at_once=nodes_at_once)
        config = GatewayConfig((BMU1, BMU2), times=times, bus=limits, afterwards=afterwards)
        async with station(bus, config) as master:
            await pause(1.0)
            log = UpgradeLog(bench.journal, bench.report, bench.tell)
            await log.begin(begun)
            bench.opened = master
            master.watch.arm()
            job = module.Upgrade(master, plan or plan_of(*nodes), log, replan)
            found = bench.report.hv_before = master.view.connection((1, 2), 0.0)
            bench.task = asyncio.create_task(job.run(bench.report, found))
            if at is not None:
                asyncio.get_running_loop().call_later(at[0], lambda: at[1](bench))
            await bench.task
        await pause(1.0)
        assert now() < 120.0
        assert bench.report.result in FINAL
        return bench

    return run_virtual(scenario())


def begun(journal: Journal) -> bool:
    journal.begin("a release", b"", sha256(b"").digest(), "")
    return True


def raising(error: BaseException) -> Hook:
    async def hook(_bench: Bench) -> None:
        await pause(0.05)
        raise error

    return hook


def doing(act: Callable[[Bench], object], wait_s: float = 30.0) -> Hook:
    async def hook(bench: Bench) -> None:
        await pause(0.05)
        act(bench)
        await pause(wait_s)

    return hook


def is_open_and_locked(bench: Bench) -> bool:
    racks = bench.plant.racks.values()
    return (
        bench.plant.pcs.contactors is ContactorState.OPEN
        and bench.plant.pcs.lock_acknowledged
        and all(rack.main_plus is ContactorState.OPEN for rack in racks)
    )


def is_back(bench: Bench) -> bool:
    return (
        bench.plant.pcs.contactors is ContactorState.CLOSED
        and not bench.plant.pcs.remote_control
        and bench.plant.orders[-1] is C.RELEASE
    )


def test_the_good_way_in_order() -> None:
    bench = play()
    assert bench.report.error is None
    assert bench.phases == [
        Phase.RAMP_DOWN,
        Phase.OPEN_CONTACTORS,
        Phase.PROVE_HV_OFF,
        Phase.PROGRAM,
        Phase.TRIAL_BOOT,
        Phase.CONFIRM,
        Phase.RECONNECT,
        Phase.DONE,
    ]
    assert bench.steps == [
        f"{step}:bmu{rack}"
        for step in ("program", "activate", "restart", "see trial", "prepare", "confirm", "see confirmed")
        for rack in (1, 2)
    ]
    assert bench.plant.orders == [C.ZERO_POWER, C.OPEN, C.LOCK, C.UNLOCK, C.CLOSE, C.RELEASE]
    assert is_back(bench)
    assert 0.0 < bench.report.hv_off_s < bench.report.bus_time_s
    assert len(bench.report.nodes) == 2


def test_a_plant_that_was_open_is_left_open() -> None:
    def opened(bench: Bench) -> None:
        bench.plant.set_racks(RACK_OFF)
        bench.plant.pcs = replace(
            bench.plant.pcs, state=PcsState.STANDBY, contactors=ContactorState.OPEN, dc_current_a=0.0
        )

    bench = play(prepare=opened)
    assert bench.report.result is Phase.DONE
    assert C.CLOSE not in bench.plant.orders
    assert not bench.plant.pcs.lock_acknowledged


def test_held_open_by_choice_has_its_own_code() -> None:
    bench = play(afterwards=Afterwards.HOLD_OPEN)
    assert bench.report.result is Phase.HELD_OPEN
    assert bench.report.exit_code == HeldOpenByChoice.exit_code
    assert is_open_and_locked(bench)
    assert bench.plant.orders == [C.ZERO_POWER, C.OPEN, C.LOCK]


def test_held_open_by_choice_does_not_hide_a_failure() -> None:
    bench = play({"program:bmu2": raising(VerificationFailed("bad flash"))}, afterwards=Afterwards.HOLD_OPEN)
    assert bench.report.result is Phase.HELD_OPEN
    assert bench.report.exit_code == HeldOpen.exit_code
    assert "VERIFICATION_FAILED: bad flash" in str(bench.report.error)
    assert is_open_and_locked(bench)


def test_an_open_plant_is_connected_when_asked() -> None:
    def opened(bench: Bench) -> None:
        bench.plant.set_racks(RACK_OFF)
        bench.plant.pcs = replace(
            bench.plant.pcs, state=PcsState.STANDBY, contactors=ContactorState.OPEN, dc_current_a=0.0
        )

    bench = play(prepare=opened, afterwards=Afterwards.CONNECT)
    assert bench.report.result is Phase.DONE
    assert (bench.report.hv_before, bench.report.hv_after) == (Connection.OPEN, Connection.CONNECTED)
    assert is_back(bench)


def test_a_plant_that_is_neither_open_nor_connected_is_never_closed() -> None:
    def half_open(bench: Bench) -> None:
        bench.plant.racks[2] = RACK_OFF

    bench = play(prepare=half_open)
    assert bench.report.result is Phase.HELD_OPEN
    assert "partly connected" in str(bench.report.error)
    assert C.CLOSE not in bench.plant.orders


class TestBeforeActivation:
    def test_a_failure_puts_the_plant_back(self) -> None:
        bench = play({"program:bmu2": raising(VerificationFailed("bad flash"))})
        assert bench.report.result is Phase.FAILED
        assert bench.report.exit_code == VerificationFailed.exit_code
        assert Phase.ROLL_BACK not in bench.phases
        assert "activate:bmu1" not in bench.steps
        assert is_back(bench)

    def test_a_pcs_that_does_not_ramp_is_given_back_as_it_is(self) -> None:
        bench = play(prepare=lambda bench: bench.plant.ignores.add(C.ZERO_POWER))
        assert isinstance(bench.report.error, PcsNotStopping)
        assert C.OPEN not in bench.plant.orders
        assert C.LOCK not in bench.plant.orders
        assert is_back(bench)

    def test_hv_that_is_never_proved_off(self) -> None:
        bench = play(prepare=lambda bench: bench.plant.silent.add(("notice", 1)))
        assert isinstance(bench.report.error, HvOffNotProved)
        assert bench.steps == []
        assert is_back(bench)

    def test_a_fault_that_passes_is_tried_again_and_told(self) -> None:
        tries: list[float] = []

        async def twice(_bench: Bench) -> None:
            tries.append(now())
            if len(tries) < 3:
                raise UdsTimeout("no answer")

        bench = play({"program:bmu1": twice})
        assert bench.report.result is Phase.DONE
        assert len(tries) == 3
        assert len([event for event in bench.events if isinstance(event, Noted)]) == 2
        assert tries[2] - tries[1] > tries[1] - tries[0]

    def test_tries_are_counted(self) -> None:
        bench = play({"program:bmu1": raising(UdsTimeout("no answer"))})
        assert [step for step in bench.steps if step.endswith("bmu1")] == ["program:bmu1"] * TIMES.program_attempts
        assert isinstance(bench.report.error, UdsTimeout)
        assert "bmu1" in str(bench.report.error)

    def test_a_permit_that_is_lost_stops_the_work_and_is_proved_again(self) -> None:
        stopped: list[float] = []

        async def lose_once(bench: Bench) -> None:
            if stopped:
                return
            bench.plant.silent.add(("notice", 2))
            asyncio.get_running_loop().call_later(1.0, bench.plant.silent.clear)
            try:
                await pause(30.0)
            finally:
                stopped.append(now())

        bench = play({"program:bmu1": lose_once})
        assert bench.report.result is Phase.DONE
        assert bench.steps[:3] == ["program:bmu1", "program:bmu2", "program:bmu1"]
        assert any(isinstance(e, Noted) and HvPermitRevoked("").name in e.text for e in bench.events)

    def test_hv_that_is_closed_behind_our_back_is_never_reconnected(self) -> None:
        def close(bench: Bench) -> None:
            bench.plant.racks[1] = replace(RACK_OFF, main_plus=ContactorState.CLOSED)

        bench = play({"program:bmu1": doing(close)})
        assert bench.report.result is Phase.HELD_OPEN
        assert HvClosed("").name in str(bench.report.error)
        assert C.CLOSE not in bench.plant.orders
        assert is_open_and_locked(bench)


class TestSeveralNodes:
    """Nodes of one type are programmed at the same time, each by attempts and permits of its own."""

    def test_they_are_programmed_at_the_same_time(self) -> None:
        bench = play({"program": doing(id, 2.0)})
        assert bench.report.error is None
        phase = next(p for p in bench.report.phases if p.phase is Phase.PROGRAM)
        assert phase.end_s - phase.start_s < 2.2
        assert bench.at_once == [2, 2]

    def test_as_many_as_the_site_wants(self) -> None:
        bench = play({"program": doing(id, 2.0)}, nodes_at_once=1)
        phase = next(p for p in bench.report.phases if p.phase is Phase.PROGRAM)
        assert 4.0 < phase.end_s - phase.start_s < 4.3
        assert bench.at_once == [1, 1]

    def test_types_follow_each_other_in_the_releases_order(self) -> None:
        began: list[float] = []

        async def note(_bench: Bench) -> None:
            began.append(now())
            await pause(1.0)

        gateway = NodeAddress(NodeType.COMM_GATEWAY)
        bench = play({"program": note}, nodes=(gateway, BMU1, BMU2))
        assert bench.steps[:3] == [f"program:{address}" for address in (gateway, BMU1, BMU2)]
        assert bench.at_once == [1, 2, 2]
        assert began[1] - began[0] == pytest.approx(1.0)
        assert began[2] == began[1]

    def test_a_fault_of_one_that_passes_does_not_stop_the_other(self) -> None:
        ends: list[float] = []

        async def work(_bench: Bench) -> None:
            began = now()
            await pause(3.0)
            ends.append(now() - began)

        tries: list[float] = []

        async def fail_once(_bench: Bench) -> None:
            tries.append(now())
            await pause(0.1)
            if len(tries) == 1:
                raise UdsTimeout("no answer")

        bench = play({"program:bmu1": fail_once, "program:bmu2": work})
        assert bench.report.error is None
        assert bench.steps.count("program:bmu2") == 1
        assert ends == pytest.approx([3.0])
        assert len(tries) == 2

    def test_one_that_fails_for_good_stops_the_other_before_the_plant_is_put_back(self) -> None:
        stopped: list[float] = []

        async def work(bench: Bench) -> None:
            try:
                await pause(30.0)
            finally:
                stopped.append(now())
                assert Phase.RECONNECT not in bench.phases

        bench = play({"program:bmu1": work, "program:bmu2": raising(VerificationFailed("bad flash"))})
        assert len(stopped) == 1
        assert bench.report.result is Phase.FAILED
        assert str(bench.report.error) == "bad flash: bmu2"
        assert is_back(bench)

    def test_the_first_error_is_reported_and_the_others_are_told(self) -> None:
        async def fail_while_stopping(_bench: Bench) -> None:
            try:
                await pause(30.0)
            finally:
                raise VerificationFailed("bad flash, too")

        bench = play({"program:bmu1": fail_while_stopping, "program:bmu2": raising(VerificationFailed("bad flash"))})
        assert str(bench.report.error) == "bad flash: bmu2"
        notes = [event.text for event in bench.events if isinstance(event, Noted)]
        assert "also failed: bad flash, too: bmu1" in notes

    def test_a_permit_that_is_lost_stops_all_in_the_same_instant(self) -> None:
        stopped: list[tuple[str, float]] = []

        def work(name: str) -> Hook:
            async def hook(bench: Bench) -> None:
                if any(each == name for each, _ in stopped):
                    return
                if not stopped:
                    bench.plant.silent.add(("notice", 2))
                    asyncio.get_running_loop().call_later(1.0, bench.plant.silent.clear)
                try:
                    await pause(30.0)
                finally:
                    stopped.append((name, now()))

            return hook

        bench = play({"program:bmu1": work("bmu1"), "program:bmu2": work("bmu2")})
        assert bench.report.error is None
        assert [name for name, _ in stopped] == ["bmu1", "bmu2"]
        assert stopped[0][1] == stopped[1][1]
        assert [bench.steps.count(f"program:bmu{rack}") for rack in (1, 2)] == [2, 2]

    def test_each_is_announced_while_it_is_programmed(self) -> None:
        bench = play({"program:bmu1": doing(id, 2.0), "program:bmu2": doing(id, 4.0)})
        named = bench.plant.targets[UpgradePhase.PROGRAMMING]
        assert named[:4] in ([1, 2, 1, 2], [2, 1, 2, 1])
        assert set(named[-3:]) == {2}
        assert bench.plant.targets[UpgradePhase.ACTIVATING][:2] == [1, 2]


class TestAfterActivation:
    @pytest.mark.parametrize("step", ["activate:bmu2", "restart:bmu1", "see trial:bmu2"])
    def test_a_failure_reverts_every_activated_node_and_puts_the_plant_back(self, step: str) -> None:
        bench = play({step: raising(TrialBootFailed("no"))})
        assert bench.report.result is Phase.ROLLED_BACK
        assert isinstance(bench.report.error, RolledBack)
        assert {"revert:bmu1", "revert:bmu2", "see reverted:bmu1", "see reverted:bmu2"} <= set(bench.steps)
        assert not any(name.startswith("confirm") for name in bench.steps)
        assert is_back(bench)

    def test_a_node_that_does_not_revert_holds_the_plant_open(self) -> None:
        bench = play(
            {"see trial": raising(TrialBootFailed("no")), "see reverted:bmu2": raising(TrialBootFailed("stuck"))}
        )
        assert bench.report.result is Phase.HELD_OPEN
        assert "stuck" in str(bench.report.error)
        assert "after TRIAL_BOOT_FAILED" in str(bench.report.error)
        assert is_open_and_locked(bench)

    def test_implausible_measurements_roll_back(self) -> None:
        def scale_wrongly(bench: Bench) -> None:
            bench.plant.states[2] = replace(bench.plant.states[2], string_voltage_v=79.0)

        async def restarted(bench: Bench) -> None:
            scale_wrongly(bench)

        bench = play({"restart:bmu2": restarted})
        assert bench.report.result is Phase.ROLLED_BACK
        assert "string voltage" in str(bench.report.error)

    def test_a_rack_whose_new_firmware_does_not_measure_rolls_back(self) -> None:
        async def restarted(bench: Bench) -> None:
            bench.plant.silent.add(("telemetry", 2))

        async def reverted(bench: Bench) -> None:
            bench.plant.silent.clear()

        bench = play({"restart:bmu2": restarted, "revert:bmu2": reverted, "see reverted:bmu2": doing(id, 2.0)})
        assert bench.report.result is Phase.ROLLED_BACK
        assert "rack 2 does not say all" in str(bench.report.error)

    def test_a_set_of_which_nobody_is_confirmed_is_reverted(self) -> None:
        bench = play({"confirm:bmu1": raising(VerificationFailed("no"))})
        assert bench.report.result is Phase.ROLLED_BACK
        assert is_back(bench)

    def test_a_fault_after_the_last_confirmation_does_not_undo_it(self) -> None:
        bench = play({"see confirmed:bmu1": doing(lambda bench: bench.task and bench.task.cancel())})
        assert bench.report.result is Phase.DONE
        assert bench.report.error is None
        assert not any(name.startswith("revert") for name in bench.steps)
        assert is_back(bench)

    def test_no_node_is_confirmed_before_all_are_ready(self) -> None:
        bench = play({"prepare:bmu2": raising(ConfirmFailed("left its trial"))})
        assert bench.report.result is Phase.ROLLED_BACK
        assert not any(name.startswith("confirm") for name in bench.steps)
        assert is_back(bench)

    def test_a_trial_that_took_too_long_is_not_confirmed(self) -> None:
        bench = play({"prepare:bmu2": doing(id, TIMES.trial_limit_s + 1.0)})
        assert bench.report.result is Phase.ROLLED_BACK
        assert "took too long" in str(bench.report.error)
        assert not any(name.startswith("confirm") for name in bench.steps)

    def test_a_set_that_is_half_confirmed_is_never_reconnected(self) -> None:
        bench = play({"confirm:bmu2": raising(VerificationFailed("no"))})
        assert bench.report.result is Phase.HELD_OPEN
        assert "mixed" in str(bench.report.error)
        assert not any(name.startswith("revert") for name in bench.steps)
        assert C.CLOSE not in bench.plant.orders
        assert is_open_and_locked(bench)

    def test_no_node_is_restarted_while_high_voltage_is_on(self) -> None:
        def close(bench: Bench) -> None:
            bench.plant.racks[2] = replace(RACK_OFF, main_plus=ContactorState.CLOSED, current_a=40.0)
            bench.plant.ignores.add(C.ZERO_POWER)

        async def fail_later(_bench: Bench) -> None:
            await pause(0.4)
            raise TrialBootFailed("no")

        bench = play({"see trial:bmu1": doing(close), "see trial:bmu2": fail_later})
        assert bench.report.result is Phase.HELD_OPEN
        assert not any(name.startswith("revert") for name in bench.steps)
        assert "treat the plant as live" in str(bench.report.error)
        assert bench.plant.orders.count(C.OPEN) == 1  # and not again, under load

    def test_an_unconfirmed_image_found_at_the_end_is_never_reconnected(self) -> None:
        async def lie(bench: Bench) -> None:
            await pause(0.1)
            bench.plant.nodes[BMU2] = node_info(ImageState.TRIAL, NEW)

        bench = play({"see confirmed:bmu2": lie})
        assert bench.report.result is Phase.HELD_OPEN
        assert C.CLOSE not in bench.plant.orders


def emergency(bench: Bench) -> None:
    bench.plant.pcs = replace(bench.plant.pcs, state=PcsState.EMERGENCY_STOP, emergency_stop=True)


def live(bench: Bench) -> None:
    """Somebody energises the link."""
    bench.plant.racks[2] = replace(RACK_OFF, link_voltage_v=790.0, hv_off=False)


def foreign_order(bench: Bench) -> None:
    bench.plant.link.send(EmsPcsCommand(C.RUN))


STEPS = ["program:bmu2", "activate:bmu1", "restart:bmu2", "see trial:bmu1", "confirm:bmu1", "see confirmed:bmu2"]


@pytest.mark.parametrize("step", STEPS)
def test_after_high_voltage_came_back_nothing_is_done_to_a_node_and_it_is_told(step: str) -> None:
    bench = play({step: doing(live)})
    assert bench.steps[-1] == step or bench.steps[-2:].count(step)  # of two at the same time
    assert bench.report.result is Phase.HELD_OPEN
    assert HvClosed("").name in str(bench.report.error)
    assert "rack 2: link at 790.0 V" in str(bench.report.error)
    assert C.CLOSE not in bench.plant.orders


def test_high_voltage_that_comes_back_while_nothing_is_asked_of_anybody_ends_it_as_well() -> None:
    """The soak of the trial, with no permit; and a single status of it is enough."""

    async def soaking(bench: Bench) -> None:
        bench.steps.append("soaking")

        def over() -> None:
            bench.plant.racks[2] = RACK_OFF

        loop = asyncio.get_running_loop()
        loop.call_later(0.4, live, bench)
        loop.call_later(0.47, over)

    bench = play({"see trial:bmu2": soaking})
    assert bench.report.result is Phase.HELD_OPEN
    assert HvClosed("").name in str(bench.report.error)
    assert not any(step.startswith(("confirm", "revert")) for step in bench.steps)
    assert "perhaps still on trial, which a node gives up by itself: bmu1, bmu2" in str(bench.report.error)


class TestRollback:
    """What an emergency does while nodes are brought back."""

    @pytest.mark.parametrize("step", ["revert:bmu1", "revert:bmu2", "see reverted:bmu1", "see reverted:bmu2"])
    @pytest.mark.parametrize(("what", "name"), [("stop", "EMERGENCY_STOP"), ("live", "HV_CLOSED")])
    def test_an_emergency_ends_it_at_once_and_is_named(self, step: str, what: str, name: str) -> None:
        struck: list[float] = []

        def strike(bench: Bench) -> None:
            struck.append(now())
            (emergency if what == "stop" else live)(bench)

        bench = play({"see trial:bmu2": raising(TrialBootFailed("bmu2 stays silent")), step: doing(strike)})
        assert bench.report.result is Phase.HELD_OPEN
        assert f"{name}: " in str(bench.report.error)
        assert "TRIAL_BOOT_FAILED: bmu2 stays silent" in str(bench.report.error)
        held = next(e.at for e in bench.events if isinstance(e, PhaseEntered) and e.phase is Phase.HOLD_OPEN)
        assert held - struck[0] <= 0.1
        assert C.CLOSE not in bench.plant.orders
        assert step in bench.steps[-2:]

    def test_what_only_ends_the_upgrade_does_not_end_the_rollback(self) -> None:
        bench = play({"see trial:bmu1": doing(foreign_order)})
        assert [step for step in bench.steps if step.startswith("see reverted")]
        assert isinstance(bench.report.cause, IdConflict)

    def test_an_emergency_while_the_plant_is_held_open_is_named(self) -> None:
        def strike(bench: Bench) -> None:
            bench.plant.ignores.add(C.LOCK)

            def listen(event: Event) -> None:
                if isinstance(event, PhaseEntered) and event.phase is Phase.HOLD_OPEN:
                    asyncio.get_running_loop().call_later(0.02, emergency, bench)

            bench.listener = listen

        bench = play(prepare=strike, afterwards=Afterwards.HOLD_OPEN)
        assert isinstance(bench.report.error, HeldOpen)
        assert not isinstance(bench.report.error, HeldOpenByChoice)
        assert "EMERGENCY_STOP" in str(bench.report.error)

    def test_an_emergency_while_the_plant_is_handed_back_holds_it_open(self) -> None:
        def strike(bench: Bench) -> None:
            bench.plant.ignores.add(C.RELEASE)

            def listen(event: Event) -> None:
                if isinstance(event, PhaseEntered) and event.phase is Phase.RECONNECT:
                    asyncio.get_running_loop().create_task(later(bench))

            bench.listener = listen

        async def later(bench: Bench) -> None:
            while C.RELEASE not in bench.plant.orders:
                await pause(0.01)
            struck.append(now())
            emergency(bench)

        struck: list[float] = []
        bench = play(prepare=strike)
        assert bench.report.result is Phase.HELD_OPEN
        held = next(e.at for e in bench.events if isinstance(e, PhaseEntered) and e.phase is Phase.HOLD_OPEN)
        assert held - struck[0] <= 0.1
        assert "EMERGENCY_STOP" in str(bench.report.error)
        assert bench.plant.orders[-1] in (C.ZERO_POWER, C.LOCK)


class TestEmergency:
    @pytest.mark.parametrize("step", STEPS)
    def test_an_emergency_stop_at_any_step_is_never_followed_by_close(self, step: str) -> None:
        bench = play({step: doing(emergency)})
        assert bench.report.result is Phase.HELD_OPEN
        assert isinstance(bench.report.error, HeldOpen)
        assert C.CLOSE not in bench.plant.orders
        assert C.UNLOCK not in bench.plant.orders

    def test_during_ramp_down(self) -> None:
        bench = play(prepare=lambda bench: bench.plant.ignores.add(C.ZERO_POWER), at=(0.5, emergency))
        assert bench.report.result is Phase.HELD_OPEN
        assert EmergencyStop("").name in str(bench.report.error)
        assert C.CLOSE not in bench.plant.orders

    def test_while_reconnecting_it_stops_at_once(self) -> None:
        def prepare(bench: Bench) -> None:
            bench.plant.ignores.add(C.CLOSE)

            def listen(event: Event) -> None:
                if isinstance(event, PhaseEntered) and event.phase is Phase.RECONNECT:
                    asyncio.get_running_loop().call_later(0.5, emergency, bench)

            bench.listener = listen

        bench = play(prepare=prepare)
        assert bench.report.result is Phase.HELD_OPEN
        assert EmergencyStop("").name in str(bench.report.error)
        assert bench.plant.orders[-1] is C.LOCK
        reconnecting = next(p for p in bench.report.phases if p.phase is Phase.RECONNECT)
        assert reconnecting.end_s - reconnecting.start_s < 0.6

    @pytest.mark.parametrize("step", STEPS)
    def test_another_master_is_never_answered_with_close(self, step: str) -> None:
        bench = play({step: doing(foreign_order)})
        assert bench.report.result is Phase.HELD_OPEN
        assert isinstance(bench.report.error, IdConflict | HeldOpen)
        assert C.CLOSE not in bench.plant.orders


class TestBusLoss:
    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("error", [BusOff("off"), AdapterLost("gone"), InterfaceDown("down")])
    def test_at_any_step_it_ends_at_once_and_as_what_it_is(self, step: str, error: BusError) -> None:
        bench = play({step: doing(lambda bench: bench.bus.die(error))})
        assert bench.report.result is Phase.HELD_OPEN
        assert bench.report.error is error or (
            isinstance(bench.report.error, HeldOpen) and "mixed" in str(bench.report.error)
        )
        assert not any(name.startswith("revert") for name in bench.steps)

    def test_what_the_work_made_of_it_does_not_hide_it(self) -> None:
        error = BusOff("off")

        async def mistake(bench: Bench) -> None:
            await pause(0.05)
            bench.bus.die(error)
            raise TrialBootFailed("it does not answer")

        bench = play({"see trial:bmu1": mistake})
        assert bench.report.error is error
        assert not any(name.startswith("revert") for name in bench.steps)

    @pytest.mark.parametrize("after_s", [0.01, 0.04, 0.1, 0.3])
    def test_while_isolating(self, after_s: float) -> None:
        error = BusOff("off")
        bench = play(at=(after_s, lambda bench: bench.bus.die(error)))
        assert bench.report.result is Phase.HELD_OPEN
        assert bench.report.error is error


class TestInterruption:
    def test_before_activation_the_plant_is_put_back_first(self) -> None:
        bench = play({"program:bmu1": doing(lambda bench: bench.task and bench.task.cancel())})
        assert isinstance(bench.report.error, Interrupted)
        assert bench.report.exit_code == 3
        assert bench.report.result is Phase.FAILED
        assert "program" in bench.report.error.why
        assert is_back(bench)

    def test_after_activation_the_nodes_are_reverted_first(self) -> None:
        bench = play({"see trial:bmu1": doing(lambda bench: bench.task and bench.task.cancel())})
        assert bench.report.result is Phase.ROLLED_BACK
        assert {"revert:bmu1", "revert:bmu2"} <= set(bench.steps)
        assert is_back(bench)

    def test_a_second_one_does_not_stop_the_putting_back(self) -> None:
        async def insist(bench: Bench) -> None:
            for _ in range(3):
                await pause(0.05)
                if bench.task is not None:
                    bench.task.cancel()

        cancel = doing(lambda bench: bench.task and bench.task.cancel())
        bench = play({"see trial:bmu1": cancel, "revert:bmu1": insist, "see reverted:bmu1": insist})
        assert bench.report.result is Phase.ROLLED_BACK
        assert is_back(bench)

    @pytest.mark.parametrize("after_s", [0.0, 0.01, 0.03, 0.06, 0.1, 0.5])
    def test_while_isolating(self, after_s: float) -> None:
        bench = play(at=(after_s, lambda bench: bench.task and bench.task.cancel()))
        assert isinstance(bench.report.error, Interrupted | HeldOpen)
        assert is_back(bench) or is_open_and_locked(bench)


class TestOurOwnDefects:
    @pytest.mark.parametrize(
        ("step", "result"), [("program:bmu1", Phase.FAILED), ("see trial:bmu1", Phase.ROLLED_BACK)]
    )
    def test_an_internal_error_still_puts_the_plant_back(self, step: str, result: Phase) -> None:
        bench = play({step: raising(ZeroDivisionError("a defect"))})
        assert bench.report.exit_code in (1, RolledBack.exit_code)
        assert "ZeroDivisionError: a defect" in str(bench.report.error)
        assert is_back(bench)

    def test_an_internal_error_while_rolling_back_holds_the_plant_open(self) -> None:
        bench = play({"see trial": raising(TrialBootFailed("no")), "revert:bmu2": raising(ZeroDivisionError("defect"))})
        assert bench.report.result is Phase.HELD_OPEN
        assert "ZeroDivisionError" in str(bench.report.error)
        assert is_open_and_locked(bench)
