"""What a PCS remembers over a loss of power, if it is built to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from ess_can.sim.boot_records import TwoSlotRecord
from ess_can.sim.fram import Fram


@dataclass(frozen=True, slots=True)
class PcsKept:
    """The lock, and the emergency stop, whose button stays pressed whoever has power."""

    locked: bool = False
    emergency_stop: bool = False

    SIZE: ClassVar[int] = 1

    def pack(self) -> bytes:
        """Encode into `SIZE` bytes."""
        return bytes([self.locked | self.emergency_stop << 1])

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `SIZE` bytes."""
        return cls(bool(data[0] & 1), bool(data[0] & 2))


class PcsMemory(Protocol):
    """Memory that outlives a restart."""

    def load(self) -> PcsKept:
        """What was saved last; called once after each restart."""

    def save(self, kept: PcsKept) -> None:
        """Replace what is stored, at once and as a whole."""


class NoPcsMemory:
    """A PCS that forgets: only the button is found as it is."""

    def __init__(self) -> None:
        self._pressed = False

    def load(self) -> PcsKept:
        """See `PcsMemory`."""
        return PcsKept(emergency_stop=self._pressed)

    def save(self, kept: PcsKept) -> None:
        """See `PcsMemory`."""
        self._pressed = kept.emergency_stop


class RecordedPcsMemory:
    """Keeps it in an FRAM of the PCS's own."""

    def __init__(self, fram: Fram) -> None:
        self._record = TwoSlotRecord(fram, 0, 5, PcsKept)

    def load(self) -> PcsKept:
        """See `PcsMemory`."""
        return self._record.recover() or PcsKept()

    def save(self, kept: PcsKept) -> None:
        """See `PcsMemory`."""
        self._record.store(kept)
