import pytest

from ess_can.errors import UsageError
from ess_can.gateway.config import GatewayConfig
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
