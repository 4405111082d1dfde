"""All BMUs that the DBC has, programmed at the same time: the wire is the limit, and next to nothing is lost.

`python -m benchmarks.eight_nodes` measures the same with larger images.
"""

from __future__ import annotations

import pytest

from benchmarks.eight_nodes import measure
from ess_can.cli.embedded import plant_spec
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.identity import NodeType
from tests.scenario.support import station_codec

RACKS = sum(node.node_type is NodeType.BMU for node in station_codec().nodes())
LIMIT = 1.05
IMAGE_KIB = 32


@pytest.mark.parametrize("fd", [False, True], ids=["500k", "FD 500k/2M"])
def test_all_together_take_hardly_longer_than_their_images_on_the_wire(fd: bool) -> None:
    figure = measure(plant_spec(None, fd, None, RACKS, 1), IMAGE_KIB)
    assert figure.nodes == RACKS
    assert 1.0 < figure.ratio <= LIMIT


def test_one_after_the_other_they_would_not() -> None:
    spec = plant_spec(None, True, None, 3, 1)
    addresses = spec.addresses
    one_by_one = measure(spec, IMAGE_KIB, GatewayConfig(addresses, bus=BusLimits(nodes_at_once=1)))
    assert one_by_one.ratio > 1.5
    assert one_by_one.elapsed_s > 1.5 * measure(spec, IMAGE_KIB).elapsed_s
