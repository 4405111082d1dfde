"""A node's flash and bootloader under arbitrary orders, power losses and resets."""

from __future__ import annotations

import zlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import ImageId
from ess_can.sim.flash import FlashError
from ess_can.sim.power_cut import CutMode
from ess_can.uds.target import Nrc, Operation
from tests.unit.sim.memory_rig import GEOMETRY, Rig, make_image, verify

GOOD = [make_image(f"{n}.0.0", n, size=size) for n, size in ((1, 150), (2, 192), (3, 64), (4, 97))]
FORGED = make_image("9.0.0", 9)[:-1] + b"\0"
COUNTERS = {str(verify(image).version): verify(image).security_counter for image in GOOD}
TRIES = 2


class NodeMemoryMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16))
    def provision(self, seed: int) -> None:
        self.rig = Rig(GOOD[0], seed=seed, trial_boots=TRIES)
        self.pending: Operation | None = None
        self.image = GOOD[0]
        self.sent = 0
        self.confirmed = "1.0.0"
        self.perhaps_confirmed = ""
        self.counter = 1
        self.unconfirmed_boots = 0
        self.running = self.rig.flash.export_bank(0)

    # --- what a tester may ask in any order -----------------------------------------------------

    def take(self, answer: Operation | Nrc) -> bool:
        self.pending = answer if isinstance(answer, Operation) else None
        return self.pending is not None

    @rule(image=st.sampled_from([*GOOD, FORGED]))
    def erase(self, image: bytes) -> None:
        if self.take(self.rig.memory.erase(len(image), ImageId.of(image).sha256, self.rig.now)):
            self.image = image

    @rule()
    def begin_download(self) -> None:
        offset = self.rig.memory.resume_state().verified_offset
        if not isinstance(self.rig.memory.begin_download(offset, len(self.image) - offset, self.rig.now), Nrc):
            self.sent = offset

    @rule(size=st.integers(1, 50))
    def write(self, size: int) -> None:
        block = self.image[self.sent : self.sent + size] or b"too much"
        if self.take(self.rig.memory.write(block, self.rig.now)):
            self.sent += len(block)

    @rule()
    def end_download(self) -> None:
        self.take(self.rig.memory.end_download(self.rig.now))

    @rule(right=st.booleans())
    def verify(self, right: bool) -> None:
        self.take(self.rig.memory.verify(zlib.crc32(self.image) ^ (not right), self.rig.now))

    @rule()
    def activate(self) -> None:
        if self.rig.memory.activate_on_trial(self.rig.now) is None:
            assert self.image in GOOD
            self.unconfirmed_boots = 0

    @rule()
    def confirm(self) -> None:
        if self.rig.memory.confirm(self.rig.now) is None:
            if self.rig.power.powered:
                self.confirmed = self.rig.version
            else:  # it may have been done, but nobody was told
                self.perhaps_confirmed = self.rig.version

    @rule()
    def revert(self) -> None:
        self.rig.memory.revert(self.rig.now)

    @rule()
    def abort(self) -> None:
        self.rig.memory.abort_download(self.rig.now)

    @rule(seconds=st.sampled_from([0.00005, 0.0002, 0.7, 4.0]))
    def wait(self, seconds: float) -> None:
        self.rig.now += seconds
        self.rig.memory.settle(self.rig.now)

    @precondition(lambda self: self.pending is not None)
    @rule()
    def finish(self) -> None:
        operation, self.pending = self.pending, None
        if operation is not None:  # when it is due, or later if nobody looked before
            self.rig.now = max(self.rig.now, operation.done_at)
            operation.finish(self.rig.now)

    @rule(image=st.sampled_from(GOOD), last=st.sampled_from(["put", "verify", "activate", "boot"]))
    def proceed(self, image: bytes, last: str) -> None:
        """A gateway that does it right as far as `last`, so that the deep states are reached often."""
        rig = self.rig
        self.power_cycle()
        if rig.standing is ImageState.TRIAL or verify(image).security_counter < self.counter:
            return
        if verify(image).version < rig.memory.version:
            return
        rig.put(image)
        self.image = image
        if last == "put":
            return
        rig.verify(image)
        if last == "verify":
            return
        self.activate()
        if last == "boot":
            self.power_cycle()
            assert (rig.standing, rig.memory.version) == (ImageState.TRIAL, verify(image).version)

    # --- what may happen to it --------------------------------------------------------------------

    @rule(at=st.integers(0, 200), mode=st.sampled_from(CutMode))
    def arm_power_cut(self, at: int, mode: CutMode) -> None:
        """Power will fail in one of the next operations, whatever they are."""
        self.rig.power.arm(at, mode)

    @rule()
    def power_cycle(self) -> None:
        self.pending = None
        self.rig.power_cycle()
        rig = self.rig
        if rig.standing is ImageState.TRIAL:
            self.unconfirmed_boots += 1
            assert self.unconfirmed_boots <= TRIES
        else:
            assert rig.version in (self.confirmed, self.perhaps_confirmed)
            self.confirmed = rig.version
            self.perhaps_confirmed = ""
        self.running = rig.flash.export_bank(rig.memory.running.bank)

    @rule(offset=st.integers(0, GEOMETRY.bank_size - 16))
    def nobody_writes_the_running_bank(self, offset: int) -> None:
        bank, now = self.rig.memory.running.bank, self.rig.now
        refusals = (FlashError.RUNNING_BANK, FlashError.NO_POWER)
        assert self.rig.flash.start_erase(bank, offset // GEOMETRY.sector_size, now) in refusals
        assert self.rig.flash.start_program(bank, offset // 16 * 16, bytes(16), now) in refusals

    # --- always -------------------------------------------------------------------------------------

    @invariant()
    def some_allowed_image_boots(self) -> None:
        standing, version = self.rig.would_boot()
        assert standing is not ImageState.RECOVERY
        assert version in COUNTERS
        if standing is ImageState.CONFIRMED and self.rig.power.powered:
            assert version == self.confirmed

    @invariant()
    def the_running_bank_is_as_it_was_booted(self) -> None:
        assert self.rig.flash.export_bank(self.rig.memory.running.bank) == self.running

    @invariant()
    def the_security_counter_is_the_confirmed_images(self) -> None:
        counter = self.rig.bootloader.record.security_counter
        assert counter >= self.counter
        if self.rig.power.powered:
            assert counter == COUNTERS[self.confirmed]
        self.counter = counter


NodeMemoryMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestNodeMemory = NodeMemoryMachine.TestCase
