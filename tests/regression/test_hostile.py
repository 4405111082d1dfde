"""Peers that mean harm, and people who err: on the plant's bus, at the desk, with the secret in their hands."""

from __future__ import annotations

import hashlib
import zlib
from contextlib import suppress
from dataclasses import replace
from functools import partial

import click
import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.port import Sent
from ess_can.bus.station import Received, StationLink
from ess_can.campaign.monitors import Invariant
from ess_can.can.frame import CanFrame
from ess_can.cli.main import main
from ess_can.errors import EssCanError, UsageError
from ess_can.gateway.config import Afterwards, GatewayConfig, TimeLimits
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.signals.messages import (
    BmsAlarms,
    BmsHvNotice,
    BmsHvStatus,
    ContactorState,
    EmsHvStatusPoll,
    HvNoticeCondition,
    Message,
    PcsState,
    PcsStatus,
)
from ess_can.sim.controller import Controller
from ess_can.sim.electrical import ContactorFault
from ess_can.sim.latches import Clearing, Latch
from ess_can.sim.plant import Plant
from ess_can.sim.wire import WireFault
from tests.firmware_images import STRANGER, small_image
from tests.scenario.support import BMU1, NEW, OLD, QUICK, Scene, changes_plant, play, release
from tests.scenario.test_direct_client import BY_HAND, Attacker, attack, isolate

ONE_RACK = replace(QUICK, racks=1)
EVIDENCE: tuple[type[Message], ...] = (BmsHvStatus, BmsHvNotice, BmsAlarms, PcsStatus)


def impatient(plant: Plant) -> GatewayConfig:
    return GatewayConfig(plant.addresses, times=TimeLimits(prove_off_s=1.0, permit_regain_s=1.0))


def changed(plant: Plant) -> int:
    """Sectors erased and units programmed by all nodes so far."""
    return sum(n.flash.counters.sectors_erased + n.flash.counters.units_programmed for n in plant.nodes.values())


# --- frames that are not what they say -----------------------------------------------------------------


class Impostor:
    """Sits between the bus on one side, racks and PCS on the other: from `take_over` on it speaks in their place."""

    def __init__(self, scene: Scene) -> None:
        self._ids = frozenset(can_id for message in EVIDENCE for can_id in scene.can_ids(message))
        self._controller = scene.plant.wire.controller("impostor")
        self._plant = scene.plant
        self.link = StationLink(self._controller, scene.plant.codec)
        self.send = self._controller.send

    def take_over(self) -> None:
        for controller in (self._plant.nodes[BMU1].controller, self._plant.pcs_node.controller):
            self._mute(controller)

    def _mute(self, controller: Controller) -> None:
        send = controller.send

        def what_is_no_evidence(frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
            if frame.can_id not in self._ids:
                send(frame, on_sent, bulk=bulk)

        controller.send = what_is_no_evidence  # type: ignore[method-assign] # this one only


def keep_high_voltage_on(plant: Plant) -> None:
    """Contactors that do not open, whoever orders them to."""
    for rack in plant.circuit.racks:
        rack.main_plus.fault = rack.main_minus.fault = ContactorFault.WELDED
    plant.circuit.pcs_contactor.fault = ContactorFault.WELDED
    plant.circuit.external_source_v = 700.0


def test_p20_replayed_frames_prove_nothing() -> None:
    """Every frame of an earlier, true HV-off is sent again in its order and time, while high voltage is on.

    The statuses pass their checks; but the notices answer polls of another day, and no permit comes of it.
    """
    recorded: list[tuple[float, CanFrame]] = []

    async def record(scene: Scene) -> None:
        ids = {can_id for message in EVIDENCE for can_id in scene.can_ids(message)}
        await scene.phase(Phase.PROGRAM)
        began = scene.plant.wire.loop.time()
        controller = scene.plant.wire.controller("recorder")
        controller.subscribe(ids, lambda frame, at: recorded.append((at - began, frame)))
        await scene.phase(Phase.TRIAL_BOOT)

    play(record, spec=ONE_RACK, upgrade=release(kib=60)).require(Phase.DONE)
    assert {frame.can_id for _, frame in recorded}

    async def replay(scene: Scene) -> None:
        await scene.phase(Phase.OPEN_CONTACTORS)
        impostor = Impostor(scene)
        keep_high_voltage_on(scene.plant)
        impostor.take_over()
        loop, began = scene.plant.wire.loop, scene.plant.wire.loop.time()
        for after_s, frame in recorded:
            loop.call_at(began + after_s, impostor.send, frame)
        await pause(recorded[-1][0])

    before: list[int] = []
    # That the plant was left open and locked is believed of the old frames, too.
    believed = frozenset({Invariant.TYPED_FAILURE})
    outcome = play(
        replay,
        spec=ONE_RACK,
        config=impatient,
        prepare=lambda plant: before.append(changed(plant)),
        breaks=believed,
    )
    assert outcome.report.error is not None
    assert "HV_OFF_NOT_PROVED" in (outcome.error, *outcome.why.replace(":", "").split())
    assert {word for word in outcome.why.split() if word.startswith(("BMS_", "PCS_"))} == {"BMS_HvNotice:"}, outcome.why
    assert not outcome.scene.all_steps(NodeStep.ANNOUNCE)
    assert changed(outcome.scene.plant) == before[0]


def test_p19_forged_frames_fool_the_gateway_not_the_node() -> None:
    """Somebody computes E2E and echoes each poll's token: that is enough for the gateway, and no E2E can prevent it.

    The node asks its own sensors: it refuses, and nothing is written.
    """
    answers: list[str] = []

    async def forge(scene: Scene) -> None:
        await scene.phase(Phase.OPEN_CONTACTORS)
        impostor = Impostor(scene)
        keep_high_voltage_on(scene.plant)
        impostor.take_over()
        opened = ContactorState.OPEN
        pcs = PcsStatus(
            state=PcsState.STANDBY,
            contactors=opened,
            lock_acknowledged=True,
            heartbeat_lost=False,
            emergency_stop=False,
            remote_control=True,
            grid_service_active=False,
            dc_current_a=0.0,
            fault_code=0,
        )
        rack = BmsHvStatus(
            main_plus=opened,
            main_minus=opened,
            precharge=opened,
            hvil_closed=True,
            weld_plus=False,
            weld_minus=False,
            hv_off=True,
            emergency_stop=False,
            link_voltage_v=0.0,
            current_a=0.0,
        )

        def answer(poll: Received[EmsHvStatusPoll]) -> None:
            impostor.link.send(BmsHvNotice(poll.message.token, HvNoticeCondition.DISCONNECTED, 5.0))

        def say(message: Message, _at: float) -> None:
            impostor.link.send(message)

        impostor.link.subscribe(EmsHvStatusPoll, answer)
        told: tuple[tuple[Message, float], ...] = ((pcs, 0.05), (rack, 0.05), (BmsAlarms(), 0.5))
        cycles = [Cycle(period_s, partial(say, message)) for message, period_s in told]
        for cycle in cycles:
            cycle.start()
        await scene.phase(Phase.PROGRAM)
        answers.append("permit")
        await pause(2.0)
        for cycle in cycles:
            cycle.stop()

    before: list[int] = []
    outcome = play(forge, spec=ONE_RACK, config=impatient, prepare=lambda plant: before.append(changed(plant)))
    assert answers == ["permit"], "the gateway was not fooled: then this shows nothing"
    assert outcome.report.error is not None
    assert not outcome.scene.all_steps(NodeStep.ANNOUNCE)
    assert changed(outcome.scene.plant) == before[0]


# --- other testers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [NodeStep.TRANSFER, NodeStep.VERIFY])
@pytest.mark.parametrize("request_", ["3601" + "ee" * 100, "3101fd11", "1101", "1001", "3702"])
def test_u13_second_tester_writes_nothing(request_: str, moment: NodeStep) -> None:
    """Whatever a second tester asks meanwhile, nothing but the image ever gets into flash, and it does not pass unseen.

    In mid-transfer it collides with us, and both go bus-off; in a pause it is seen as somebody on our identifier.
    """

    async def intrude(scene: Scene) -> None:
        await scene.step(moment)
        await pause(0.02)
        attacker = Attacker(scene.plant, BMU1)
        with suppress(EssCanError, TimeoutError):  # how the intruder fares is not the point
            await attacker.ask(request_)

    outcome = play(intrude, spec=ONE_RACK, upgrade=release(kib=60))
    node = outcome.scene.plant.nodes[BMU1]
    if outcome.report.result is Phase.DONE:  # it was heard by nobody
        assert moment is NodeStep.TRANSFER
        outcome.require_confirmed(NEW)
        return
    told = {outcome.error, *outcome.why.replace(":", "").replace(";", "").split()}
    assert told & ({"ID_CONFLICT"} if moment is NodeStep.VERIFY else {"ID_CONFLICT", "BUS_OFF", "BUS_UNUSABLE"}), told
    outcome.require_confirmed(OLD)
    content, state = release(kib=60).images[0].content, node.records.resume.load()
    assert state is not None
    programmed = node.flash.read(1, node.flash.geometry.slot_offset, state.verified_offset)
    assert programmed == content.read(0, state.verified_offset)


def test_p6_node_that_is_cut_off_from_the_gateway() -> None:
    """Somebody drops every request to one node: told as what it is, in bounded time, and all run what they ran."""

    async def cut_off(scene: Scene) -> None:
        await scene.phase(Phase.PROGRAM)
        request_id = scene.plant.codec.diagnostic_ids(BMU1)[0]
        scene.plant.wire.fault = lambda _, frame: WireFault.LOSE if frame.can_id == request_id else None

    outcome = play(cut_off)
    assert outcome.error in ("UDS_TIMEOUT", "N_TIMEOUT_BS")
    assert "bmu1" in str(outcome.report.error)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected


def test_p25_whoever_has_the_secret_still_needs_a_signature() -> None:
    """The secret of service 27 opens a node whose high voltage is off; what it wrote there does not verify or boot."""
    content = small_image(payload=bytes(2000), version=NEW, signer=STRANGER)

    async def script(attacker: Attacker, scene: Scene) -> None:
        await isolate(scene)
        for request in ("1003", "31010203", "1002"):
            assert not (await attacker.ask(request)).startswith("7f")
        await attacker.unlock()
        size = len(content).to_bytes(4, "big").hex()
        sha256 = hashlib.sha256(content).hexdigest()
        assert await attacker.ask("3101ff00" + size + sha256) == "7101ff00"
        assert (await attacker.ask("340044" + "00000000" + size)).startswith("74")
        assert await attacker.ask("3601" + content.hex()) == "7601"
        assert await attacker.ask("37") == "77"
        assert await attacker.ask("3101fd10" + f"{zlib.crc32(content):08x}") == "7f3172"
        assert await attacker.ask("3101fd11") == "7f3124"
        assert await attacker.ask("1101") == "5101"
        await pause(2.0)
        assert scene.plant.versions()[BMU1] == OLD

    attack(BMU1, script, breaks=BY_HAND)


def test_u8_board_exchanged_between_check_and_programming() -> None:
    """A board that is exchanged after the check has another serial number: it is not touched."""

    async def exchange(scene: Scene) -> None:
        await scene.phase(Phase.PROVE_HV_OFF)
        node = scene.plant.nodes[BMU1]
        node.board = replace(node.board, serial="BMU-999999")
        node.reset(scene.plant.wire.loop.time())

    before: list[int] = []
    outcome = play(exchange, spec=ONE_RACK, prepare=lambda plant: before.append(changed(plant)))
    outcome.require(Phase.FAILED, "WRONG_TARGET", 85)
    assert "BMU-999999" in str(outcome.report.error)
    assert changed(outcome.scene.plant) == before[0]
    outcome.require_confirmed(OLD)


# --- people -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("serial", "result"), [("BMU-000001", Phase.DONE), ("BMU-000099", Phase.REFUSED)])
def test_o1_serial_number_that_is_not_the_expected_one(serial: str, result: Phase) -> None:
    """At another site, or with a board that was exchanged, nothing is begun."""

    def config(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, serials=((BMU1, serial),))

    outcome = play(config=config, spec=ONE_RACK)
    assert outcome.report.result is result
    if result is Phase.REFUSED:
        outcome.require(Phase.REFUSED, "WRONG_TARGET", 85)
        assert serial in str(outcome.report.error)
        assert not changes_plant(outcome.scene)
        outcome.require_confirmed(OLD)


def commands(group: click.Group) -> list[click.Command]:
    context = click.Context(group)
    found: list[click.Command] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command) if isinstance(command, click.Group) else [command]
    return found


def test_o4_there_is_no_flag_to_force_it() -> None:
    """No option of any command is about skipping a check; overwriting a file of one's own is another thing."""
    suspicious = ("force", "skip", "ignore", "no-check", "no-verify", "unsafe", "insecure", "override", "bypass")
    for command in commands(main):
        if command.name in ("new", "sign", "release", "pack", "keys"):
            continue
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert not any(word in option for word in suspicious), f"{command.name} {option}"


def test_o9_weld_lock_out_is_cleared_by_a_named_person_on_record() -> None:
    """A retry after a weld is refused, mended or not, until a person who gives a name has cleared it."""

    async def weld(scene: Scene) -> None:
        await scene.phase(Phase.RAMP_DOWN)
        scene.plant.circuit.racks[0].main_plus.fault = ContactorFault.WELDED

    async def retry(scene: Scene) -> None:
        plant, rack = scene.plant, scene.plant.racks[0]
        config = GatewayConfig(plant.addresses, afterwards=Afterwards.CONNECT)

        async def refused() -> None:
            report = await scene.run_upgrade(config=config)
            assert report.result is Phase.REFUSED
            assert report.error is not None
            assert report.error.name == "CONTACTOR_WELDED"

        await refused()
        contactor = plant.circuit.racks[0].main_plus
        contactor.fault = ContactorFault.NONE
        plant.circuit.place(contactor, False)
        plant.nodes[BMU1].reset(plant.wire.loop.time())  # and no restart helps
        await pause(3.0)
        await refused()
        with pytest.raises(UsageError, match="not cleared"):
            rack.clear_latches(" ", plant.wire.loop.time())
        await refused()
        at = plant.wire.loop.time()
        rack.clear_latches("A. Person", at)
        assert rack.clearings == [Clearing(at, "A. Person", frozenset({Latch.WELD_PLUS}))]
        await pause(1.0)
        report = await scene.run_upgrade(config=config)
        assert report.error is None, report.error
        assert report.result is Phase.DONE

    outcome = play(weld, spec=ONE_RACK, after=retry)
    assert "CONTACTOR_WELDED" in outcome.why
    outcome.require_confirmed(NEW)
    assert outcome.scene.all_connected
