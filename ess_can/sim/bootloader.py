"""Which image a node boots, and the only four ways in which that changes: boot, trial, confirm, revert.

Each is one atomic record.  An image boots only if the bytes in its slot are those that the record names by length and
SHA-256, if their signature verifies, and if their security counter is not below the node's: what is hashed here is what
runs.  An image that was never confirmed boots only on trial, and only as often as it was given tries; the try is taken
before the image runs, so that power loss in between counts as a try and never adds one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from ess_can.errors import EssCanError
from ess_can.image.node_image import NodeImage
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import BootRecord, ImageId, NodeRecords
from ess_can.sim.flash import Flash, FlashError
from ess_can.sim.flash_cells import BANKS

Verify = Callable[[bytes], NodeImage]
"""Checks an image's hash and signature and gives its facts; raises an EssCanError if they do not hold.

In a node: `ess_can.trust.verify.verify_node_image(image, keyring).facts`.
"""


class BootReason(Enum):
    """Why this image was chosen."""

    CONFIRMED = "the confirmed image"
    TRIAL = "the image on trial"
    TRIES_USED = "the confirmed image: the one on trial was not confirmed"
    TRIAL_REFUSED = "the confirmed image: the one on trial did not verify"
    FALLBACK = "the other bank's image: the confirmed one did not verify"
    NOTHING_BOOTABLE = "no image verifies"
    NO_RECORD = "no boot record is valid"


@dataclass(frozen=True, slots=True)
class BootDecision:
    """What runs after power-up: the bank, its image's standing and facts (None in recovery), and why.

    `record` is the boot record as the decision leaves it.  In recovery the bootloader itself runs, from `bank`.
    """

    bank: int
    standing: ImageState
    facts: NodeImage | None
    reason: BootReason
    record: BootRecord


Check = Callable[[int, ImageId], NodeImage | None]
"""Facts of the image in a bank if it is that very image and verifies, else None."""


def decide(record: BootRecord | None, check: Check) -> BootDecision:
    """Choose what to boot.  Pure: the caller stores the decision's record before it jumps."""
    if record is None:
        return BootDecision(0, ImageState.RECOVERY, None, BootReason.NO_RECORD, BootRecord(boot_counter=1))
    current = replace(record, boot_counter=record.boot_counter + 1)

    def allowed(bank: int, image: ImageId | None) -> NodeImage | None:
        facts = check(bank, image) if image else None
        return facts if facts and facts.security_counter >= record.security_counter else None

    reason = BootReason.CONFIRMED
    if current.trial is not None:
        reason = BootReason.TRIES_USED
        if current.tries_left > 0:
            if facts := allowed(current.trial_bank, current.trial):
                taken = replace(current, tries_left=current.tries_left - 1)
                return BootDecision(current.trial_bank, ImageState.TRIAL, facts, BootReason.TRIAL, taken)
            reason = BootReason.TRIAL_REFUSED
        current = replace(current, trial=None, tries_left=0)
    for bank in (current.active_bank, 1 - current.active_bank):
        if facts := allowed(bank, current.confirmed[bank]):
            if bank != current.active_bank:
                reason = BootReason.FALLBACK
            return BootDecision(bank, ImageState.CONFIRMED, facts, reason, replace(current, active_bank=bank))
    return BootDecision(current.active_bank, ImageState.RECOVERY, None, BootReason.NOTHING_BOOTABLE, current)


class Bootloader:
    """Boots a node out of its flash and records, and changes its boot selection while it runs.

    Whoever watches is in `on_boot`, called with each decision as it is carried out.
    """

    def __init__(self, flash: Flash, records: NodeRecords, verify: Verify) -> None:
        self.flash = flash
        self.records = records
        self.verify = verify
        self.on_boot: list[Callable[[BootDecision], None]] = []

    @property
    def record(self) -> BootRecord:
        """The boot selection as stored now."""
        return self.records.boot.load() or BootRecord()

    def power_up(self) -> BootDecision:
        """Decide, record the decision, and run: from now on the flash refuses to change the running bank."""
        self.records.resume.recover()
        decision = decide(self.records.boot.recover(), self._check)
        self.records.boot.store(decision.record)
        self.flash.running_bank = decision.bank
        for tell in self.on_boot if self.flash.power.powered else ():  # else it never came to run
            tell(decision)
        return decision

    def activate_on_trial(self, image: ImageId, tries: int) -> None:
        """Have the next `tries` boots run this image of the inactive bank, unless it is confirmed meanwhile."""
        self.records.boot.store(replace(self.record, trial=image, tries_left=tries))

    def confirm(self, running: BootDecision) -> bool:
        """Make the running image on trial permanent and raise the security counter to its; false if it cannot be."""
        record = self.record
        if running.facts is None or record.trial is None or record.trial_bank != running.bank:
            return False
        first, second = record.confirmed
        confirmed = (first, record.trial) if running.bank else (record.trial, second)
        counter = max(record.security_counter, running.facts.security_counter)
        self.records.boot.store(
            replace(
                record,
                active_bank=running.bank,
                confirmed=confirmed,
                trial=None,
                tries_left=0,
                security_counter=counter,
            )
        )
        return True

    def revert(self) -> None:
        """Give up whatever is on trial, booted or not: the next boot runs the confirmed image."""
        self.records.boot.store(replace(self.record, trial=None, tries_left=0))

    def _check(self, bank: int, image: ImageId) -> NodeImage | None:
        geometry = self.flash.geometry
        if image.size > geometry.slot_size:
            return None
        content = self.flash.read(bank, geometry.slot_offset, image.size)
        if isinstance(content, FlashError) or ImageId.of(content) != image:
            return None
        try:
            return self.verify(content)
        except EssCanError:
            return None


def provision(flash: Flash, records: NodeRecords, image: bytes, verify: Verify, bank: int = 0) -> None:
    """Fill a new node on the production line: a confirmed image in `bank`, and the record that boots it.

    Raises EssCanError if the image does not verify, ValueError if it does not fit.
    """
    if bank not in range(BANKS) or len(image) > flash.geometry.slot_size:
        raise ValueError(f"an image of {len(image)} bytes does not fit into a slot of bank {bank}")
    facts = verify(image)
    flash.factory_program(bank, flash.geometry.slot_offset, image)
    identity = ImageId.of(image)
    confirmed = (None, identity) if bank else (identity, None)
    records.boot.store(BootRecord(bank, confirmed, security_counter=facts.security_counter))
