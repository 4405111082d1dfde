"""Every state that a cut may leave, without running up to each cut: a node's memories are forked at each write.

While a node works, each write is done again on a copy, once for every operation in it, mode and seed, with power cut
there: by the memories' own code.  States that no node can tell from each other are kept once and counted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import (
    BootRecord,
    NodeRecords,
    RecordPayload,
)
from ess_can.sim.flash import Flash, FlashError
from ess_can.sim.flash_cells import FlashAction
from ess_can.sim.fram import Fram
from ess_can.sim.power_cut import TEARING, CutMode
from tests.campaign.cuts import seeds, taken_over
from tests.unit.sim.memory_rig import FRAM, Rig, RigState

TORN = 2
"""How often the bits that tear are drawn."""
CASES = [(mode, seed) for mode in CutMode for seed in seeds(mode, TORN)]
READINGS = 6
"""How often a memory with undecided bits is booted."""

Outcome = tuple[ImageState, str, int]
"""Standing, version and security counter of what boots."""


Key = tuple[object, ...]


class ForkingFram(Fram):
    """Tells of each write before it happens."""

    fork: Callable[[int, bytes], None] | None = None

    def write(self, address: int, data: bytes) -> bool:
        """See `Fram`."""
        if self.fork is not None:
            self.fork(address, data)
        return super().write(address, data)


class ForkingFlash(Flash):
    """Tells of each operation before it takes effect."""

    fork: Callable[[FlashAction, int, int, bytes], None] | None = None
    _data = b""

    def start_program(self, bank: int, offset: int, data: bytes, now: float) -> float | FlashError:
        """See `Flash`."""
        self._data = data
        return super().start_program(bank, offset, data, now)

    def complete(self, bank: int, now: float) -> FlashError | None:
        """See `Flash`."""
        pending = self._banks[bank].pending
        if self.fork is not None and pending is not None:
            self.fork(pending[0].action, bank, pending[0].offset, self._data)
        return super().complete(bank, now)


class ForkingRig(Rig):
    """A node whose memories tell of each write."""

    FLASH = ForkingFlash
    FRAM = ForkingFram


@dataclass(frozen=True, slots=True)
class Fork:
    """Memories that a cut left, in how many ways, and what may boot from them."""

    state: RigState
    allowed: frozenset[Outcome]
    ways: int


class Forks:
    """What cuts in a deed leave, each state once."""

    def __init__(self, tries: int) -> None:
        self.found: dict[Key, Fork] = {}
        self.ways = 0
        self._tries = tries
        self._copy = Rig()

    def watch(self, rig: Rig) -> None:
        """Fork at each write of this node from now on."""
        fram, flash = rig.fram, rig.flash
        if not isinstance(fram, ForkingFram) or not isinstance(flash, ForkingFlash):
            raise TypeError("not a forking rig")
        copy = self._copy

        def on_fram(address: int, data: bytes) -> None:
            before = rig.state()
            # a byte that is as it shall be already is left so in every mode (tests/unit/sim/test_fram.py)
            idle = {
                at
                for at, byte in enumerate(data, address)
                if before.fram[at] == byte and at not in dict(before.undecided)
            }
            weights = [len(CASES) if at in idle else 1 for at in range(address, address + len(data))]
            self._fork(before, weights, False, lambda: copy.fram.write(address, data))

        def on_flash(action: FlashAction, bank: int, offset: int, data: bytes) -> None:
            count = 1 if action is FlashAction.ERASE else len(data) // flash.geometry.unit_size
            self._fork(rig.state(), [1] * count, True, lambda: operate(copy.flash, action, bank, offset, data))

        fram.fork, flash.fork = on_fram, on_flash

    def _fork(self, before: RigState, weights: list[int], in_flash: bool, write: Callable[[], object]) -> None:
        """`weights` has each operation's number of cases that are the same and need be done but once."""
        copy = self._copy
        copy.take_over(before)
        copy.flash.running_bank = None
        write()
        allowed = outcomes(before, self._tries) | outcomes(copy.state(), self._tries)
        left: Counter[RigState] = Counter()
        for at, weight in enumerate(weights):
            for mode, seed in CASES if weight == 1 else CASES[:1]:
                if mode in TEARING:
                    copy.rng.seed(seed * len(weights) + at)
                if in_flash:
                    copy.take_over(before)
                else:
                    copy.take_over_fram(before)
                copy.power.arm(at, mode)
                write()
                copy.power.restore()
                left[copy.state() if in_flash else copy.with_banks(before.banks)] += weight
        for state, ways in left.items():
            key = (meaning(state), allowed)
            known = self.found.get(key)
            self.found[key] = replace(known, ways=known.ways + ways) if known else Fork(state, allowed, ways)
        self.ways += left.total()


def operate(flash: Flash, action: FlashAction, bank: int, offset: int, data: bytes) -> None:
    if action is FlashAction.ERASE:
        done_at = flash.start_erase(bank, offset // flash.geometry.sector_size, 0.0)
    else:
        done_at = flash.start_program(bank, offset, data, 0.0)
    assert isinstance(done_at, float)
    flash.complete(bank, done_at)
    flash.power_loss(done_at)


def outcome(state: RigState, tries: int, seed: int) -> Outcome:
    """What boots from this memory."""
    rig = taken_over(state, tries, seed)
    rig.power_cycle()
    return rig.standing, rig.version, rig.bootloader.record.security_counter


def outcomes(state: RigState, tries: int) -> frozenset[Outcome]:
    """All that may boot from this memory."""
    return frozenset(outcome(state, tries, seed) for seed in readings(state))


def readings(state: RigState) -> range:
    """How often a memory is booted: what is undecided reads differently."""
    return range(READINGS if state.undecided else 1)


# --- which states are the same ----------------------------------------------------------------


def meaning(state: RigState) -> Key:
    """What of a node's memory decides on its future.

    Of flash all but wear.  Of the records what each slot reads as, with the boot counter left out and sequence numbers
    taken relative to each other; what is in a slot that does not read as a record cannot matter, since it is
    overwritten before it counts.  Undecided bits are left out only where no value of theirs makes the slot valid.
    """
    banks = tuple((bank.content, bank.unit_states) for bank in state.banks)
    undecided = dict(state.undecided)
    key: list[object] = [banks]
    for kind, (first, second, end) in enumerate(_LAYOUT):
        slots = (first, second), (second, end)
        known = [_slot(kind, state.fram[at:to], _bits(undecided, at, to)) for at, to in slots]
        a, b = known
        if isinstance(a, _Read) and isinstance(b, _Read):
            key.append((a.value, b.value, (b.sequence - a.sequence) & 0xFFFF_FFFF))
        else:
            key.append(tuple(read.value if isinstance(read, _Read) else read for read in known))
    return tuple(key)


@dataclass(frozen=True, slots=True)
class _Read:
    """A valid slot."""

    sequence: int
    value: RecordPayload


def _bits(undecided: dict[int, int], start: int, end: int) -> tuple[tuple[int, int], ...]:
    return tuple((at - start, bits) for at, bits in undecided.items() if start <= at < end)


_NODE_RECORDS = NodeRecords(Fram(random.Random(1), size=FRAM))
_RECORDS = (_NODE_RECORDS.boot, _NODE_RECORDS.resume, _NODE_RECORDS.access_delay, _NODE_RECORDS.latches)
_LAYOUT = [(*record._slots, record.end) for record in _RECORDS]


@cache
def _slot(kind: int, content: bytes, undecided: tuple[tuple[int, int], ...]) -> object:
    """What a slot reads as: a record, None, or its very bytes if it may be either."""
    values = [content]
    for at, bits in undecided:
        values = [
            value[:at] + bytes([value[at] & ~bits | chosen]) + value[at + 1 :]
            for value in values
            for chosen in range(256)
            if chosen & ~bits == 0
        ]
    reads = {_decode(kind, value) for value in values}
    if reads == {None}:
        return None
    return reads.pop() if not undecided else (content, undecided)


def _decode(kind: int, content: bytes) -> _Read | None:
    found = _RECORDS[kind]._parse(0, content)
    if found is None:
        return None
    value = found.value
    return _Read(found.sequence, replace(value, boot_counter=0) if isinstance(value, BootRecord) else value)
