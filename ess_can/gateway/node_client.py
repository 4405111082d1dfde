"""Typed diagnostic operations on one node, over a transport that carries whole UDS messages.

Each operation either gives its result or raises one typed error; a negative answer never passes as success.  One
request is on its way at a time.  Between requests the client keeps the node's session alive by itself until `close`.
Cancelling an operation stops it at once; the node may still be working on what was asked last, and then answers busy
(21) for as long, which is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

from ess_can.bus.clock import now, pause
from ess_can.errors import (
    BusError,
    EssCanError,
    FlashWriteFailed,
    IsoTpError,
    NBufferOvflw,
    NUnexpPdu,
    UdsNegativeResponse,
    UdsProtocolError,
    UdsTimeout,
    UsageError,
    VerificationFailed,
    WrongTarget,
)
from ess_can.gateway.authentication import Authentication
from ess_can.identity import NodeType, Version
from ess_can.image.content import ImageContent
from ess_can.uds import exchange
from ess_can.uds.access import AccessAlgorithm
from ess_can.uds.client import Again, Answered, ClientTiming, Failed, KeepAlive, UdsClientSession
from ess_can.uds.exchange import MAX_BLOCK_DATA, Exchange
from ess_can.uds.rules import LEAVE_SESSION, Session
from ess_can.uds.target import BootState, Did, FlashProfile, Nrc, ResumeState, Rid

T = TypeVar("T")

SHORTEST_BLOCK = 256
"""Bytes of an image: however many frames are lost, blocks do not get shorter."""

OnMessage = Callable[[bytes, float], None]
"""Called with a received message and the loop time at which it was complete."""
OnError = Callable[[IsoTpError], None]
"""Called when a message under reception was lost."""


class Transport(Protocol):
    """Carries UDS messages to and from one node, such as ISO-TP."""

    async def send(self, payload: bytes) -> None:
        """Send one message; returns when it has left.  Raises IsoTpError or BusError if it did not."""

    def close(self) -> None:
        """End its use."""

    async def wait_closed(self) -> None:
        """After `close`: return once nothing of it sends or answers any more, or after a few seconds."""


Connect = Callable[[OnMessage, OnError], Transport]
"""Makes the transport, given what to call back; the client closes it."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a node says about itself.  `flash` is None if it does not tell (its identifier is optional)."""

    node_type: NodeType
    hardware_id: int
    serial: str
    version: Version
    boot_state: BootState
    resume_state: ResumeState
    dbc_sha256: bytes
    security_counter: int
    flash: FlashProfile | None = None

    def require(self, *, node_type: NodeType, hardware_id: int | None = None, serial: str | None = None) -> None:
        """Raise WrongTarget unless this is the node that the caller means (U8); None stands for any."""
        wanted = (("node type", node_type, self.node_type), ("hardware id", hardware_id, self.hardware_id))
        for name, expected, actual in (*wanted, ("serial number", serial, self.serial)):
            if expected is not None and expected != actual:
                raise WrongTarget("another node answers than the one meant", why=f"{name} is {actual}, not {expected}")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: how often and how long a busy node is asked again, how long a message, and the last, take to leave."""

    busy_pause: float = 0.1
    busy_limit: float = 20.0
    send_limit: float = 120.0
    stop_limit: float = 0.05


class NodeClient:
    """See the module.  Use as ``async with NodeClient(connect) as node:`` or call `close`.

    `repeated` counts requests that were sent again, `lost` failed receptions and keep-alives that could not be sent.
    """

    def __init__(self, connect: Connect, timing: ClientTiming | None = None, patience: Patience | None = None) -> None:
        self._session = UdsClientSession(timing)
        self._patience = patience or Patience()
        self._transport = connect(self._on_message, self._on_error)
        self._turn = asyncio.Lock()
        self._waiter: asyncio.Future[Answered | Failed | EssCanError] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive: asyncio.Task[None] | None = None
        self._closed = False
        self.repeated = 0
        self.lost = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- operations -----------------------------------------------------------------------------

    async def identify(self) -> NodeIdentity:
        """Read who answers, what it runs and how far a download got.  Raises UdsProtocolError for senseless values."""
        mandatory = (did for did in Did if did is not Did.FLASH_PROFILE)
        values = {did: await self._ask(exchange.read_identifier(did)) for did in mandatory}
        flash = await self._read_optional(Did.FLASH_PROFILE)
        try:
            return NodeIdentity(
                node_type=NodeType(_number(values[Did.NODE_TYPE], 1)),
                hardware_id=_number(values[Did.HARDWARE_NUMBER], 1),
                serial=values[Did.SERIAL_NUMBER].decode("ascii"),
                version=Version.parse(values[Did.SOFTWARE_VERSION].decode("ascii")),
                boot_state=BootState.unpack(values[Did.BOOT_STATE]),
                resume_state=ResumeState.unpack(values[Did.RESUME_STATE]),
                dbc_sha256=_sized(values[Did.DBC_FINGERPRINT], 32),
                security_counter=_number(values[Did.SECURITY_COUNTER], 4),
                flash=None if flash is None else FlashProfile.unpack(flash),
            )
        except ValueError as error:  # UnicodeDecodeError is one
            raise UdsProtocolError("the node's identification makes no sense", why=str(error)) from error

    async def boot_state(self) -> BootState:
        """What the node runs, and how that image stands.  Raises UdsProtocolError for senseless values."""
        try:
            return BootState.unpack(await self._ask(exchange.read_identifier(Did.BOOT_STATE)))
        except ValueError as error:
            raise UdsProtocolError("the node's boot state makes no sense", why=str(error)) from error

    async def enter_default(self) -> None:
        """10 01: leave any session; the node locks itself and gives up a download, which can be resumed."""
        await self._enter(Session.DEFAULT)

    async def stop_writing(self) -> None:
        """10 81: have the node begin nothing more of what it was given.  Nobody waits for an answer."""
        self._session.end_session()
        with suppress(IsoTpError, BusError, TimeoutError, UsageError):
            await asyncio.wait_for(self._transport.send(LEAVE_SESSION[1]), self._patience.stop_limit)

    async def enter_extended(self) -> None:
        """10 03."""
        await self._enter(Session.EXTENDED)

    async def check_preconditions(self) -> None:
        """31 01 0203: the node itself checks that it may be programmed.  In the extended session."""
        await self._ask(exchange.start_routine(Rid.CHECK_PROGRAMMING_PRECONDITIONS))

    async def enter_programming(self) -> None:
        """10 02, from the extended session after `check_preconditions`."""
        await self._enter(Session.PROGRAMMING)

    async def authenticate(self, algorithm: AccessAlgorithm) -> None:
        """27: unlock the node.  In the extended or programming session.  Raises AccessDenied."""
        serial = await self._ask(exchange.read_identifier(Did.SERIAL_NUMBER))
        await Authentication(self._ask, algorithm, serial, self._count_repeat).run()

    async def announce(self, size: int, sha256: bytes) -> None:
        """31 01 FF00: announce an image of `size` bytes, so that the node gives up what its inactive bank holds.

        It may erase now, or ahead of the data as the download goes on.  Raises FlashWriteFailed.
        """
        option = size.to_bytes(4, "big") + _sized(sha256, 32)
        await self._program(exchange.start_routine(Rid.ERASE_MEMORY, option, repeats=1))

    async def download(
        self,
        offset: int,
        image: ImageContent,
        progress: Callable[[int], None] | None = None,
        *,
        block: int = MAX_BLOCK_DATA,
    ) -> None:
        """34, 36 ..., 37: write `image` from its byte `offset` on, of which one block is read at a time.

        `progress` is called after each block with the offset up to which the node accepted data.  `block` caps the
        bytes per 36 below what the node allows.  A lost 36 is repeated with its counter up to three times, and those
        after it carry half as much: on a bus that loses frames short blocks get through.  A block that the node has no
        room for is halved once (T5).  Raises FlashWriteFailed, and IsoTpError or UdsError.
        """
        size = min(await self._program(exchange.request_download(offset, image.size - offset)), block)
        done, counter, halved = offset, 1, False
        while done < image.size:
            part, repeated = image.read(done, size), self.repeated
            try:
                await self._program(exchange.transfer_data(counter, part))
            except NBufferOvflw:
                if halved or size < 2 or self.repeated != repeated:  # after a repeat the node may hold the longer one
                    raise
                halved, size = True, size // 2
                continue
            done += len(part)
            counter = (counter + 1) & 0xFF
            if self.repeated != repeated:
                size = max(size // 2, min(size, SHORTEST_BLOCK))
            if progress is not None:
                progress(done)
        await self._program(exchange.transfer_exit())

    async def verify(self, crc32: int) -> int:
        """31 01 FD10: the node reads its flash back and judges the image; gives the CRC-32 that it read.

        Raises VerificationFailed if it does not accept the image or read another CRC-32.
        """
        try:
            result = await self._ask(
                exchange.start_routine(Rid.VERIFY_MEMORY, crc32.to_bytes(4, "big"), result_length=4)
            )
        except UdsNegativeResponse as error:
            if error.nrc in (Nrc.REQUEST_OUT_OF_RANGE, Nrc.GENERAL_PROGRAMMING_FAILURE):
                raise VerificationFailed("the node does not accept the image in its flash", why=error.why) from error
            raise
        read_back = int.from_bytes(result, "big")
        if read_back != crc32:
            raise VerificationFailed(
                "the node's flash does not hold the image", why=f"CRC-32 {read_back:08X}, not {crc32:08X}"
            )
        return read_back

    async def activate_on_trial(self) -> None:
        """31 01 FD11: the next boot runs the verified image on trial.  In the session of `verify`."""
        await self._ask(exchange.start_routine(Rid.ACTIVATE_ON_TRIAL))

    async def reset(self) -> None:
        """11 01: restart.  Never repeated: after UdsTimeout the boot counter tells whether it happened."""
        await self._ask(exchange.hard_reset())
        self._session.end_session()
        self._arm()

    async def confirm(self) -> None:
        """31 01 FD12: make the image on trial permanent.  Extended session, unlocked."""
        await self._ask(exchange.start_routine(Rid.CONFIRM_IMAGE))

    async def revert(self) -> None:
        """31 01 FD13: give up an image on trial.  Extended or programming session, unlocked."""
        await self._ask(exchange.start_routine(Rid.REVERT_IMAGE))

    async def close(self) -> None:
        """End the use of the node; sends nothing, so a session still open ends by its S3 time-out.

        What cannot be stopped any more (`Transport.wait_closed`) is waited for: another client would be in its way.
        """
        self._closed = True
        self._session.end_session()
        if self._timer is not None:
            self._timer.cancel()
        task, self._keep_alive = self._keep_alive, None
        if task is not None:
            task.cancel()
        self._transport.close()
        if task is not None:
            await asyncio.wait((task,))
        await self._transport.wait_closed()

    # --- one exchange ---------------------------------------------------------------------------

    async def _enter(self, session: Session) -> None:
        times = await self._ask(exchange.enter_session(session))
        self._session.adopt(session, times, now())
        self._arm()

    async def _read_optional(self, did: Did) -> bytes | None:
        """22: the value of an identifier; None if the node does not have it."""
        try:
            return await self._ask(exchange.read_identifier(did))
        except UdsNegativeResponse as error:
            if error.nrc == Nrc.REQUEST_OUT_OF_RANGE:
                return None
            raise

    async def _program(self, wanted: Exchange[T]) -> T:
        try:
            return await self._ask(wanted)
        except UdsNegativeResponse as error:
            if error.nrc == Nrc.GENERAL_PROGRAMMING_FAILURE:
                raise FlashWriteFailed("the node could not program its flash", why=error.why) from error
            raise

    def _count_repeat(self) -> None:
        self.repeated += 1

    async def _ask(self, wanted: Exchange[T]) -> T:
        """Ask until there is an answer, or an error that asking again cannot mend."""
        async with self._turn:
            repeats = wanted.repeats
            busy_until = now() + self._patience.busy_limit
            while True:
                if self._closed:
                    raise UsageError("this node client is closed")
                outcome = await self._once(wanted)
                if isinstance(outcome, Answered):
                    return wanted.decode(outcome.response)
                error, again = (outcome.error, outcome.again) if isinstance(outcome, Failed) else (outcome, Again.LOST)
                if again is Again.BUSY and now() < busy_until:
                    await pause(self._patience.busy_pause)
                elif again is Again.LOST and repeats and not isinstance(error, BusError | NBufferOvflw):
                    repeats -= 1
                    self.repeated += 1
                else:
                    raise error

    async def _once(self, wanted: Exchange[T]) -> Answered | Failed | EssCanError:
        waiter: asyncio.Future[Answered | Failed | EssCanError] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        payload = self._session.request(wanted.request, now(), wanted.late_s)
        try:
            async with asyncio.timeout(self._patience.send_limit):
                await self._transport.send(payload)
            self._session.sent(now())
            self._arm()
            return await waiter
        except TimeoutError:
            return UdsTimeout("a request did not leave in time", why=f"{len(payload)} bytes")
        except (IsoTpError, BusError) as error:
            return error
        finally:
            self._waiter = None
            self._session.abandon(now())
            self._arm()

    # --- what the transport and the timer call --------------------------------------------------

    def _on_message(self, payload: bytes, at: float) -> None:
        event = self._session.receive(payload, at)
        if isinstance(event, Answered | Failed):
            self._settle(event)
        self._arm()

    def _on_error(self, error: IsoTpError) -> None:
        self.lost += 1
        if not isinstance(error, NUnexpPdu):  # that one says that the next message is already coming
            self._settle(error)

    def _settle(self, outcome: Answered | Failed | EssCanError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(outcome)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._session.next_deadline
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        event = self._session.tick(now())
        if isinstance(event, Failed):
            self._settle(event)
        elif isinstance(event, KeepAlive) and not self._turn.locked():
            self._keep_alive = asyncio.get_running_loop().create_task(self._send_keep_alive(event.payload))
        self._arm()

    async def _send_keep_alive(self, payload: bytes) -> None:
        async with self._turn:
            try:
                async with asyncio.timeout(self._patience.send_limit):
                    await self._transport.send(payload)
            except (IsoTpError, BusError, TimeoutError):
                self.lost += 1  # the next request meets the same trouble and reports it


def _sized(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise ValueError(f"a value has {len(value)} bytes, not {length}")
    return value


def _number(value: bytes, length: int) -> int:
    return int.from_bytes(_sized(value, length), "big")
