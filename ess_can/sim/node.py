"""A simulated node: the MCU that boots, runs an application on the station bus, and can be programmed over UDS.

What the application does with its hardware is behind `Application`; everything a BMU and the comm gateway have in
common is here: flash, boot, identity, Node_Info, the UDS server, watchdog and trial time-out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from ess_can.bus.clock import Cycle
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.station import StationLink
from ess_can.errors import BusError, IsoTpError, TransmitQueueFull
from ess_can.identity import NodeAddress, Version
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import BOOT_COUNTER_MODULUS, ImageState, NodeInfo
from ess_can.sim.boot_records import NodeRecords, RecordAccessStore
from ess_can.sim.bootloader import Bootloader, Verify, provision
from ess_can.sim.controller import Controller
from ess_can.sim.flash import Flash
from ess_can.sim.fram import Fram
from ess_can.sim.node_target import Gate, NodeTarget
from ess_can.sim.parts import STM32H743, FlashPart
from ess_can.sim.programming import MemoryConfig, ProgrammingMemory
from ess_can.uds.access import AccessAlgorithm, AccessGuard
from ess_can.uds.rules import Session
from ess_can.uds.server import UdsServerSession
from ess_can.uds.target import Did


class Behaviour(Enum):
    """How an application behaves, for firmware that is simulated to be bad."""

    GOOD = "works"
    HANGS = "never gets as far as its main loop"
    NO_HV_STATUS = "runs, but sends no HV status"
    WRONG_SCALE = "runs, but reports voltages with a wrong scale"
    BOOT_LOOPS = "restarts itself soon after each start"


@dataclass(frozen=True, slots=True)
class Board:
    """What is fixed when a node is built.  Times are in seconds.

    `answer_s` is how long the node thinks before each UDS answer leaves: in simulated time they come for nothing
    otherwise.  Of `isotp` the longest message that can be received is not used: it follows from `part`.
    """

    hardware_id: int
    serial: str
    access: AccessAlgorithm
    boot_s: float = 0.8
    watchdog_s: float = 2.0
    trial_timeout_s: float = 60.0
    isotp: IsoTpParams = field(default_factory=IsoTpParams)
    part: FlashPart = STM32H743
    answer_s: float = 0.0


class Application(Gate, Protocol):
    """The part of a node's firmware that is not about firmware."""

    def start(self, link: StationLink, behaviour: Behaviour, now: float) -> None:
        """The application's main loop begins, with fresh RAM."""

    def stop(self, now: float) -> None:
        """The MCU restarts or loses power: outputs drop out."""

    def hang(self) -> None:
        """The MCU does nothing any more: outputs stay as they are."""

    def hold(self, held: bool) -> None:
        """Whether high voltage must stay open (a programming session, an unconfirmed image)."""


class SimulatedNode(NodeTarget):
    """One node on the simulated wire.  It implements `ess_can.uds.target.ProgrammingTarget`.

    `entropy` drives torn flash bits and challenges; `behaviours` says which firmware versions are bad, and how.  `fram`
    and `flash` are new and blank unless given; they should share their `PowerCut`: a cut is the whole node's.
    `board` and `behaviours` may be replaced at any time; so may `alter_answer`, through which every UDS answer goes.
    """

    application: Application

    def __init__(
        self,
        address: NodeAddress,
        board: Board,
        controller: Controller,
        codec: StationCodec,
        application: Application,
        verify: Verify,
        entropy: random.Random,
        behaviours: Mapping[Version, Behaviour],
        fram: Fram | None = None,
        flash: Flash | None = None,
    ) -> None:
        self.address = address
        self.board = board
        self.controller = controller
        self.application = application
        self.behaviours = behaviours
        self.flash = flash or Flash(entropy, geometry=board.part.geometry, timing=board.part.timing)
        self.records = NodeRecords(fram or Fram(entropy))
        self.boots = 0
        self.powered = False
        self.alter_answer: Callable[[bytes], bytes] | None = None
        self._codec = codec
        self._entropy = entropy
        self.bootloader = Bootloader(self.flash, self.records, verify)
        self._memory: ProgrammingMemory | None = None
        self._server: UdsServerSession | None = None
        self._channel: IsoTpChannel | None = None
        self._link: StationLink | None = None
        self._told = ImageState.CONFIRMED
        self._timers: list[asyncio.TimerHandle] = []
        self._server_timer: asyncio.TimerHandle | None = None
        controller.detach()
        self._node_info = Cycle(codec.node_route(address).cycle_s or 0.5, self._send_node_info)
        self._flash_watch = Cycle(_FLASH_WATCH_S, self._watch_flash)
        self._flash_watched = False
        self.flash.power.on_cut.append(self._on_power_cut)

    # --- power --------------------------------------------------------------------------------

    def install(self, image: bytes) -> None:
        """Program a confirmed image on the production line.  Raises EssCanError if it does not verify."""
        provision(self.flash, self.records, image, self.bootloader.verify)
        # A node that was upgraded before: the other bank holds an image, too, and has to be erased.
        self.flash.factory_program(1, self.flash.geometry.slot_offset, image)

    def power_on(self, *, boot_s: float | None = None) -> None:
        """Apply power: the application runs after `boot_s` (the board's unless given)."""
        self.powered = True
        self._later(self.board.boot_s if boot_s is None else boot_s, self._boot)

    def power_off(self, now: float) -> None:
        """Take power away: flash work under way is torn, RAM and session are gone, outputs drop out."""
        self.powered = False
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._node_info.stop()
        self._end_flash_watch()
        if self._server_timer is not None:
            self._server_timer.cancel()
        self.application.stop(now)
        if self._channel is not None:
            self._channel.close()
        if self._link is not None:
            self._link.close()
        self.controller.detach()
        if self._memory is not None:
            self._memory.power_off(now)
        self._memory = self._server = self._channel = self._link = None

    def reset(self, now: float) -> None:
        """Restart the MCU."""
        self.power_off(now)
        self.power_on()

    def hang(self, now: float) -> None:
        """The MCU hangs: deaf and dumb, its outputs as they are, until its watchdog restarts it."""
        if not self.running:
            return
        for timer in self._timers:
            timer.cancel()
        self._node_info.stop()
        self._end_flash_watch()
        if self._server_timer is not None:
            self._server_timer.cancel()
        self.application.hang()
        self.controller.detach()
        self._later(self.board.watchdog_s, self.reset)

    def _on_power_cut(self) -> None:
        """Power was lost in a memory operation: nothing of what follows it in this instant leaves the node."""
        loop = asyncio.get_running_loop()
        self.controller.detach()
        loop.call_soon(lambda: self.power_off(loop.time()))

    @property
    def running(self) -> bool:
        """Whether the application runs."""
        return self._link is not None

    @property
    def memory(self) -> ProgrammingMemory:
        """The memory of a node that runs.  Raises RuntimeError while it is off."""
        if self._memory is None:
            raise RuntimeError(f"{self.address} is off")
        return self._memory

    def _later(self, delay_s: float, call: Callable[[float], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(delay_s, lambda: call(loop.time())))

    def _boot(self, now: float) -> None:
        self.boots += 1
        config = MemoryConfig(self.address.node_type, self.board.hardware_id, self.board.part)
        memory = ProgrammingMemory(self.bootloader, config, self.application.programming_allowed)
        behaviour = self.behaviours.get(memory.version, Behaviour.GOOD)
        self._memory = memory
        if behaviour is Behaviour.HANGS:
            self._later(self.board.watchdog_s, self.reset)
            return
        if memory.standing is ImageState.TRIAL:
            self._later(self.board.trial_timeout_s, self._end_trial)
        self.controller.attach()
        self._link = StationLink(self.controller, self._codec)
        request_id, response_id = self._codec.diagnostic_ids(self.address)
        self._channel = IsoTpChannel(
            self.controller,
            IsoTpAddress(response_id, request_id),
            replace(self.board.isotp, max_payload=self.board.part.block_bytes + _BLOCK_HEAD),
            on_message=self._on_request,
            on_error=self._on_request_lost,
            on_begin=self._on_request_begins,
        )
        guard = AccessGuard(
            self.board.access,
            self.board.serial.encode("ascii"),
            self._entropy.randbytes,
            RecordAccessStore(self.records),
            now,
        )
        self._server = UdsServerSession(self, guard)
        if memory.standing is not ImageState.RECOVERY:
            self.application.start(self._link, behaviour, now)
        if behaviour is Behaviour.BOOT_LOOPS:
            self._later(_BOOT_LOOP_S, self.reset)
        self._update_hold()
        self._node_info.start(delay_s=_NODE_INFO_STEP_S * self.address.index)

    def _end_trial(self, now: float) -> None:
        """Nobody confirmed the image on trial: restart, which goes back to the confirmed one."""
        if self.memory.standing is ImageState.TRIAL:
            self.reset(now)

    # --- the station bus ------------------------------------------------------------------------

    def _send_node_info(self, _now: float) -> None:
        memory, link = self._memory, self._link
        if memory is None or link is None:
            return
        self._told = memory.standing
        version = memory.version
        info = NodeInfo(
            node_type=self.address.node_type,
            bank=memory.running.bank,
            boot_counter=memory.running.record.boot_counter % BOOT_COUNTER_MODULUS,
            image_state=memory.standing,
            dbc_fingerprint=self._codec.fingerprint,
            hardware_id=self.board.hardware_id,
            version_major=version.major,
            version_minor=version.minor,
            version_revision=version.revision,
        )
        with suppress(BusError):  # the next cycle comes
            link.send_node_info(info, self.address)

    # --- UDS --------------------------------------------------------------------------------------

    def _on_request(self, payload: bytes, now: float) -> None:
        if self._channel is not None and payload[:1] != _TESTER_PRESENT:  # the client has given an earlier answer up
            self._channel.give_up()
        if self._server is not None:
            self._answer(self._server.receive(payload, now))

    def _on_request_begins(self, now: float) -> None:
        if self._server is not None:
            self._server.reception(now, under_way=True)
            self._answer([])

    def _on_request_lost(self, _error: IsoTpError) -> None:
        """A broken transfer is the client's to repeat; the server waits for the next request."""
        if self._server is not None and self._channel is not None:
            under_way = self._channel.receiving  # it was another message, or an answer of ours, that was lost
            self._server.reception(asyncio.get_running_loop().time(), under_way=under_way)
            self._answer([])

    def _on_server_deadline(self) -> None:
        if self._server is not None:
            self._answer(self._server.tick(asyncio.get_running_loop().time()))

    def _answer(self, messages: list[bytes]) -> None:
        server, channel = self._server, self._channel
        if server is None or channel is None:
            return
        if self._memory is not None and self._memory.standing is not self._told:  # at once, and not only in its cycle
            self._send_node_info(asyncio.get_running_loop().time())
        if self.alter_answer is not None:
            messages = [self.alter_answer(message) for message in messages]
        if messages and self.board.answer_s:
            self._later(self.board.answer_s, lambda _at: _send(channel, messages))
        else:
            _send(channel, messages)
        self._update_hold()
        if (
            self._memory is not None
            and self._memory.is_working(asyncio.get_running_loop().time())
            and not self._flash_watched
        ):
            self._flash_watched = True
            self._flash_watch.start(delay_s=_FLASH_WATCH_S)
        if server.reset_pending:
            self._later(self.board.answer_s + _RESET_DELAY_S, self._reset_as_asked)
        self._arm_server(server)

    def _reset_as_asked(self, now: float) -> None:
        """Restart once the answer has left, or could not."""
        if self._channel is not None and not self._channel.idle:
            self._later(_RESET_DELAY_S, self._reset_as_asked)
        elif self._server is not None:
            self._server.perform_reset(now)

    def _arm_server(self, server: UdsServerSession) -> None:
        if self._server_timer is not None:
            self._server_timer.cancel()
            self._server_timer = None
        if server.next_deadline is not None and not server.reset_pending:
            self._server_timer = asyncio.get_running_loop().call_at(server.next_deadline, self._on_server_deadline)

    def _watch_flash(self, now: float) -> None:
        """Once high voltage is not off any more no operation begins: each asks.  This ends the download, too."""
        memory, server = self._memory, self._server
        if memory is None or server is None:
            self._end_flash_watch()
        elif not self.application.programming_allowed(now):
            memory.abort_download(now)
            self._end_flash_watch()
            self._arm_server(server)
        elif not memory.is_working(now):
            self._end_flash_watch()

    def _end_flash_watch(self) -> None:
        self._flash_watched = False
        self._flash_watch.stop()

    def _update_hold(self) -> None:
        server, memory = self._server, self._memory
        programming = server is not None and server.session is Session.PROGRAMMING
        unconfirmed = memory is not None and memory.standing is not ImageState.CONFIRMED
        resetting = server is not None and server.reset_pending  # it was allowed for contactors that are open
        self.application.hold(programming or unconfirmed or resetting)

    # --- ProgrammingTarget, as far as it is not the memory's --------------------------------------

    def read_identifier(self, did: int, now: float) -> bytes | None:
        """See `ProgrammingTarget`."""
        match did:
            case Did.SERIAL_NUMBER:
                return self.board.serial.encode("ascii")
            case Did.HARDWARE_NUMBER:
                return bytes((self.board.hardware_id,))
            case Did.NODE_TYPE:
                return bytes((self.address.node_type,))
            case Did.SOFTWARE_VERSION:
                return str(self.memory.version).encode("ascii")
            case Did.DBC_FINGERPRINT:
                return self._codec.sha256
            case _:
                return self.memory.read_identifier(did, now)


def _send(channel: IsoTpChannel, messages: list[bytes]) -> None:
    for message in messages:
        with suppress(TransmitQueueFull):  # a tester that takes no answers gets none
            channel.send_nowait(message)


_BLOCK_HEAD = 2  # of a TransferData: service and block counter
_BOOT_LOOP_S = 0.3
_RESET_DELAY_S = 0.005
_TESTER_PRESENT = b"\x3e"
_FLASH_WATCH_S = 0.010
_NODE_INFO_STEP_S = 0.003  # nodes do not start in step
