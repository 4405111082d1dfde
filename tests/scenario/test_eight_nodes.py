"""All BMUs that the DBC has, programmed at the same time: the wire is the limit, and next to nothing is lost.

`python -m benchmarks.eight_nodes` measures the same with larger images.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.eight_nodes import LIMIT, measure
from ess_can.cli.embedded import plant_spec
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.identity import NodeType
from ess_can.sim.parts import STM32F103XG, STM32F429, STM32G474, FlashPart
from tests.scenario.support import station_codec

RACKS = sum(node.node_type is NodeType.BMU for node in station_codec().nodes())
IMAGE_KIB = 32


@pytest.mark.parametrize("fd", [False, True], ids=["500k", "FD 500k/2M"])
def test_all_together_take_hardly_longer_than_their_images_on_the_wire(fd: bool) -> None:
    figure = measure(plant_spec(None, fd, None, RACKS, 1), IMAGE_KIB)
    assert figure.nodes == RACKS
    assert 1.0 < figure.ratio <= LIMIT == 1.05


@pytest.mark.parametrize(
    ("part", "kib"),
    [(STM32F429, 64), (STM32G474, 128), (STM32F103XG, 200)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_other_flash_keeps_up_with_eight_nodes_on_can_fd(part: FlashPart, kib: int) -> None:
    figure = measure(replace(plant_spec(None, True, None, RACKS, 1), flash=part), kib)
    assert figure.part == part.name
    assert 1.0 < figure.ratio <= LIMIT


def test_flash_that_is_slower_than_eight_images_on_the_wire_is_the_limit() -> None:
    """Small images, of which the last block and the read-back are a large part; on classic CAN it does not show."""
    spec = replace(plant_spec(None, True, None, RACKS, 1), flash=STM32F103XG)
    figure = measure(spec, 32)
    assert figure.flash_s > figure.wire_s
    assert figure.ratio > LIMIT


def test_one_after_the_other_they_would_not() -> None:
    spec = plant_spec(None, True, None, 3, 1)
    addresses = spec.addresses
    one_by_one = measure(spec, IMAGE_KIB, GatewayConfig(addresses, bus=BusLimits(nodes_at_once=1)))
    assert one_by_one.ratio > 1.5
    assert one_by_one.elapsed_s > 1.5 * measure(spec, IMAGE_KIB).elapsed_s
