import pytest

from ess_can.bus.load_limit import YIELD_SHARE, LoadLimit
from ess_can.errors import UsageError
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.identity import NodeAddress, NodeType
from tests.support.scripted_plant import BMU1, BMU2

COMM = NodeAddress(NodeType.COMM_GATEWAY)


def test_racks_are_the_bmus_in_order() -> None:
    assert GatewayConfig((BMU2, COMM, BMU1)).racks == (1, 2)


def test_without_a_rack_nothing_can_prove_that_hv_is_off() -> None:
    with pytest.raises(UsageError, match="no rack"):
        GatewayConfig((COMM,))


def test_no_node_twice() -> None:
    with pytest.raises(UsageError, match="twice"):
        GatewayConfig((BMU1, BMU1))


def test_serial_numbers_are_of_nodes_that_are_expected() -> None:
    config = GatewayConfig((BMU1,), serials=((BMU1, "BMU-000001"),))
    assert config.serial_of(BMU1) == "BMU-000001"
    assert config.serial_of(NodeAddress(NodeType.BMU, 2)) is None
    with pytest.raises(UsageError, match="not expected"):
        GatewayConfig((BMU1,), serials=((NodeAddress(NodeType.BMU, 2), "BMU-000002"),))


@pytest.mark.parametrize(
    ("limits", "load"),
    [
        (BusLimits(), None),
        (BusLimits(100.0), None),
        (BusLimits(40.0), LoadLimit(0.4)),
        (BusLimits(yield_to_traffic=True), LoadLimit(YIELD_SHARE, yields=True)),
        (BusLimits(100.0, yield_to_traffic=True), LoadLimit(1.0, yields=True)),
        (BusLimits(40.0, yield_to_traffic=True), LoadLimit(0.4, yields=True)),
    ],
    ids=str,
)
def test_a_cap_on_the_bus_load(limits: BusLimits, load: LoadLimit | None) -> None:
    assert limits.load == load


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.1])
def test_what_is_no_share_of_the_bus(percent: float) -> None:
    with pytest.raises(UsageError, match="no share"):
        BusLimits(percent)
