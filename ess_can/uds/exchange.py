"""Typed exchanges: what to ask a node, and how its positive answer reads.  udsoncan encodes and decodes.

A negative answer never gets here: the session turns it into an error.  An answer whose size or content does not fit
raises UdsProtocolError; a status record where none is defined is such an answer, because it might say "failed".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from udsoncan.common.DidCodec import DidCodec
from udsoncan.common.MemoryLocation import MemoryLocation
from udsoncan.exceptions import ConfigError, InvalidResponseException
from udsoncan.Request import Request
from udsoncan.Response import Response
from udsoncan.services.DiagnosticSessionControl import DiagnosticSessionControl
from udsoncan.services.ECUReset import ECUReset
from udsoncan.services.ReadDataByIdentifier import ReadDataByIdentifier
from udsoncan.services.RequestDownload import RequestDownload
from udsoncan.services.RequestTransferExit import RequestTransferExit
from udsoncan.services.RoutineControl import RoutineControl
from udsoncan.services.SecurityAccess import SecurityAccess
from udsoncan.services.TransferData import TransferData

from ess_can.errors import UdsProtocolError
from ess_can.uds.access import CHALLENGE_LENGTH
from ess_can.uds.rules import HARD_RESET, REQUEST_SEED, START_ROUTINE, Session
from ess_can.uds.target import Did, Rid

T = TypeVar("T")

LATE_S = 1.0
"""How late the answer to 27 11 may be, beyond P2: as long as ISO-TP lets its first frame wait for flow control."""

MAX_BLOCK_DATA = 64 * 1024
"""The most data, in bytes, that we put into one TransferData, however much more a node allows."""


@dataclass(frozen=True, slots=True)
class Exchange(Generic[T]):
    """A request and the meaning of its positive answer.

    `repeats` says how often the request may be sent again when its answer is lost: as often as doing it twice is
    harmless on the node.  `late_s`: so many seconds beyond P2 its answer is waited for, because it must not be taken
    for the answer to a repetition.
    """

    request: Request
    read: Callable[[Response], T]
    repeats: int = 2
    late_s: float = 0.0

    def decode(self, response: Response) -> T:
        """The answer's meaning.  Raises UdsProtocolError if it does not fit."""
        try:
            return self.read(response)
        except (InvalidResponseException, ConfigError, ValueError, NotImplementedError, struct.error) as error:
            name = self.request.service.get_name() if self.request.service else "the request"
            raise UdsProtocolError(f"the node's answer to {name} does not fit", why=str(error)) from error


class _Whole(DidCodec):
    """The whole rest of the answer is the value."""

    def __len__(self) -> int:
        raise DidCodec.ReadAllRemainingData

    def decode(self, did_payload: bytes) -> bytes:
        return did_payload


def read_identifier(did: Did) -> Exchange[bytes]:
    """22: the value of one identifier."""

    def read(response: Response) -> bytes:
        interpreted = ReadDataByIdentifier.interpret_response(response, [did], {int(did): _Whole()})
        value = interpreted.service_data.values.get(int(did))
        if not isinstance(value, bytes):
            raise ValueError(f"identifier {did:04X} is not in the answer")
        return value

    return Exchange(ReadDataByIdentifier.make_request([int(did)], None), read)


@dataclass(frozen=True, slots=True)
class SessionTimes:
    """The server's P2 and P2* in seconds, as its answer to 10 says."""

    p2: float
    p2_star: float


def enter_session(session: Session) -> Exchange[SessionTimes]:
    """10: enter a session; gives the server's times in it."""

    def read(response: Response) -> SessionTimes:
        data = DiagnosticSessionControl.interpret_response(response).service_data
        return SessionTimes(data.p2_server_max or 0.0, data.p2_star_server_max or 0.0)

    return Exchange(DiagnosticSessionControl.make_request(session), read)


def hard_reset() -> Exchange[None]:
    """11 01: restart.  Never repeated: a second restart would use up a trial boot."""

    def read(response: Response) -> None:
        _require_length(response, 1)

    return Exchange(ECUReset.make_request(HARD_RESET), read, repeats=0)


def request_seed() -> Exchange[bytes | None]:
    """27 11: a challenge of 16 bytes, or None if the node is already unlocked."""

    def read(response: Response) -> bytes | None:
        data = SecurityAccess.interpret_response(response, SecurityAccess.Mode.RequestSeed).service_data
        seed = data.seed or b""
        if len(seed) != CHALLENGE_LENGTH:
            raise ValueError(f"the challenge has {len(seed)} bytes, not {CHALLENGE_LENGTH}")
        return seed if any(seed) else None

    request = SecurityAccess.make_request(REQUEST_SEED, SecurityAccess.Mode.RequestSeed)
    return Exchange(request, read, repeats=0, late_s=LATE_S)


def send_key(key: bytes) -> Exchange[None]:
    """27 12: the answer to the challenge."""

    def read(response: Response) -> None:
        _require_length(response, 1)

    request = SecurityAccess.make_request(REQUEST_SEED, SecurityAccess.Mode.SendKey, key)
    return Exchange(request, read, repeats=0)


def start_routine(rid: Rid, option: bytes = b"", *, result_length: int = 0, repeats: int = 2) -> Exchange[bytes]:
    """31 01: run a routine; gives its result record, which must have `result_length` bytes."""

    def read(response: Response) -> bytes:
        result = RoutineControl.interpret_response(response).service_data.routine_status_record
        if len(result) != result_length:
            raise ValueError(f"routine {rid:04X} gave a result of {len(result)} bytes, not {result_length}")
        return result

    return Exchange(RoutineControl.make_request(rid, START_ROUTINE, option), read, repeats)


def request_download(address: int, size: int) -> Exchange[int]:
    """34: announce `size` bytes from `address`; gives the largest data of a block, in bytes."""

    def read(response: Response) -> int:
        length = RequestDownload.interpret_response(response).service_data.max_length
        record = response.data or b""
        if len(record) != 1 + (record[0] >> 4) or length < 3:  # it counts service identifier and block counter
            raise ValueError(f"maxNumberOfBlockLength record {record.hex()} makes no sense")
        return min(int(length) - 2, MAX_BLOCK_DATA)

    location = MemoryLocation(address, size, address_format=32, memorysize_format=32)
    return Exchange(RequestDownload.make_request(location), read)


def transfer_data(counter: int, data: bytes) -> Exchange[None]:
    """36: one block; the same counter again is answered but not written again."""

    def read(response: Response) -> None:
        TransferData.interpret_response(response)

    return Exchange(TransferData.make_request(counter & 0xFF, data), read, repeats=3)


def transfer_exit() -> Exchange[None]:
    """37: all data was sent."""

    def read(response: Response) -> None:
        RequestTransferExit.interpret_response(response)

    return Exchange(RequestTransferExit.make_request(), read)


def _require_length(response: Response, length: int) -> None:
    actual = len(response.data or b"")
    if actual != length:
        raise ValueError(f"{actual} bytes of data, not {length}")
