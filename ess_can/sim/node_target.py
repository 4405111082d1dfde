"""What a node's UDS server works on: its own high-voltage gate, and its memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from ess_can.sim.programming import ProgrammingMemory
from ess_can.uds.target import Nrc, Operation


class Gate(Protocol):
    """What the application says about high voltage."""

    def programming_allowed(self, now: float) -> bool:
        """The node's own proof that high voltage is off."""

    def reset_allowed(self, now: float) -> bool:
        """Whether a restart is harmless."""


class NodeTarget(ABC):
    """What of `ess_can.uds.target.ProgrammingTarget` a node leaves to its memory, and to its application."""

    application: Gate

    @property
    @abstractmethod
    def memory(self) -> ProgrammingMemory:
        """The memory of a node that runs."""

    def programming_allowed(self, now: float) -> bool:
        """See `ProgrammingTarget`."""
        return self.application.programming_allowed(now)

    def reset_allowed(self, now: float) -> bool:
        """See `ProgrammingTarget`."""
        return self.application.reset_allowed(now)

    def erase(self, size: int, image_sha256: bytes, now: float) -> Operation | Nrc:
        """See `ProgrammingTarget`."""
        return self.memory.erase(size, image_sha256, now)

    def begin_download(self, address: int, size: int, now: float) -> int | Nrc:
        """See `ProgrammingTarget`."""
        return self.memory.begin_download(address, size, now)

    def write(self, data: bytes, now: float) -> Operation | Nrc:
        """See `ProgrammingTarget`."""
        return self.memory.write(data, now)

    def end_download(self, now: float) -> Operation | Nrc:
        """See `ProgrammingTarget`."""
        return self.memory.end_download(now)

    def abort_download(self, now: float) -> None:
        """See `ProgrammingTarget`."""
        self.memory.abort_download(now)

    def verify(self, crc32: int, now: float) -> Operation | Nrc:
        """See `ProgrammingTarget`."""
        return self.memory.verify(crc32, now)

    def read_back_crc32(self) -> int:
        """See `ProgrammingTarget`."""
        return self.memory.read_back_crc32()

    def activate_on_trial(self, now: float) -> Nrc | None:
        """See `ProgrammingTarget`."""
        return self.memory.activate_on_trial(now)

    def confirm(self, now: float) -> Nrc | None:
        """See `ProgrammingTarget`."""
        return self.memory.confirm(now)

    def revert(self, now: float) -> Nrc | None:
        """See `ProgrammingTarget`."""
        return self.memory.revert(now)
