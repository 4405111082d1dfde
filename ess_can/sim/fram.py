"""A small byte-writable non-volatile memory, as a node keeps its records in.

A byte is written whole or, when power fails in it, holds a mixture of its old and new bits, or is undecided between
them and reads differently each time until it is written again; a write of several bytes may end after any of them.
Writing takes no time that matters here (tens of microseconds a record over SPI) and does not wear (endurance is beyond
any life of a node).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ess_can.sim.power_cut import CutMode, PowerCut

FRAM_SIZE = 8192
"""Bytes of the usual part: 64 kbit."""


class Fram:
    """Byte-writable memory, zeros when new.

    `power` is shared with the node's flash, each written byte being one of its operations; `rng` decides which bits
    of a torn byte were written.  `cells` are the bytes in place, new ones in RAM unless given.  `unstable` has the
    undecided bits by address; they settle when the process ends.  Whoever watches is in `on_write`, called after each
    write with its address and length, however far it came.
    """

    def __init__(
        self,
        rng: random.Random,
        power: PowerCut | None = None,
        size: int = FRAM_SIZE,
        *,
        cells: memoryview | None = None,
    ) -> None:
        self.power = power or PowerCut()
        self.on_write: list[Callable[[int, int], None]] = []
        self._rng = rng
        self._content = memoryview(bytearray(size)) if cells is None else cells
        self.unstable: dict[int, int] = {}

    @property
    def size(self) -> int:
        """Capacity in bytes."""
        return len(self._content)

    def read(self, address: int, length: int) -> bytes:
        """The bytes at `address`.  Raises ValueError outside the memory."""
        self._check(address, length)
        content = bytearray(self._content[address : address + length])
        for at, undecided in self.unstable.items():
            if address <= at < address + length:
                content[at - address] ^= self._rng.choice((0, undecided, undecided & self._rng.getrandbits(8)))
        return bytes(content)

    def write(self, address: int, data: bytes) -> bool:
        """Write bytes in rising order; false if power did not last.  Raises ValueError outside the memory."""
        self._check(address, len(data))
        admitted = self.power.admit(len(data))
        end = address + admitted.whole
        self._content[address:end] = data[: admitted.whole]
        for at in range(address, end) if self.unstable else ():
            self.unstable.pop(at, None)
        if admitted.torn:
            self._tear(end, data[admitted.whole], admitted.torn)
        for tell in self.on_write:
            tell(address, len(data))
        return admitted.whole == len(data)

    def export(self) -> bytes:
        """The whole content."""
        return bytes(self._content)

    def restore(self, content: bytes) -> None:
        """Take over an exported content.  Raises ValueError if it is of another size."""
        if len(content) != self.size:
            raise ValueError(f"content has {len(content)} bytes, not {self.size}")
        self._content[:] = content
        self.unstable.clear()

    def _tear(self, at: int, wanted: int, mode: CutMode) -> None:
        """Leave a byte half written; bits that are as wanted already are not torn."""
        undecided = self.unstable.pop(at, 0)
        if mode is CutMode.UNSTABLE:
            undecided |= self._content[at] ^ wanted
        else:  # a byte goes in by its highest bit first
            prefix = 0xFF00 >> self._rng.randrange(1, 8) & 0xFF
            written = prefix if mode is CutMode.PREFIX else self._rng.getrandbits(8)
            self._content[at] = self._content[at] & ~written | wanted & written
            undecided &= ~written
        if undecided:
            self.unstable[at] = undecided

    def _check(self, address: int, length: int) -> None:
        if address < 0 or length < 0 or address + length > self.size:
            raise ValueError(f"bytes {address}..{address + length} are outside the {self.size} of the memory")
