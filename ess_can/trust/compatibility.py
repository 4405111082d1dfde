"""Whether a node may take an image: right kind, right hardware, not older, not less secure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ess_can.errors import (
    DependencyUnmet,
    SecurityCounterJump,
    SecurityDowngrade,
    VersionDowngrade,
    WrongHardware,
    WrongNodeType,
)
from ess_can.identity import NodeType, Version
from ess_can.image.manifest import Manifest
from ess_can.image.node_image import NodeImage

MAX_COUNTER_STEP: Final = 1 << 24
"""Largest rise of the security counter at once: one major version, as `imgtool sign --security-counter auto` counts."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself."""

    node_type: NodeType
    hardware_id: int
    version: Version
    security_counter: int


class Compatibility(Enum):
    """The verdict on an image that a node may take."""

    NEWER = "newer"
    SAME_VERSION = "same version"  # nothing to do


def check_compatibility(image: NodeImage, node: NodeFacts, max_counter_step: int = MAX_COUNTER_STEP) -> Compatibility:
    """Whether `node` may take `image`, of which the facts were verified before.

    Raises WrongNodeType, WrongHardware, VersionDowngrade, SecurityDowngrade, SecurityCounterJump, in this order.
    """
    if image.node_type is not node.node_type:
        raise WrongNodeType(
            "the image is for another type of node",
            why=f"it is for {image.node_type.name.lower()}, the node is {node.node_type.name.lower()}",
        )
    if node.hardware_id not in image.hardware_ids:
        accepted = ", ".join(f"{number:#04x}" for number in image.hardware_ids)
        raise WrongHardware(
            "the image is for other hardware",
            why=f"it is for hardware id {accepted}, the node has {node.hardware_id:#04x}",
        )
    if image.version < node.version:
        raise VersionDowngrade(
            "the image is older than what runs", why=f"version {image.version}, the node runs {node.version}"
        )
    if image.security_counter < node.security_counter:
        raise SecurityDowngrade(
            "the image is less secure than what the node has seen",
            why=f"security counter {image.security_counter}, the node's is {node.security_counter}",
        )
    if image.security_counter - node.security_counter > max_counter_step:
        raise SecurityCounterJump(
            "the image would use up the node's security counter",
            why=f"security counter {image.security_counter}, the node's is {node.security_counter}, "
            f"a step may be {max_counter_step} at most",
        )
    return Compatibility.SAME_VERSION if image.version == node.version else Compatibility.NEWER


def check_dependencies(manifest: Manifest, lowest: Mapping[NodeType, Version]) -> None:
    """Whether each image finds what it needs of other node types, when all are installed in order.

    `lowest` gives the lowest version that runs now among the plant's nodes of each type that it has; node types that
    the plant does not have need nothing and satisfy nothing.  Raises DependencyUnmet.
    """
    reached = dict(lowest)
    for image in manifest.images:
        if image.node_type not in reached:
            continue
        for need in image.depends:
            running = reached.get(need.node_type)
            if running is None or running < need.min_version:
                other = need.node_type.name.lower()
                raise DependencyUnmet(
                    f"the {image.node_type.name.lower()} image needs {other} {need.min_version} or newer",
                    why="the plant has none" if running is None else f"version {running} runs at that point",
                )
        reached[image.node_type] = max(image.version, reached[image.node_type])
