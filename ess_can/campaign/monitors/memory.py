"""Flash, boot records and boots of one node: invariants 4 to 9 and 17.

What is in the banks is read and verified here, beside the node, by content: a node that verifies nothing is found out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.errors import EssCanError
from ess_can.image.node_image import NodeImage
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import BootRecord, ImageId
from ess_can.sim.bootloader import BootDecision, Verify, decide
from ess_can.sim.flash import FlashError, FlashOperation
from ess_can.sim.flash_cells import BANKS, UnitState
from ess_can.sim.node import SimulatedNode

TRIAL_BOOTS = 1
"""How often an image that is not confirmed may boot, whatever its record says."""


class Verified:
    """Verdicts on images by their content: each content is verified once, whoever holds it."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify
        self._facts: dict[bytes, NodeImage | None] = {}

    def facts(self, content: bytes, sha256: bytes) -> NodeImage | None:
        """The facts of an image with this hash; None if it does not verify."""
        if sha256 not in self._facts:
            try:
                self._facts[sha256] = self._verify(content)
            except EssCanError:
                self._facts[sha256] = None
        return self._facts[sha256]

    def known(self, image: ImageId | None) -> NodeImage | None:
        """The facts of an image that was seen somewhere before."""
        return None if image is None else self._facts.get(image.sha256)


class MemoryMonitor:
    """Watches one node.  `trial` says whether an image on trial runs or may boot; `record` is the selection as stored.

    `on_selection` is called with the time and the record before and after each change of the boot selection.
    """

    def __init__(self, node: SimulatedNode, verified: Verified, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.node = node
        self.name = str(node.address)
        self.record: BootRecord | None = node.records.boot.load()
        self.running: BootDecision | None = node.memory.running if node.running else None
        self.on_selection: list[Callable[[float, BootRecord, BootRecord], None]] = []
        self.operations = 0
        self._ledger = ledger
        self._verified = verified
        self._clock = clock
        self._geometry = node.flash.geometry
        self._generation = [0] * BANKS
        self._checked: dict[tuple[int, ImageId], tuple[int, NodeImage | None]] = {}
        self._read_back = [0] * BANKS
        self._read_before_torn: tuple[int, ...] | None = None
        self._damaged = False
        self._cells_damaged = False
        self._confirmed_damaged = False
        self._rotted = [False] * BANKS  # since its content was last changed by the node
        self._trial_boots = 0
        self._tries_given = self.record.tries_left if self.record else 0
        self._given_to: ImageId | None = self.record.trial if self.record else None
        self._boot_slot_size = (node.records.boot.end) // 2
        node.flash.on_start.append(self._on_start)
        node.flash.on_refuse.append(self._on_refuse)
        node.records.fram.on_write.append(self._on_write)
        node.bootloader.on_boot.append(self._on_boot)
        for bank, cells in enumerate(node.flash.cells.banks):
            cells.on_change.append(self._change_observer(bank))
            cells.on_read.append(self._read_observer(bank))
        self._require_bootable("at the start")

    @property
    def trial(self) -> bool:
        """Whether an image on trial runs, or would boot."""
        record, running = self.record, self.running
        if record is not None and record.trial is not None:
            return True
        return running is not None and self.node.running and self.node.memory.standing is ImageState.TRIAL

    def _broken(self, invariant: Invariant, text: str) -> None:
        self._ledger.broken(self._clock(), invariant, f"{self.name}: {text}")

    # --- content --------------------------------------------------------------------------------

    def _content(self, bank: int, image: ImageId) -> bytes | None:
        """The bytes of an image as a good part would read them; None if they cannot be read."""
        geometry, cells = self._geometry, self.node.flash.cells.banks[bank]
        if image.size > geometry.slot_size:
            return None
        start, unit = geometry.slot_offset, geometry.unit_size
        end = start + image.size
        if max(cells.states[start // unit : -(-end // unit)]) >= UnitState.UNSTABLE:
            return None
        return bytes(cells.content[start:end])

    def facts(self, bank: int, image: ImageId) -> NodeImage | None:
        """The facts of the image if the bank holds it and it verifies, else None."""
        known = self._checked.get((bank, image))
        generation = self._generation[bank]
        if known is not None and known[0] == generation:
            return known[1]
        content = self._content(bank, image)
        found = None
        if content is not None and hashlib.sha256(content).digest() == image.sha256:
            found = self._verified.facts(content, image.sha256)
        if len(self._checked) > 8:
            self._checked.clear()
        self._checked[bank, image] = generation, found
        return found

    # --- 4: something boots -----------------------------------------------------------------------

    def _bootable(self) -> bool:
        return decide(self.record, self.facts).standing is not ImageState.RECOVERY

    def _confirmed_verifies(self) -> bool:
        """Whether the image that was confirmed last is still in its bank."""
        record = self.record
        image = None if record is None else record.confirmed[record.active_bank]
        return record is None or image is None or self.facts(record.active_bank, image) is not None

    def _require_bootable(self, when: str) -> None:
        if self._confirmed_damaged:  # until another image is confirmed
            self._confirmed_damaged = not self._confirmed_verifies()
        if self._bootable():
            self._damaged = False
        elif not (self._damaged or self._confirmed_damaged):
            self._broken(Invariant.BOOTABLE, f"no image would boot {when}")

    def _change_observer(self, bank: int) -> Callable[[bool], None]:
        def on_change(from_outside: bool) -> None:
            self._generation[bank] += 1
            if from_outside:
                self._cells_damaged = self._rotted[bank] = True
                self._confirmed_damaged |= not self._confirmed_verifies()
                if not self._damaged and not self._bootable():
                    self._damaged = True
                    self._ledger.note(self._clock(), f"{self.name}: damage from outside left no image that would boot")
                return
            self._read_back[bank] = 0
            self._rotted[bank] = False
            record = self.record
            if record is None or bank == record.active_bank or record.trial is not None:
                self._require_bootable("after a flash operation")
                self._require_running_whole(bank)

        return on_change

    # --- 5: the running bank ----------------------------------------------------------------------

    def _on_start(self, operation: FlashOperation) -> None:
        self.operations += 1
        if self.running is not None and operation.bank == self.running.bank:
            self._broken(Invariant.RUNNING_BANK, f"{operation.action.name} in the running bank")

    def _on_refuse(self, error: FlashError) -> None:
        if error is FlashError.NOT_ERASED and self._cells_damaged:
            self._ledger.note(self._clock(), f"{self.name}: a unit damaged from outside did not take its data")
        elif error is not FlashError.NO_POWER:
            self._broken(Invariant.RUNNING_BANK, f"the flash refused an operation: {error.value}")

    def _require_running_whole(self, bank: int) -> None:
        running = self.running
        if running is None or running.bank != bank or running.facts is None or self._damaged:
            return
        image = self._executed(running)
        if image is not None and self.facts(bank, image) is None:
            self._broken(Invariant.RUNNING_BANK, "the image that runs was changed")

    # --- 6 and 8: what boots ------------------------------------------------------------------------

    @staticmethod
    def _executed(decision: BootDecision) -> ImageId | None:
        """What the record says that this boot executes."""
        if decision.standing is ImageState.TRIAL:
            return decision.record.trial
        return decision.record.confirmed[decision.bank]

    def _on_boot(self, decision: BootDecision) -> None:
        self.running = decision
        if decision.standing is ImageState.RECOVERY:
            if not self._damaged:
                self._broken(Invariant.BOOTABLE, f"it starts in recovery: {decision.reason.value}")
            return
        image = self._executed(decision)
        self._generation[decision.bank] += 1  # what is executed is hashed anew, each time
        facts = None if image is None else self.facts(decision.bank, image)
        if facts is None:
            self._broken(Invariant.SIGNED, "it boots bytes that do not verify")
        elif facts.security_counter < decision.record.security_counter:
            self._broken(Invariant.SIGNED, "it boots an image that its security counter forbids")
        if image not in decision.record.confirmed:
            self._trial_boots += 1
            if self._trial_boots > min(self._tries_given, TRIAL_BOOTS):
                self._broken(Invariant.TRIAL_BOOTS, f"boot {self._trial_boots} of an image that is not confirmed")

    # --- 7, 9 and 17: the boot record -----------------------------------------------------------------

    def _read_observer(self, bank: int) -> Callable[[int, int], None]:
        slot = self._geometry.slot_offset

        def on_read(offset: int, length: int) -> None:
            if offset == slot:
                self._read_back[bank] = max(self._read_back[bank], length)

        return on_read

    def _on_write(self, address: int, length: int) -> None:
        records = self.node.records
        if address >= records.boot.end:
            return
        size = self._boot_slot_size
        if address not in (0, size) or length != size:
            self._broken(Invariant.ATOMIC_SELECTION, f"{length} bytes at {address} are not one whole boot record")
        if any(at < records.boot.end for at in records.fram.unstable):
            # torn, and nobody knows what it says: the node decides at its next look, and writes that down
            self._read_before_torn = self._read_before_torn or tuple(self._read_back)
            return
        if self._read_before_torn is not None:
            self._read_back, self._read_before_torn = list(self._read_before_torn), None
        before, after = self.record, records.boot.load()
        self.record = after
        if after is None:
            if before is not None:
                self._broken(Invariant.ATOMIC_SELECTION, "no boot record is valid any more")
                self._require_bootable("after a write to the boot record")
            return
        if before is not None and before != after:
            self._judge_selection(before, after)
            for tell in self.on_selection:
                tell(self._clock(), before, after)
        self._judge_counter(before, after)
        self._require_bootable("after a write to the boot record")

    def _judge_selection(self, before: BootRecord, after: BootRecord) -> None:
        given = after.trial is not None and (after.trial != before.trial or after.tries_left > before.tries_left)
        if given and after.trial is not None:
            self._judge_activation(before, after, after.trial)
        for bank in range(BANKS):
            image = after.confirmed[bank]
            if image is not None and image != before.confirmed[bank]:
                if image != before.trial or before.trial_bank != bank:
                    self._broken(Invariant.ATOMIC_SELECTION, "an image was confirmed that was not on trial")
                elif image == before.confirmed[before.active_bank]:
                    self._broken(Invariant.ONCE, "an image was confirmed a second time")
        moved = after.active_bank != before.active_bank
        if moved and after.confirmed[after.active_bank] is None:
            self._broken(Invariant.ATOMIC_SELECTION, "the bank that boots holds no confirmed image")
        if after.trial is None:
            self._given_to = None

    def _judge_activation(self, before: BootRecord, after: BootRecord, image: ImageId) -> None:
        bank = after.trial_bank
        if self.facts(bank, image) is None and not self._rotted[bank]:  # between read-back and activation: boot sees it
            self._broken(Invariant.ATOMIC_SELECTION, "the image put on trial is not what the bank holds, or not signed")
        elif self._read_back[bank] < image.size:
            self._broken(Invariant.ATOMIC_SELECTION, "the image put on trial was not read back to its end")
        if before.trial == image and self._given_to == image:
            self._broken(Invariant.ONCE, "a trial was given its tries again")
        self._given_to = image
        self._tries_given = after.tries_left
        self._trial_boots = 0

    def _judge_counter(self, before: BootRecord | None, after: BootRecord) -> None:
        if before is not None and after.security_counter < before.security_counter:
            self._broken(
                Invariant.ROLLBACK_COUNTER,
                f"the security counter fell from {before.security_counter} to {after.security_counter}",
            )
        if before is not None and after.security_counter == before.security_counter:
            return
        image = after.confirmed[after.active_bank]
        facts = None if image is None else self.facts(after.active_bank, image) or self._verified.known(image)
        if facts is None or after.security_counter > facts.security_counter:
            allowed = "none" if facts is None else str(facts.security_counter)
            self._broken(
                Invariant.ROLLBACK_COUNTER,
                f"the security counter is {after.security_counter}, the confirmed image's {allowed}",
            )

    def finish(self, now: float) -> None:
        """At the end: flash work that is due takes effect, and something runs or would."""
        if self.node.running:
            self.node.memory.settle(now)
        self._require_bootable("at the end")
