"""Every kind of fault does something in an upgrade of the smallest plant, and the same again with the same seed."""

from __future__ import annotations

import pytest

from ess_can.campaign.faults import EXAMPLES
from ess_can.campaign.station import Station
from tests.unit.campaign.stations import on_station, to_the_end


async def whole(station: Station) -> tuple[bool, str]:
    await to_the_end(station)
    return station.took_effect(station.faults[0]), station.plant.trace.hexdigest()


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_takes_effect(example: str) -> None:
    took_effect, _ = on_station(whole, example)
    assert took_effect


RANDOM = [
    "frame:request#7:corrupted",
    "bus:foreign@PROGRAM+0.5~1",
    "bus:second-gateway@PROGRAM+0.5~1",
    "node:bmu1:garbage@0.8",
    "flash:bmu1:40:prefix",
    "flash:bmu1:40:bits",
    "flash:bmu1:40:unstable",
    "plant:hv-status-bad:1@PROGRAM+0.1~2",
]


@pytest.mark.parametrize("fault", RANDOM)
def test_what_is_random_follows_from_the_seed(fault: str) -> None:
    assert on_station(whole, fault) == on_station(whole, fault)
