"""A node for a UDS server: everything in memory, times and refusals set by the test, every act recorded."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from ess_can.identity import NodeType, Version
from ess_can.uds.access import AccessState
from ess_can.uds.target import BootState, Did, FlashProfile, Nrc, Operation, ResumeState

SECRET = bytes(range(16))
SERIAL = b"BMU-0001"
BANK_SIZE = 64 * 1024
MAX_DATA = 256


@dataclass
class FakeStore:
    """Access state that survives restarts, and every value it was given."""

    state: AccessState = field(default_factory=AccessState)
    history: list[AccessState] = field(default_factory=list)

    def load(self) -> AccessState:
        return self.state

    def save(self, state: AccessState) -> None:
        self.state = state
        self.history.append(state)


@dataclass
class FakeTarget:
    """`durations` are seconds per kind of work, `refusals` what a kind of work ends with, `rejections` what it is
    answered with at once.  `acts` names every change asked of the node, in order.
    """

    hv_off: bool = True
    may_reset: bool = True
    durations: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, Nrc] = field(default_factory=dict)
    rejections: dict[str, Nrc] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    bank: bytearray = field(default_factory=bytearray)
    sha256: bytes = bytes(32)
    crc_read_back: int | None = None
    max_data: int = MAX_DATA
    on_act: Callable[[str], None] | None = None
    boot_counter: int = 7
    flash: FlashProfile | None = None
    lacks: set[int] = field(default_factory=set)
    _crc: int = 0

    def _act(self, name: str) -> None:
        self.acts.append(name)
        if self.on_act is not None:
            self.on_act(name)

    def _begin(self, kind: str, now: float, finish: Callable[[], None] = lambda: None) -> Operation | Nrc:
        if kind in self.rejections:
            return self.rejections[kind]
        self._act(kind)

        def done(_now: float) -> Nrc | None:
            if kind in self.refusals:
                return self.refusals[kind]
            finish()
            return None

        return Operation(now + self.durations.get(kind, 0.0), done)

    def read_identifier(self, did: int, now: float) -> bytes | None:
        version = Version(1, 2, 0)
        values = {
            Did.SOFTWARE_VERSION: str(version).encode(),
            Did.SERIAL_NUMBER: SERIAL,
            Did.HARDWARE_NUMBER: b"\x03",
            Did.NODE_TYPE: bytes((NodeType.BMU,)),
            Did.BOOT_STATE: BootState(0, 0, self.boot_counter, version).pack(),
            Did.RESUME_STATE: ResumeState(len(self.bank), self.sha256).pack(),
            Did.DBC_FINGERPRINT: bytes(range(32)),
            Did.SECURITY_COUNTER: (4).to_bytes(4, "big"),
        }
        if self.flash is not None:
            values[Did.FLASH_PROFILE] = self.flash.pack()
        return {int(did): value for did, value in values.items() if did not in self.lacks}.get(did)

    def programming_allowed(self, now: float) -> bool:
        return self.hv_off

    def reset_allowed(self, now: float) -> bool:
        return self.may_reset

    def erase(self, size: int, image_sha256: bytes, now: float) -> Operation | Nrc:
        if not 0 < size <= BANK_SIZE:
            return Nrc.REQUEST_OUT_OF_RANGE

        def finish() -> None:
            self.bank.clear()
            self.sha256 = image_sha256

        return self._begin("erase", now, finish)

    def begin_download(self, address: int, size: int, now: float) -> int | Nrc:
        if address != len(self.bank) or address + size > BANK_SIZE:
            return Nrc.REQUEST_OUT_OF_RANGE
        self._act("begin_download")
        return self.max_data

    def write(self, data: bytes, now: float) -> Operation | Nrc:
        return self._begin("write", now, lambda: self.bank.extend(data))

    def end_download(self, now: float) -> Operation | Nrc:
        return self._begin("end_download", now)

    def verify(self, crc32: int, now: float) -> Operation | Nrc:
        self._crc = zlib.crc32(self.bank)
        return self._begin("verify", now)

    def read_back_crc32(self) -> int:
        return self._crc if self.crc_read_back is None else self.crc_read_back

    def _end(self, kind: str) -> Nrc | None:
        if kind in self.rejections:
            return self.rejections[kind]
        self._act(kind)
        return None

    def activate_on_trial(self, now: float) -> Nrc | None:
        return self._end("activate")

    def confirm(self, now: float) -> Nrc | None:
        return self._end("confirm")

    def revert(self, now: float) -> Nrc | None:
        return self._end("revert")

    def abort_download(self, now: float) -> None:
        self._act("abort_download")

    def reset(self, now: float) -> None:
        self.boot_counter += 1
        self._act("reset")
