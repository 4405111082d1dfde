"""The steps of one node, with a client of a few lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import cast

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.station import StationLink
from ess_can.can.timing import BitTiming
from ess_can.errors import (
    AccessDenied,
    ConfirmFailed,
    FlashWriteFailed,
    HvPermitRevoked,
    NTimeoutBs,
    TrialBootFailed,
    UdsNegativeResponse,
    UdsTimeout,
    VerificationFailed,
    WrongTarget,
)
from ess_can.gateway.armed_trials import ArmedTrials
from ess_can.gateway.config import GatewayConfig, TimeLimits
from ess_can.gateway.node_client import NodeIdentity
from ess_can.gateway.node_upgrade import NodeUpgrade
from ess_can.gateway.plan import NodePlan
from ess_can.gateway.plant_view import PlantView, Sample
from ess_can.gateway.progress import Event, Noted, Transferred
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.report import Report
from ess_can.gateway.station_master import StationMaster
from ess_can.gateway.transfer_meter import StationTraffic
from ess_can.gateway.watch import PlantWatch
from ess_can.identity import NodeAddress
from ess_can.image.content import ImageContent
from ess_can.journal.journal import Journal
from ess_can.signals.messages import BOOT_COUNTER_MODULUS, ImageState
from ess_can.sim.loop import run_virtual
from ess_can.trust.verify import verify_node_image
from ess_can.uds.access import CmacAccess
from ess_can.uds.target import BootState, Nrc, ResumeState
from tests.firmware_images import RING, small_image
from tests.support.memory_bus import MemoryBus
from tests.support.scripted_plant import BMU1, CODEC, NEW, OLD, node_info
from tests.unit.gateway.test_plan import identity

IMAGE = verify_node_image(small_image(payload=bytes(range(256)) * 160), RING)
SIZE = IMAGE.size


@dataclass
class Bench:
    """A station with one node.  `fails` gives what a call raises, once for each entry."""

    calls: list[str] = field(default_factory=list)
    fails: dict[str, list[Exception]] = field(default_factory=dict)
    breaks_at: int | None = None
    answer: NodeIdentity = field(default_factory=lambda: identity(BMU1))
    events: list[Event] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = GatewayConfig((BMU1,), times=TimeLimits(node_boot_s=2.0))
        self.access = CmacAccess(bytes(16))
        self.bit_timing = BitTiming(500_000)
        self.link = StationLink(MemoryBus(), CODEC)
        self.traffic = StationTraffic(self.link, self.bit_timing)
        self.view = PlantView()
        self.watch = PlantWatch(self.link)
        self.armed = ArmedTrials()
        plan = NodePlan(BMU1, identity(BMU1), IMAGE)
        self.journal = Journal.in_memory()
        self.log = UpgradeLog(self.journal, Report(), self.events.append)
        self.node = NodeUpgrade(cast(StationMaster, self), plan, self.log)

    def client(self, _address: NodeAddress) -> Bench:
        return self

    def longest_block(self, at_once: int) -> int:
        assert at_once == 1
        return 1234

    async def hang_up(self, _address: NodeAddress) -> None:
        self.calls.append("hang up")

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        await pause(0.01)
        if self.fails.get(name):
            raise self.fails[name].pop(0)

    async def identify(self) -> NodeIdentity:
        await self._call("identify")
        return self.answer

    async def enter_default(self) -> None:
        await self._call("default")

    async def enter_extended(self) -> None:
        await self._call("extended")

    async def check_preconditions(self) -> None:
        await self._call("preconditions")

    async def stop_writing(self) -> None:
        self.calls.append("stop_writing")

    async def enter_programming(self) -> None:
        await self._call("programming")

    async def authenticate(self, _access: CmacAccess) -> None:
        await self._call("authenticate")

    async def announce(self, size: int, sha256: bytes) -> None:
        assert (size, sha256) == (SIZE, IMAGE.sha256)
        await self._call("announce")

    async def download(self, offset: int, image: ImageContent, progress: Callable[[int], None], *, block: int) -> None:
        assert image.read(offset, SIZE) == IMAGE.content.read(offset, SIZE)
        self.blocks.append(block)
        await self._call(f"download {offset}")
        for done in range(offset, SIZE, 4096):
            if done == self.breaks_at:
                self.breaks_at = None
                raise NTimeoutBs("lost")
            await pause(0.1)
            progress(min(done + 4096, SIZE))

    async def verify(self, crc32: int) -> int:
        assert crc32 == IMAGE.crc32
        await self._call("verify")
        return crc32

    async def activate_on_trial(self) -> None:
        await self._call("activate")

    async def reset(self) -> None:
        await self._call("reset")

    async def confirm(self) -> None:
        await self._call("confirm")

    async def revert(self) -> None:
        await self._call("revert")

    def hears(self, state: ImageState = ImageState.CONFIRMED, *, new: bool = True, boots: int = 4) -> None:
        """Node_Info arrives now, and the identifiers agree with it."""
        version = NEW if new else OLD
        self.view.nodes[BMU1] = Sample(replace(node_info(state, version), boot_counter=boots), now())
        self.answer = replace(identity(BMU1, version), boot_state=BootState(0, state, boots, version))


def begun(journal: Journal) -> bool:
    journal.begin("a release", b"", sha256(b"").digest(), "")
    return True


def play(scenario: Callable[[Bench], Awaitable[None]], make: Callable[[], Bench] = Bench) -> Bench:
    async def start() -> Bench:
        bench = make()
        await bench.log.begin(begun)
        await scenario(bench)
        return bench

    return run_virtual(start())


START = ["identify", "extended", "preconditions", "programming", "authenticate"]


class TestProgram:
    def program(self, offset: int = 0, sha256: bytes = bytes(32), **fails: list[Exception]) -> Bench:
        async def scenario(bench: Bench) -> None:
            bench.fails = fails
            bench.answer = replace(bench.answer, resume_state=ResumeState(offset, sha256))
            await bench.node.program()

        return play(scenario)

    def test_the_whole_sequence(self) -> None:
        bench = self.program()
        assert bench.calls == [*START, "announce", "download 0", "verify"]
        assert bench.node.record.bytes_sent == SIZE
        assert bench.node.record.transfer_s > 0.0
        bench.node.complete_record()
        assert bench.node.record.wire_efficiency is not None

    def test_what_a_failed_attempt_brought_and_took_counts(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.breaks_at = 12288
            with pytest.raises(NTimeoutBs):
                await bench.node.program()
            assert bench.node.record.bytes_sent == 12288
            assert bench.node.record.transfer_s == pytest.approx(0.31)
            bench.answer = replace(bench.answer, resume_state=ResumeState(8192, IMAGE.sha256))
            await bench.node.program()
            assert bench.blocks == [1234, 256]  # shorter ones get through where frames are lost

        record = play(scenario).node.record
        blocks = 3 + -(-(SIZE - 8192) // 4096)
        assert record.bytes_sent == 12288 + SIZE - 8192  # what it had not verified was sent twice
        assert record.transfer_s == pytest.approx(0.02 + 0.1 * blocks)

    def test_progress_is_told_now_and_then_and_at_the_end(self) -> None:
        told = [event for event in self.program().events if isinstance(event, Transferred)]
        assert [event.done_bytes for event in told] == [16384, 32768, SIZE]
        assert told[0].bytes_per_s > 0.0
        assert told[-1].eta_s == 0.0

    def test_the_same_image_is_resumed_without_an_announcement(self) -> None:
        assert self.program(8192, IMAGE.sha256).calls == [*START, "download 8192", "verify"]

    def test_another_image_there_is_given_up(self) -> None:
        assert "announce" in self.program(8192, bytes(32)).calls

    def test_a_whole_image_is_only_verified(self) -> None:
        assert self.program(SIZE, IMAGE.sha256).calls == [*START, "verify"]

    def test_what_was_resumed_and_is_not_the_image_is_sent_again(self) -> None:
        bench = self.program(8192, IMAGE.sha256, verify=[VerificationFailed("no")])
        assert bench.calls[len(START) :] == ["download 8192", "verify", "announce", "download 0", "verify"]

    @pytest.mark.parametrize(("offset", "error"), [(0, VerificationFailed("no")), (8192, FlashWriteFailed("worn"))])
    def test_a_verdict_that_stands(self, offset: int, error: VerificationFailed) -> None:
        with pytest.raises(VerificationFailed):
            self.program(offset, IMAGE.sha256, verify=[error])

    def test_another_node_than_the_one_planned_is_not_touched(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.answer = replace(bench.answer, serial="somebody else")
            with pytest.raises(WrongTarget):
                await bench.node.program()
            assert bench.calls == ["identify"]

        play(scenario)


def test_the_flags_are_set_before_the_request_leaves() -> None:
    async def scenario(bench: Bench) -> None:
        bench.fails = {"activate": [UdsTimeout("lost")], "confirm": [UdsTimeout("lost")]}
        with pytest.raises(UdsTimeout):
            await bench.node.activate_on_trial()
        assert bench.node.activated
        with pytest.raises(UdsTimeout):
            await bench.node.confirm()
        assert bench.node.confirm_sent

    play(scenario)


@pytest.mark.parametrize("error", [UdsTimeout("lost"), NTimeoutBs("lost")])
def test_a_restart_whose_answer_is_lost_is_told_and_found_out_later(error: Exception) -> None:
    async def scenario(bench: Bench) -> None:
        bench.fails = {"reset": [error]}
        await bench.node.restart()
        assert any(isinstance(event, Noted) for event in bench.events)
        assert bench.calls == ["reset", "hang up"]

    play(scenario)


def test_a_restart_that_is_refused_is_an_error() -> None:
    async def scenario(bench: Bench) -> None:
        bench.fails = {"reset": [UdsNegativeResponse("no", nrc=Nrc.CONDITIONS_NOT_CORRECT)]}
        with pytest.raises(UdsNegativeResponse):
            await bench.node.restart()

    play(scenario)


class TestSeeItRun:
    def test_it_runs(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.TRIAL)
            await bench.node.see_it_run(ImageState.TRIAL, 5.0)
            assert bench.node.running_version == NEW

        play(scenario)

    def test_what_was_heard_before_does_not_count(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.TRIAL)
            await pause(0.1)
            with pytest.raises(TrialBootFailed, match="silent for 5 s"):
                await bench.node.see_it_run(ImageState.TRIAL, 5.0)
            assert now() == pytest.approx(5.1, abs=0.05)

        play(scenario)

    def test_a_node_that_reverted_by_itself_is_not_waited_for(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(new=False, boots=3)
            await bench.node.restart()
            bench.hears(new=False, boots=5)
            with pytest.raises(TrialBootFailed, match=r"it runs 1\.0\.0"):
                await bench.node.see_it_run(ImageState.TRIAL, 60.0)
            assert now() < 1.0

        play(scenario)

    def test_a_last_word_before_the_restart_is_not_a_reversion(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(new=False, boots=3)
            await bench.node.restart()
            bench.hears(new=False, boots=3)
            with pytest.raises(TrialBootFailed):
                await bench.node.see_it_run(ImageState.TRIAL, 5.0)
            assert now() > 5.0

        play(scenario)

    def test_a_confirmation_that_does_not_show(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.TRIAL)
            with pytest.raises(ConfirmFailed):
                await bench.node.see_it_run(ImageState.CONFIRMED, 1.0)

        play(scenario)

    def test_identifiers_that_say_something_else(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.TRIAL)
            bench.answer = identity(BMU1, OLD)
            with pytest.raises(TrialBootFailed, match="contradicts"):
                await bench.node.see_it_run(ImageState.TRIAL, 1.0)

        play(scenario)

    @pytest.mark.parametrize(
        ("activated", "boots", "asked"),
        [(True, 3, True), (True, 4, False), (True, 3, False), (False, 3, False)],
    )
    def test_an_old_image_is_only_safe_if_the_activation_is_gone(
        self, activated: bool, boots: int, asked: bool
    ) -> None:
        async def scenario(bench: Bench) -> None:
            bench.node.activated = activated
            if activated:
                bench.armed.suspect(BMU1)
            if asked:
                await bench.node.revert()
            bench.hears(new=False, boots=boots)
            seen = bench.node.see_it_run(ImageState.CONFIRMED, 1.0, reverted=True)
            if asked or boots != 3 or not activated:
                await seen
            else:
                with pytest.raises(TrialBootFailed, match="next restart"):
                    await seen
            assert bool(bench.armed.nodes) is (activated and boots == 3 and not asked)

        play(scenario)


class TestConfirm:
    def test_the_sequence(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.TRIAL)
            await bench.node.see_it_run(ImageState.TRIAL, 1.0)
            bench.calls.clear()
            await bench.node.prepare_to_confirm()
            assert bench.calls == ["identify", "extended", "preconditions", "authenticate"]
            assert not bench.node.confirm_sent
            await bench.node.confirm()
            assert bench.calls[-1] == "confirm"
            assert bench.node.confirm_sent

        play(scenario)

    def test_a_node_that_restarted_meanwhile_is_not_confirmed(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.TRIAL)
            await bench.node.see_it_run(ImageState.TRIAL, 1.0)
            bench.hears(ImageState.TRIAL, boots=9)
            with pytest.raises(ConfirmFailed, match="left its trial"):
                await bench.node.prepare_to_confirm()

        play(scenario)

    def test_a_confirmation_that_happened_already_is_not_repeated(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.CONFIRMED)
            await bench.node.prepare_to_confirm()
            await bench.node.confirm()
            assert bench.calls == ["identify"]
            assert not bench.node.confirm_sent

        play(scenario)

    def test_only_the_node_knows_whether_it_is_confirmed(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.hears(ImageState.CONFIRMED)
            assert await bench.node.is_confirmed() is True
            bench.hears(ImageState.TRIAL)
            assert await bench.node.is_confirmed() is False
            bench.fails = {"identify": [UdsTimeout("silent")] * 100}
            assert await bench.node.is_confirmed() is None

        play(scenario)


class TestRevert:
    def test_the_sequence(self) -> None:
        bench = play(lambda bench: bench.node.revert())
        assert bench.calls == ["extended", "authenticate", "revert", "reset", "hang up"]
        assert bench.events == []

    def test_a_node_that_is_still_starting_is_asked_again(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.fails = {"extended": [UdsTimeout("silent")] * 2}
            await bench.node.revert()
            assert bench.calls.count("extended") == 3
            assert "revert" in bench.calls

        play(scenario)

    @pytest.mark.parametrize("errors", [[UdsTimeout("silent")] * 99, [AccessDenied("no")]])
    def test_one_that_cannot_be_asked_is_left_to_itself_in_bounded_time(self, errors: list[Exception]) -> None:
        async def scenario(bench: Bench) -> None:
            bench.fails = {"extended": errors}
            await bench.node.revert()
            assert "revert" not in bench.calls
            assert isinstance(bench.events[-1], Noted)
            assert now() < 4.0

        play(scenario)


def test_end_of_a_session_that_cannot_be_ended_is_only_told() -> None:
    async def scenario(bench: Bench) -> None:
        bench.fails = {"default": [UdsTimeout("silent")]}
        await bench.node.end_session()
        assert bench.calls == ["default", "hang up"]
        assert isinstance(bench.events[-1], Noted)

    play(scenario)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (HvPermitRevoked("lost"), True),
        (UdsTimeout("lost"), True),
        (UdsNegativeResponse("no", nrc=Nrc.CONDITIONS_NOT_CORRECT), True),
        (UdsNegativeResponse("no", nrc=Nrc.REQUEST_OUT_OF_RANGE), False),
        (UdsNegativeResponse("no", nrc=Nrc.GENERAL_PROGRAMMING_FAILURE), False),
        (AccessDenied("no"), False),
        (WrongTarget("no"), False),
    ],
)
def test_what_is_worth_another_try(error: HvPermitRevoked, again: bool) -> None:
    assert play(_nothing).node.may_try_again(error) is again


async def _nothing(_bench: Bench) -> None: ...


def test_the_record_of_a_node_that_was_sent_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        bench.hears(new=False)
        bench.node.complete_record()

    record = play(scenario).node.record
    assert (record.runs, record.bytes_sent, record.wire_efficiency) == (replace(OLD, build=0), 0, None)


def test_a_node_on_trial_is_not_programmed_over_its_only_confirmed_image() -> None:
    async def scenario(bench: Bench) -> None:
        bench.hears(ImageState.TRIAL)
        with pytest.raises(TrialBootFailed, match="bmu1 runs an image on trial"):
            await bench.node.program()

    assert play(scenario).calls == ["identify"]


@pytest.mark.parametrize("hung_up", [False, True])
def test_an_image_is_verified_again_before_it_is_activated_only_if_the_session_was_lost(hung_up: bool) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.node.program()
        if hung_up:
            await bench.node.hang_up()
            bench.answer = replace(bench.answer, resume_state=ResumeState(SIZE, IMAGE.sha256))
        bench.calls.clear()
        await bench.node.activate_on_trial()

    assert play(scenario).calls == [*((*START, "verify") if hung_up else ()), "activate"]


class TestMayBeOnTrial:
    """As far as can be told without asking."""

    def seen(self, *, activated: bool, says: ImageState | None, boots: int = 0, old_s: float = 0.0) -> bool:
        found: list[bool] = []

        async def scenario(bench: Bench) -> None:
            bench.node.activated = activated
            if says is not None:
                before = bench.node._boots_before_trial
                info = replace(node_info(says), boot_counter=(before + boots) % BOOT_COUNTER_MODULUS)
                bench.view.nodes[BMU1] = Sample(info, now())
            await pause(old_s)
            found.append(bench.node.may_be_on_trial)

        play(scenario)
        return found[0]

    def test_not_before_it_was_activated(self) -> None:
        assert not self.seen(activated=False, says=None)

    @pytest.mark.parametrize("says", [None, ImageState.TRIAL])
    def test_until_it_says_otherwise(self, says: ImageState | None) -> None:
        assert self.seen(activated=True, says=says, boots=1)

    def test_what_it_said_long_ago_tells_nothing(self) -> None:
        assert self.seen(activated=True, says=ImageState.CONFIRMED, boots=1, old_s=2.0)

    @pytest.mark.parametrize(("boots", "may_be"), [(0, True), (1, False)])
    def test_one_that_did_not_boot_since_may_do_so_yet(self, boots: int, may_be: bool) -> None:
        assert self.seen(activated=True, says=ImageState.CONFIRMED, boots=boots) is may_be
