"""A tester as others write it: a stock udsoncan client, told what our nodes' identifiers and routines are."""

from __future__ import annotations

import hashlib
import zlib

import udsoncan
from udsoncan.client import Client
from udsoncan.typing import ClientConfig

from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.uds.access import CmacAccess
from ess_can.uds.target import Did, Rid

SEED_LEVEL = 0x11


class Ascii(udsoncan.AsciiCodec):
    """Text of whatever length, as the last identifier of an answer."""

    def __init__(self) -> None:
        super().__init__(1)

    def __len__(self) -> int:
        raise udsoncan.DidCodec.ReadAllRemainingData

    def decode(self, payload: bytes) -> str:
        return payload.decode("ascii")


class Raw(udsoncan.DidCodec):
    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, payload: bytes) -> bytes:
        return payload

    def __len__(self) -> int:
        raise udsoncan.DidCodec.ReadAllRemainingData


def answer_challenge(level: int, seed: bytes, params: bytes) -> bytes:
    return CmacAccess(TEST_ONLY_ACCESS_SECRET).answer(seed, params)


CONFIG: ClientConfig = {
    "exception_on_negative_response": True,
    "data_identifiers": {
        Did.SOFTWARE_VERSION: Ascii,
        Did.SERIAL_NUMBER: Ascii,
        Did.BOOT_STATE: Raw,
        Did.RESUME_STATE: Raw,
        Did.NODE_TYPE: Raw,
        Did.HARDWARE_NUMBER: Raw,
        Did.DBC_FINGERPRINT: Raw,
        Did.SECURITY_COUNTER: Raw,
    },
    "security_algo": answer_challenge,
    "server_address_format": 32,
    "server_memorysize_format": 32,
    "request_timeout": 60,
    "p2_timeout": 1,
    "p2_star_timeout": 5,
    "use_server_timing": True,
}


def read(client: Client, did: Did) -> object:
    response = client.read_data_by_identifier(int(did))
    assert response is not None
    return response.service_data.values[did]


def unlock(client: Client) -> None:
    client.config["security_algo_params"] = str(read(client, Did.SERIAL_NUMBER)).encode("ascii")
    client.unlock_security_access(SEED_LEVEL)


def program(client: Client, content: bytes) -> None:
    client.change_session(3)
    client.start_routine(int(Rid.CHECK_PROGRAMMING_PRECONDITIONS))
    client.change_session(2)
    unlock(client)
    client.start_routine(int(Rid.ERASE_MEMORY), len(content).to_bytes(4, "big") + hashlib.sha256(content).digest())
    location = udsoncan.MemoryLocation(0, len(content), address_format=32, memorysize_format=32)
    accepted = client.request_download(location)
    assert accepted is not None
    block = accepted.service_data.max_length - 2
    for number, start in enumerate(range(0, len(content), block), start=1):
        client.transfer_data(number & 0xFF, content[start : start + block])
    client.request_transfer_exit()
    crc32 = zlib.crc32(content).to_bytes(4, "big")
    verified = client.start_routine(int(Rid.VERIFY_MEMORY), crc32)
    assert verified is not None
    assert verified.service_data.routine_status_record == crc32
    client.start_routine(int(Rid.ACTIVATE_ON_TRIAL))
    client.ecu_reset(1)
