from __future__ import annotations

import pytest

from ess_can.cli.bus_options import BusOptions
from ess_can.cli.station_options import StationOptions
from ess_can.cli.visit import visit
from ess_can.errors import BusSilent, InterfaceUnavailable, UsageError
from ess_can.gateway.plan import listen
from ess_can.gateway.station_master import StationMaster


def options(interface: str = "virtual") -> BusOptions:
    return BusOptions(interface, "test_visit")


async def racks(master: StationMaster) -> tuple[int, ...]:
    return master.config.racks


async def fail(_master: StationMaster) -> None:
    raise BusSilent("as asked")


@pytest.mark.parametrize("sim", [True, False])
def test_the_look_gets_the_station(sim: bool) -> None:
    assert visit(options(), StationOptions(3), racks, sim=sim) == (1, 2, 3)


def test_in_simulation_two_racks_unless_said_otherwise() -> None:
    assert visit(options(), StationOptions(None), racks, sim=True) == (1, 2)
    with pytest.raises(UsageError, match="number of racks"):
        visit(options(), StationOptions(None), racks, sim=False)


@pytest.mark.parametrize("sim", [True, False])
def test_what_the_look_raises_comes_through(sim: bool) -> None:
    with pytest.raises(BusSilent, match="as asked"):
        visit(options(), StationOptions(1), fail, sim=sim)
    if not sim:  # and the bus was closed: it opens again
        assert visit(options(), StationOptions(1), racks, sim=False) == (1,)


def test_a_bus_that_is_not_there_and_one_that_is_silent() -> None:
    with pytest.raises(InterfaceUnavailable):
        visit(options("nonsense"), StationOptions(1), racks, sim=False)
    with pytest.raises(BusSilent):
        visit(options(), StationOptions(1), listen, sim=False)
