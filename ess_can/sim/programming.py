"""The memory side of a node's programming session: the image goes into the bank that does not run.

Announcing an image only gives up what was there.  From the download on, sectors are erased ahead of the data, which
comes into RAM meanwhile: a block is answered as soon as there is room for another one.

Implements what `ess_can.uds.target.ProgrammingTarget` asks of a node's memory; the node adds identity, the
high-voltage gate and reset.  Nothing here runs by itself: flash work that is due by `now` takes effect when the next
method is called with that `now`, in the order and at the times at which the hardware would have done it.

An object lives from one boot to the next: `ProgrammingMemory` is made at power-up, and `power_off` ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ess_can.identity import NodeType, Version
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import ImageId, NodeRecords, ResumeRecord
from ess_can.sim.bootloader import Bootloader
from ess_can.sim.flash import FlashError
from ess_can.sim.flash_queue import FlashQueue, ProgramStep, Step
from ess_can.sim.image_verdict import FailureReason, MemoryFailure, judge
from ess_can.sim.parts import FlashPart
from ess_can.trust.compatibility import MAX_COUNTER_STEP, NodeFacts
from ess_can.uds.target import BootState, Did, FlashProfile, Nrc, Operation, ResumeState

_ERASED = b"\xff"
_ANY_STEP = 0xFFFF_FFFF
_NOTHING_TO_RESUME = ResumeState(0, bytes(32))
_STEP_BYTES = 2048
"""Programmed in one go.  After each step there may be an erase, a given-up download ends, room in the buffer shows."""


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """What a node's programming software is built with.

    `node_type` and `hardware_id` are those that an image must be for.  `part` says how much is received at once and
    kept in RAM, and how fast flash is read and hashed.  `trial_boots` is how often an unconfirmed image may boot,
    1..255.
    """

    node_type: NodeType
    hardware_id: int
    part: FlashPart
    trial_boots: int = 1


@dataclass(slots=True)
class _Download:
    """An open download.

    `received` counts image bytes from its start, `carry` holds those of them that are not a whole unit yet, and from
    `room_at` on there is room for another block.
    """

    image: ImageId
    received: int
    carry: bytes = b""
    room_at: float = 0.0


class ProgrammingMemory:
    """Boots the node, then programs its inactive bank.

    `running` is what was booted and `last_failure` the latest failure since.  Every method takes the loop time in
    seconds and never raises; see `ProgrammingTarget` for those that it names.  `may_begin` is asked before each flash
    operation whether high voltage is still off; when it says no, the download is given up.
    """

    def __init__(
        self, bootloader: Bootloader, config: MemoryConfig, may_begin: Callable[[float], bool] = lambda _now: True
    ) -> None:
        self.config = config
        self.last_failure: MemoryFailure | None = None
        self.running = bootloader.power_up()
        self.inactive_bank = 1 - self.running.bank
        self._bootloader = bootloader
        self._flash = bootloader.flash
        self._records: NodeRecords = bootloader.records
        self._queue = FlashQueue(
            self._flash, self.inactive_bank, self._step_done, may_begin=may_begin, on_stopped=self._given_up
        )
        self._download: _Download | None = None
        self._awaited: Operation | None = None
        self._verified: ImageId | None = None
        self._crc32 = 0
        self._confirmed_now = False

    # --- state --------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Let all flash work take effect that is done by `now`."""
        self._queue.advance(now)

    def power_off(self, now: float) -> None:
        """Power is lost, or the node resets: flash work under way is torn.  The object is dead after this."""
        self._queue.advance(now)
        self._flash.power_loss(now)

    @property
    def standing(self) -> ImageState:
        """How the running image stands now: CONFIRMED as soon as a trial is confirmed."""
        return ImageState.CONFIRMED if self._confirmed_now else self.running.standing

    @property
    def armed(self) -> bool:
        """Whether the next boot runs the other bank's image, on trial."""
        record = self._bootloader.record
        return record.trial is not None and record.trial_bank != self.running.bank

    @property
    def version(self) -> Version:
        """The running image's version, 0.0.0 in recovery."""
        return self.running.facts.version if self.running.facts else Version(0, 0, 0)

    @property
    def security_counter(self) -> int:
        """The node's anti-rollback counter."""
        return self._bootloader.record.security_counter

    def read_identifier(self, did: int, now: float) -> bytes | None:
        """BOOT_STATE, RESUME_STATE, SECURITY_COUNTER or FLASH_PROFILE; None for every other identifier."""
        self._queue.advance(now)
        if did == Did.BOOT_STATE:
            boots = self.running.record.boot_counter
            return BootState(self.running.bank, self.standing, boots, self.version, self.armed).pack()
        if did == Did.RESUME_STATE:
            return self.resume_state().pack()
        if did == Did.SECURITY_COUNTER:
            return self.security_counter.to_bytes(4, "big")
        if did == Did.FLASH_PROFILE:
            return self.flash_profile.pack()
        return None

    @property
    def flash_profile(self) -> FlashProfile:
        """How fast this flash is, and how much RAM there is beside it."""
        geometry, timing = self._flash.geometry, self._flash.timing
        return FlashProfile(
            geometry.sector_size,
            timing.sector_erase_s,
            timing.unit_program_s / geometry.unit_size,
            self.config.part.buffer_bytes,
            self.config.part.hash_bytes_per_s,
            self.config.part.block_bytes,
            len(self._dirty_sectors(geometry.slot_offset)) * geometry.sector_size,
        )

    def resume_state(self) -> ResumeState:
        """From which image offset on a download of which image may go on.

        It is the verified offset, unless power loss left units behind it that are not blank: then it is the start of
        their sector, which will be erased.
        """
        record = self._resume_record()
        return ResumeState(self._resume_offset(record), record.image.sha256) if record else _NOTHING_TO_RESUME

    # --- erase and download -------------------------------------------------------------------

    def erase(self, size: int, image_sha256: bytes, now: float) -> Operation | Nrc:
        """Announce this image: what the inactive slot holds is given up, and will be erased as the download goes on.

        Done at once.  Refused while the inactive bank holds the only confirmed image, that is while a trial runs.
        """
        self._queue.advance(now)
        if self._download is not None:
            return Nrc.REQUEST_SEQUENCE_ERROR
        if not self._queue.idle:
            return Nrc.BUSY_REPEAT_REQUEST
        if not 0 < size <= self._flash.geometry.slot_size or len(image_sha256) != 32:
            return Nrc.REQUEST_OUT_OF_RANGE
        if self._holds_only_confirmed:
            return Nrc.CONDITIONS_NOT_CORRECT
        self._begin_change()
        self._bootloader.revert()  # first: an activation must not outlast what it activates
        self._records.resume.store(ResumeRecord(self.inactive_bank, ImageId(size, image_sha256)))
        return Operation(now, lambda _at: None)

    def begin_download(self, address: int, size: int, now: float) -> int | Nrc:
        """Accept the rest of the announced image, from exactly where it may go on, to its end.  Erasing begins."""
        self._queue.advance(now)
        record = self._resume_record()
        if self._download is not None or record is None or self._holds_only_confirmed:
            return Nrc.CONDITIONS_NOT_CORRECT
        if not self._queue.idle:
            return Nrc.BUSY_REPEAT_REQUEST
        offset = self._resume_offset(record)
        if address != offset or size <= 0 or address + size != record.image.size:
            return Nrc.REQUEST_OUT_OF_RANGE
        self._begin_change()
        self._records.resume.store(replace(record, verified_offset=offset))
        self._download = _Download(record.image, offset)
        self._queue.erase(self._dirty_sectors(self._flash.geometry.slot_offset + offset), now)
        return self.config.part.block_bytes

    def write(self, data: bytes, now: float) -> Operation | Nrc:
        """Take a block.  Done when there is room for another one, or for what is left of the image.

        An error in erasing or programming shows as soon as a block, or the end, is answered after it.
        """
        self._queue.advance(now)
        download = self._download
        if download is None:
            return Nrc.REQUEST_SEQUENCE_ERROR
        if error := self._flash_failure():
            return error
        if now < download.room_at:
            return Nrc.BUSY_REPEAT_REQUEST
        if not 0 < len(data) <= self.config.part.block_bytes:
            return Nrc.REQUEST_OUT_OF_RANGE
        if download.received + len(data) > download.image.size:
            return Nrc.TRANSFER_DATA_SUSPENDED
        self._queue.program(self._program_steps(download, data), now)
        room = min(self.config.part.block_bytes, download.image.size - download.received)
        limit = self.config.part.buffer_bytes - room - len(download.carry)
        download.room_at = self._queue.held_at_most(limit, now)
        return self._await(download, download.room_at)

    def end_download(self, now: float) -> Operation | Nrc:
        """Refused until every announced byte was given.  Done when they are in a slot that is blank behind them."""
        self._queue.advance(now)
        download = self._download
        if download is None or download.received != download.image.size:
            return Nrc.REQUEST_SEQUENCE_ERROR
        return self._await(download, self._queue.done_at(now), last=True)

    def abort_download(self, now: float) -> None:
        """The session ended, or high voltage came on: what is under way ends, and what waits behind it is dropped.

        An answer that is awaited comes when what is under way has ended.
        """
        self._queue.advance(now)
        self._queue.drop_waiting()
        self._download = None
        if self._awaited is not None:
            self._awaited.done_at = min(self._awaited.done_at, self._queue.free_at(now))

    def _given_up(self) -> None:
        self._download = None

    def is_working(self, now: float) -> bool:
        """Whether flash work is under way or waits."""
        self._queue.advance(now)
        return not self._queue.idle

    # --- verify and boot selection ------------------------------------------------------------

    def verify(self, crc32: int, now: float) -> Operation | Nrc:
        """Read the whole image back and judge it; takes the time to read and hash it."""
        self._queue.advance(now)
        record = self._resume_record()
        complete = record is not None and record.verified_offset == record.image.size
        if record is None or not complete or self._download is not None or not self._queue.idle:
            return Nrc.REQUEST_SEQUENCE_ERROR
        self._verified = None
        image = record.image

        def finish(_at: float) -> Nrc | None:
            self.last_failure = self._judge(image, crc32)
            if self.last_failure is not None:
                if self.last_failure.reason is FailureReason.SLOT_NOT_CLEAN or not self._holds(image):
                    # Resuming what is not that image would fail for ever.
                    self._records.resume.store(replace(record, resumable=False, verified_offset=0))
                return self.last_failure.nrc
            self._verified, self._crc32 = image, crc32
            return None

        return Operation(now + image.size / self.config.part.hash_bytes_per_s, finish)

    def read_back_crc32(self) -> int:
        """CRC-32 of the last successful `verify`, 0 before."""
        return self._crc32

    def activate_on_trial(self, now: float) -> Nrc | None:
        """Have the next boot run the image that was verified since the last write.  May be repeated."""
        self._queue.advance(now)
        if self._verified is None:
            return Nrc.REQUEST_SEQUENCE_ERROR
        self._bootloader.activate_on_trial(self._verified, self.config.trial_boots)
        return None

    def confirm(self, now: float) -> Nrc | None:
        """Make the running trial permanent.  May be repeated until the next reset.

        Refused when nothing is on trial: a node that reverted must not answer as if the new image stood.
        """
        self._queue.advance(now)
        if self._bootloader.confirm(self.running):
            self._confirmed_now = True
            return None
        repeated = self._confirmed_now and self._bootloader.record.trial is None
        return None if repeated else Nrc.CONDITIONS_NOT_CORRECT

    def revert(self, now: float) -> Nrc | None:
        """Give up a trial or an activation; done as well when there is none.  A confirmed image is never given up."""
        self._queue.advance(now)
        self._bootloader.revert()
        return None

    # --- inside -------------------------------------------------------------------------------

    @property
    def _holds_only_confirmed(self) -> bool:
        return self._bootloader.record.active_bank == self.inactive_bank

    def _begin_change(self) -> None:
        """What was verified or failed before does not count for the content to come."""
        self._verified = None
        self._queue.clear_failure()

    def _await(self, download: _Download, done_at: float, *, last: bool = False) -> Operation:
        """An operation of this download that ends when the flash is as far as it will be at `done_at`."""

        def finish(at: float) -> Nrc | None:
            self._awaited = None
            self._queue.advance(max(at, operation.done_at))
            given_up = self._download is not download
            if last:
                self._download = None
            return self._flash_failure() or (Nrc.CONDITIONS_NOT_CORRECT if given_up else None)

        operation = self._awaited = Operation(done_at, finish)
        return operation

    def _resume_record(self) -> ResumeRecord | None:
        """The record of the image that was announced for the inactive bank, if it may be resumed."""
        record = self._records.resume.load()
        return record if record and record.resumable and record.bank == self.inactive_bank else None

    def _resume_offset(self, record: ResumeRecord) -> int:
        geometry = self._flash.geometry
        start = geometry.slot_offset + record.verified_offset
        sector_end = (start // geometry.sector_size + 1) * geometry.sector_size
        complete = record.verified_offset == record.image.size
        if complete or self._flash.is_blank(self.inactive_bank, start, sector_end - start):
            return record.verified_offset
        return sector_end - geometry.sector_size - geometry.slot_offset

    def _dirty_sectors(self, offset: int) -> list[int]:
        """Every sector from the one at bank offset `offset` on that is not blank from there to its end."""
        size, sectors = self._flash.geometry.sector_size, self._flash.geometry.sectors_per_bank
        starts = [offset, *range((offset // size + 1) * size, sectors * size, size)]
        return [at // size for at in starts if not self._flash.is_blank(self.inactive_bank, at, size - at % size)]

    def _program_steps(self, download: _Download, data: bytes) -> list[ProgramStep]:
        """Whole units of what is at hand; the last one of the image is filled up with erased bytes."""
        geometry, slot = self._flash.geometry, self._flash.geometry.slot_offset
        offset = slot + download.received - len(download.carry)
        pending = download.carry + data
        download.received += len(data)
        last = download.received == download.image.size
        whole = len(pending) - (0 if last else len(pending) % geometry.unit_size)
        download.carry = pending[whole:]
        units = pending[:whole] + _ERASED * (-whole % geometry.unit_size)
        longest = max(_STEP_BYTES // geometry.unit_size, 1) * geometry.unit_size
        steps, done = list[ProgramStep](), 0
        while done < whole:
            at = offset + done
            sector_end = (at // geometry.sector_size + 1) * geometry.sector_size
            chunk = units[done : done + min(longest, sector_end - at)]
            done += len(chunk)
            completes = last and done >= whole
            needs = geometry.sectors_per_bank if completes else at // geometry.sector_size + 1
            steps.append(ProgramStep(at, chunk, offset + min(done, whole) - slot, needs))
        return steps

    def _step_done(self, step: Step) -> None:
        record = self._resume_record()
        if isinstance(step, ProgramStep) and record is not None:
            self._records.resume.store(replace(record, verified_offset=step.verified_offset))

    def _judge(self, image: ImageId, crc32: int) -> MemoryFailure | None:
        node = NodeFacts(self.config.node_type, self.config.hardware_id, self.version, self.security_counter)
        # A node whose records are lost counts from 0 again and must still be able to take an image.
        step = _ANY_STEP if self.running.standing is ImageState.RECOVERY else MAX_COUNTER_STEP
        return judge(self._bootloader, self.inactive_bank, image, crc32, node, step)

    def _holds(self, image: ImageId) -> bool:
        content = self._flash.read(self.inactive_bank, self._flash.geometry.slot_offset, image.size)
        return not isinstance(content, FlashError) and ImageId.of(content) == image

    def _flash_failure(self) -> Nrc | None:
        failure = self._queue.failure
        if failure is None:
            return None
        self.last_failure = MemoryFailure(FailureReason.FLASH_WRITE_FAILED, failure.value)
        return self.last_failure.nrc
