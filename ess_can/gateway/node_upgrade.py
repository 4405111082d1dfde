"""The upgrade of one node: identify, announce, transfer, verify; later trial boot and confirm; or back.

Each method does one step of the sequence in docs/protocol.md and may be called again after a fault: what the node has
verified already is not sent twice.
"""

from __future__ import annotations

from math import inf

from ess_can.bus.clock import now, pause, uninterrupted, until
from ess_can.errors import (
    AccessDenied,
    BusError,
    ConfirmFailed,
    EssCanError,
    FlashWriteFailed,
    IsoTpError,
    TrialBootFailed,
    UdsNegativeResponse,
    UdsTimeout,
    VerificationFailed,
    WrongTarget,
)
from ess_can.gateway.node_client import SHORTEST_BLOCK, NodeClient, NodeIdentity
from ess_can.gateway.node_revert import ask_to_revert
from ess_can.gateway.phases import NodeStep
from ess_can.gateway.plan import NodePlan, identify
from ess_can.gateway.policy import FRESH_S
from ess_can.gateway.progress import NodeStepEntered, Transferred
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.station_master import StationMaster
from ess_can.gateway.streamed_image import StreamedImage
from ess_can.gateway.transfer_meter import TransferMeter
from ess_can.identity import Version
from ess_can.journal.entries import Deed
from ess_can.signals.messages import BOOT_COUNTER_MODULUS, ImageState, NodeInfo
from ess_can.uds.exchange import MAX_BLOCK_DATA
from ess_can.uds.target import Nrc, ResumeState

_PROGRESS_STEP_BYTES = 16 * 1024
_FINAL_NRCS = (Nrc.REQUEST_OUT_OF_RANGE, Nrc.GENERAL_PROGRAMMING_FAILURE, Nrc.SERVICE_NOT_SUPPORTED)
"""Negative responses that another try would only meet again."""
_ASK_AGAIN_S = 0.5
_SHORTER_AFTER_LOSSES = 8


class NodeUpgrade:
    """Takes one node from its old image to its new one.

    `runs_since` is when the node said what `see_it_run` waited for.
    """

    def __init__(self, master: StationMaster, plan: NodePlan, log: UpgradeLog) -> None:
        self.address = plan.address
        self.activated = False
        self.confirm_sent = False
        self.runs_since = 0.0
        self.record = plan.record()
        self._master = master
        self._plan = plan
        self._log = log
        self._heard_before_restart: NodeInfo | None = None
        self._boots_before_trial = plan.identity.boot_state.boot_counter
        self._verified = False
        self._longest_block = MAX_BLOCK_DATA
        self._acted_at = inf
        self._trial_boots: int | None = None
        self._confirmed = False
        self._last_transfer: tuple[TransferMeter, int] | None = None

    @property
    def running_version(self) -> Version | None:
        """The version in the last Node_Info; None if that is too long ago to say anything."""
        sample = self._master.view.nodes.get(self.address)
        return None if sample is None or now() - sample.at > FRESH_S else sample.value.version

    @property
    def may_be_on_trial(self) -> bool:
        """Whether it may run, or boot next, an image on trial, by what it was told and what it last said."""
        if not self.activated:
            return False
        sample = self._master.view.nodes.get(self.address)
        if sample is None or now() - sample.at > FRESH_S or sample.value.image_state is not ImageState.CONFIRMED:
            return True
        return (sample.value.boot_counter - self._boots_before_trial) % BOOT_COUNTER_MODULUS == 0

    def _step(self, step: NodeStep, detail: str = "") -> None:
        self._log.tell(NodeStepEntered(now(), self.address, step, detail))

    def may_try_again(self, error: EssCanError) -> bool:
        """Whether the fault may pass."""
        if isinstance(error, UdsNegativeResponse):
            return error.nrc not in _FINAL_NRCS
        return not isinstance(error, AccessDenied | WrongTarget)

    async def hang_up(self) -> None:
        """Drop the diagnostic session on our side."""
        self._verified = False
        await self._master.hang_up(self.address)

    async def end_session(self) -> None:
        """Leave any session now: a rack in a programming session stays open until it ends."""
        try:
            await self._master.client(self.address).enter_default()
        except EssCanError as error:
            self._log.note(f"{self.address}: its session ends by itself ({error})")
        await self.hang_up()

    # --- programming ----------------------------------------------------------------------------

    async def program(self, at_once: int = 1) -> None:
        """Bring the image into the inactive bank and have the node verify what it reads back.

        `at_once` nodes, this one included, are programmed at the same time.  However it ends short of that, the node is
        told to begin nothing more: it erases ahead, and has data that it has not programmed.
        """
        self._step(NodeStep.IDENTIFY)
        identity = await self._identify_again()
        if identity.boot_state.standing == ImageState.TRIAL:
            raise TrialBootFailed(
                f"{self.address} runs an image on trial", why="its other bank holds the only confirmed one"
            )
        self._boots_before_trial = identity.boot_state.boot_counter
        client = await self._unlock()
        try:
            await self._program(client, identity.resume_state, at_once)
        except BaseException:
            await uninterrupted(client.stop_writing())
            raise

    async def _program(self, client: NodeClient, resume: ResumeState, at_once: int) -> None:
        await client.enter_programming()
        await client.authenticate(self._master.access)
        image = self._plan.image
        offset = resume.verified_offset if resume.image_sha256 == image.sha256 else 0
        try:
            await self._write(client, offset, at_once)
        except VerificationFailed as error:
            if offset == 0 or isinstance(error, FlashWriteFailed):
                raise
            self._log.note(f"{self.address}: what it held already was not the image; all is sent again")
            await self._write(client, 0, at_once)

    async def _write(self, client: NodeClient, offset: int, at_once: int) -> None:
        """Announce the image if nothing is to be resumed, transfer from `offset` on, verify."""
        image = self._plan.image
        if offset == 0:
            self._step(NodeStep.ANNOUNCE)
            async with self._log.doing(Deed.ANNOUNCE, self.address, f"{image.size} bytes, {image.sha256.hex()}"):
                await client.announce(image.size, image.sha256)
        if offset < image.size:
            self._step(NodeStep.TRANSFER, f"resumed at {offset}" if offset else "")
            streamed = StreamedImage(image.content, image.sha256)
            await streamed.skip(offset)
            async with self._log.doing(Deed.TRANSFER, self.address, f"from {offset} to {image.size}"):
                await self._transfer(client, offset, streamed, self._master.longest_block(at_once))
            streamed.require_whole()
        self._step(NodeStep.VERIFY)
        async with self._log.doing(Deed.VERIFY, self.address, f"CRC-32 {image.crc32:08X}"):
            await client.verify(image.crc32)
        self._verified = True

    async def _identify_again(self) -> NodeIdentity:
        identity = await identify(self._master, self.address)
        identity.require(
            node_type=self.address.node_type,
            hardware_id=self._plan.identity.hardware_id,
            serial=self._plan.identity.serial,
        )
        return identity

    async def _unlock(self) -> NodeClient:
        """Extended session and the node's own check that it may be programmed."""
        client = self._master.client(self.address)
        await client.enter_extended()
        await client.check_preconditions()
        return client

    async def _transfer(self, client: NodeClient, offset: int, streamed: StreamedImage, block: int) -> None:
        image = self._plan.image
        began_at, told, accepted = now(), offset, offset
        meter = TransferMeter(self._master.traffic, self.address)

        def progress(done: int) -> None:
            nonlocal told, accepted
            meter.accept(done - accepted)
            accepted = done
            if done - told >= _PROGRESS_STEP_BYTES or done == image.size:
                told = done
                elapsed = now() - began_at
                rate = (done - offset) / elapsed if elapsed > 0 else 0.0
                self._log.tell(Transferred(now(), self.address, done, image.size, rate))

        try:
            with meter:
                await client.download(offset, streamed, progress, block=min(block, self._longest_block))
        except (UdsTimeout, IsoTpError):  # frames were lost, more than repeating makes up for
            shorter = min(block, self._longest_block) // _SHORTER_AFTER_LOSSES
            self._longest_block = max(shorter, SHORTEST_BLOCK)
            raise
        finally:  # an attempt that failed took its time, too, and what it brought need not be sent again
            self.record.bytes_sent += accepted - offset
            self.record.transfers.append((began_at, now()))
        self._last_transfer = meter, offset

    def complete_record(self) -> None:
        """Complete the record, once nothing is urgent any more.

        Until an efficiency is worked out nobody is heard, and several nodes may end their transfers at the same time,
        each under a permit whose evidence must stay fresh.
        """
        self.record.runs = self.running_version
        if self._last_transfer is not None:
            meter, offset = self._last_transfer
            self.record.wire_efficiency = meter.efficiency(self._plan.image.content, offset)

    # --- trial and confirmation -----------------------------------------------------------------

    async def activate_on_trial(self) -> None:
        """Have the node's next boot run the new image, once."""
        if not self._verified:  # the session was lost: the node verifies again before it lets itself be activated
            await self.program()
        self._step(NodeStep.TRIAL_BOOT)
        async with self._log.doing(Deed.ACTIVATE, self.address, f"{self.record.to_version}"):
            self.activated = True  # even if the answer is lost: it has to be reverted then
            self._master.armed.suspect(self.address)
            await self._master.client(self.address).activate_on_trial()

    async def restart(self) -> None:
        """Restart the node and forget its session.  Whether it did restart is for `see_it_run` to find out."""
        sample = self._master.view.nodes.get(self.address)
        self._heard_before_restart = None if sample is None else sample.value
        self._acted_at = now()
        try:
            await self._master.client(self.address).reset()
        except (UdsTimeout, IsoTpError) as error:  # the answer may be what was lost
            self._log.note(f"{self.address}: no answer to its restart ({error})")
        await self.hang_up()

    async def see_it_run(self, state: ImageState, within_s: float, *, reverted: bool = False) -> None:
        """Wait until the node itself says that it runs the new image (the old one if `reverted`) in `state`.

        Raises TrialBootFailed, or ConfirmFailed for a confirmation that does not show.
        """
        version = self.record.from_version if reverted else self.record.to_version
        # What it says once it was asked counts, even before anybody looks; but it goes back by itself, too.
        since = now() if reverted else min(self._acted_at, now())

        def heard() -> NodeInfo | None:
            sample = self._master.view.nodes.get(self.address)
            return sample.value if sample is not None and sample.at >= since else None

        def runs() -> bool:
            info = heard()
            return info is not None and info.image_state is state and _same(info.version, version)

        def gave_up() -> bool:
            """The node is back, restarted, on its old image: it reverted by itself."""
            info, before = heard(), self._heard_before_restart
            # A Node_Info may still leave between the answer to the reset and the restart.
            restarted = info is not None and (before is None or info.boot_counter != before.boot_counter)
            return info is not None and restarted and not reverted and _same(info.version, self.record.from_version)

        await until(lambda: runs() or gave_up(), within_s)
        sample = self._master.view.nodes.get(self.address)
        if sample is None or not runs():
            info = heard()
            why = f"it runs {info.version} ({info.image_state.name})" if info else f"silent for {within_s:g} s"
            failure = ConfirmFailed if state is ImageState.CONFIRMED and not reverted else TrialBootFailed
            raise failure(f"{self.address} does not run {version} as {state.name.lower()}", why=why)
        self.runs_since = sample.at
        identity = await self._identify_again()
        if identity.boot_state.version != version or identity.boot_state.standing != state:
            raise TrialBootFailed(
                f"{self.address} contradicts itself", why=f"identifiers say {identity.boot_state.version}"
            )
        self._trial_boots = identity.boot_state.boot_counter
        restarted = identity.boot_state.boot_counter != self._boots_before_trial
        if state is ImageState.CONFIRMED and (restarted or not reverted) and not identity.boot_state.armed:
            self._master.armed.ended(self.address)
        if reverted and self.activated and self.address in self._master.armed.nodes:
            raise TrialBootFailed(
                f"{self.address} may still boot the new image at its next restart",
                why="it was activated, did not restart since, and could not be asked to revert",
            )

    async def prepare_to_confirm(self) -> None:
        """See that the node still runs its trial, and unlock it.  Raises ConfirmFailed if it left the trial."""
        self._step(NodeStep.CONFIRM)
        identity = await self._identify_again()
        self._confirmed = self._is_confirmed(identity)
        if self._confirmed:
            return
        state = identity.boot_state
        if state.standing != ImageState.TRIAL or state.boot_counter != self._trial_boots:
            raise ConfirmFailed(
                f"{self.address} left its trial", why=f"it runs {state.version}, boot {state.boot_counter}"
            )
        client = await self._unlock()
        await client.authenticate(self._master.access)

    async def confirm(self) -> None:
        """Make the image on trial permanent.  Repeated after a lost answer it changes nothing more."""
        if not self._confirmed:
            self.confirm_sent = True
            self._acted_at = now()
            await self._master.client(self.address).confirm()

    def _is_confirmed(self, identity: NodeIdentity) -> bool:
        state = identity.boot_state
        confirmed = state.version == self.record.to_version and state.standing == ImageState.CONFIRMED
        return confirmed and not state.armed

    async def is_confirmed(self) -> bool | None:
        """Whether the node says that it is confirmed on the new image; None if it cannot be asked."""
        deadline = now() + self._master.config.times.node_boot_s
        while True:
            try:
                confirmed = self._is_confirmed(await self._identify_again())
                if confirmed:
                    self._master.armed.ended(self.address)
                return confirmed
            except EssCanError as error:
                if now() >= deadline or isinstance(error, BusError):
                    return None
            finally:
                await self.hang_up()
            await pause(_ASK_AGAIN_S)

    async def revert(self) -> None:
        """Ask the node to go back to its old image.  If it cannot be asked it does so by itself; the caller looks."""
        await ask_to_revert(self._master, self.address, self._log)


def _same(heard: Version, version: Version) -> bool:
    """Node_Info carries no build number."""
    return (heard.major, heard.minor, heard.revision) == (version.major, version.minor, version.revision)
