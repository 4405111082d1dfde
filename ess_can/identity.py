"""Words that every layer shares about a node: its type and its firmware version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:\+(\d+))?")


class NodeType(IntEnum):
    """The kinds of upgradable node; the numbers are those of the DBC and of the image's node-type field."""

    COMM_GATEWAY = 1
    BMU = 2
    CMU = 3


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A firmware version as the MCUboot image header holds it: u8 major, u8 minor, u16 revision, u32 build."""

    major: int
    minor: int
    revision: int
    build: int = 0

    def __post_init__(self) -> None:
        limits = (0xFF, 0xFF, 0xFFFF, 0xFFFF_FFFF)
        for value, limit in zip((self.major, self.minor, self.revision, self.build), limits, strict=True):
            if not 0 <= value <= limit:
                raise ValueError(f"version field {value} is outside 0..{limit}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1.2.3`` or ``1.2.3+4``.  Raises ValueError for anything else."""
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a version such as 1.2.3 or 1.2.3+4")
        major, minor, revision, build = (int(group or 0) for group in match.groups())
        return cls(major, minor, revision, build)

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.revision}"
        return f"{text}+{self.build}" if self.build else text


@dataclass(frozen=True, slots=True, order=True)
class NodeAddress:
    """One node of the station: its type and, where the station has several of the type, its number from 1."""

    node_type: NodeType
    index: int = 1

    def __str__(self) -> str:
        return (
            "comm_gateway" if self.node_type is NodeType.COMM_GATEWAY else f"{self.node_type.name.lower()}{self.index}"
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``bmu2`` or ``comm_gateway``.  Raises ValueError for anything else."""
        if text == "comm_gateway":
            return cls(NodeType.COMM_GATEWAY)
        match = re.fullmatch(r"(bmu|cmu)([1-9]\d*)", text)
        if match is None:
            raise ValueError(f"{text!r} is not a node such as bmu1 or comm_gateway")
        return cls(NodeType[match[1].upper()], int(match[2]))
