"""Hostile bytes: noise, and good input that was damaged where parsers are known to stumble."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 64, 127, 128, 255, 256, 4095, 4096, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000,
         0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)  # fmt: skip


def dice(target: str, case: int) -> random.Random:
    """What everything in a case is drawn from."""
    return random.Random(f"{target} {case}")


def noise(rng: random.Random, most: int) -> bytes:
    """Any bytes, often few."""
    return rng.randbytes(rng.choice((rng.randrange(most + 1), rng.randrange(min(most, 16) + 1))))


def one_of(rng: random.Random, *choices: T) -> T:
    return rng.choice(choices)


def mutated(rng: random.Random, good: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four damages: flipped bits; lost, doubled, foreign or new bytes; numbers at the edges of their type."""
    data = bytearray(good)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 4, 8, rng.randrange(1, 65)))
        match rng.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = noise(rng, 40)
            case 4:
                size = rng.choice((1, 2, 4, 8))
                number = rng.choice(EDGES) & (1 << 8 * size) - 1
                data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
            case 5:
                del data[at:]
            case 6 if others:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                data[at : at + length] = other[start : start + length]
            case _:
                data[at : at + length] = rng.randbytes(length)
    return bytes(data)
