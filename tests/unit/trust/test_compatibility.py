from __future__ import annotations

import dataclasses

import pytest

from ess_can.errors import (
    DependencyUnmet,
    EssCanError,
    SecurityCounterJump,
    SecurityDowngrade,
    VersionDowngrade,
    WrongHardware,
    WrongNodeType,
)
from ess_can.identity import NodeType, Version
from ess_can.image.manifest import Dependency, Manifest
from ess_can.image.node_image import parse_node_image
from ess_can.image.upgrade_file import describe_image
from ess_can.trust.compatibility import (
    MAX_COUNTER_STEP,
    Compatibility,
    NodeFacts,
    check_compatibility,
    check_dependencies,
)
from tests.firmware_images import CREATED, NEWER, small_image

IMAGE = parse_node_image(small_image(hardware_ids=(0x11, 0x13)))  # version 1.1.0, security counter 2
NODE = NodeFacts(NodeType.BMU, 0x11, Version(1, 0, 0), 1)


def test_newer_and_same() -> None:
    assert check_compatibility(IMAGE, NODE) is Compatibility.NEWER
    assert check_compatibility(IMAGE, dataclasses.replace(NODE, hardware_id=0x13)) is Compatibility.NEWER
    same = dataclasses.replace(NODE, version=Version(1, 1, 0), security_counter=2)
    assert check_compatibility(IMAGE, same) is Compatibility.SAME_VERSION


@pytest.mark.parametrize(
    ("node", "error"),
    [
        (dataclasses.replace(NODE, node_type=NodeType.CMU), WrongNodeType),
        (dataclasses.replace(NODE, hardware_id=0x12), WrongHardware),
        (dataclasses.replace(NODE, version=Version(1, 1, 0, 1)), VersionDowngrade),
        (dataclasses.replace(NODE, version=Version(2, 0, 0)), VersionDowngrade),
        (dataclasses.replace(NODE, security_counter=3), SecurityDowngrade),
        (dataclasses.replace(NODE, version=NEWER, security_counter=3), SecurityDowngrade),
        (NodeFacts(NodeType.CMU, 0x99, Version(9, 0, 0), 9), WrongNodeType),
        (NodeFacts(NodeType.BMU, 0x99, Version(9, 0, 0), 9), WrongHardware),
    ],
)
def test_refusals(node: NodeFacts, error: type[EssCanError]) -> None:
    with pytest.raises(error) as caught:
        check_compatibility(IMAGE, node)
    assert type(caught.value) is error


def test_the_counter_rises_by_a_bounded_step() -> None:
    image = dataclasses.replace(IMAGE, security_counter=1 + MAX_COUNTER_STEP)
    assert check_compatibility(image, NODE) is Compatibility.NEWER
    with pytest.raises(SecurityCounterJump):
        check_compatibility(dataclasses.replace(image, security_counter=2 + MAX_COUNTER_STEP), NODE)
    with pytest.raises(SecurityCounterJump):
        check_compatibility(IMAGE, NODE, max_counter_step=0)


def release(*node_types: NodeType, bmu_needs: Version = NEWER) -> Manifest:
    needs = {NodeType.BMU: (Dependency(NodeType.COMM_GATEWAY, bmu_needs),)}
    return Manifest(
        "Test",
        NEWER,
        CREATED,
        tuple(describe_image(small_image(node_type=kind), needs.get(kind, ())) for kind in node_types),
    )


OLD = {NodeType.BMU: Version(1, 0, 0), NodeType.COMM_GATEWAY: Version(1, 0, 0)}


def test_dependencies() -> None:
    check_dependencies(release(NodeType.BMU, bmu_needs=Version(1, 0, 0)), OLD)
    check_dependencies(release(NodeType.COMM_GATEWAY, NodeType.BMU), OLD)
    check_dependencies(release(NodeType.BMU), {**OLD, NodeType.COMM_GATEWAY: Version(3, 0, 0)})
    with pytest.raises(DependencyUnmet, match=r"version 1\.0\.0 runs"):
        check_dependencies(release(NodeType.BMU), OLD)
    with pytest.raises(DependencyUnmet, match=r"version 1\.0\.0 runs"):  # the wrong order
        check_dependencies(release(NodeType.BMU, NodeType.COMM_GATEWAY), OLD)
    with pytest.raises(DependencyUnmet, match="has none"):
        check_dependencies(release(NodeType.COMM_GATEWAY, NodeType.BMU), {NodeType.BMU: Version(1, 0, 0)})


def test_node_types_that_the_plant_lacks_need_nothing() -> None:
    check_dependencies(release(NodeType.BMU), {NodeType.COMM_GATEWAY: Version(1, 0, 0)})


def test_an_image_that_is_older_than_what_runs_lowers_nothing() -> None:
    newer = {**OLD, NodeType.COMM_GATEWAY: Version(3, 0, 0)}
    check_dependencies(release(NodeType.COMM_GATEWAY, NodeType.BMU, bmu_needs=Version(2, 0, 0)), newer)
