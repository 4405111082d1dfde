"""Diagnostic clients that others wrote talk to our simulated nodes over the kernel's CAN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import can
import isotp
import pytest
from uds.addressing import AddressingType
from uds.can import CanAddressingInformation, PyCanTransportInterface
from uds.client import Client as PyUdsClient
from uds.message import UdsMessage
from udsoncan.client import Client
from udsoncan.connections import PythonIsoTpConnection
from udsoncan.exceptions import NegativeResponseException, TimeoutException
from udsoncan.typing import ClientConfig

from ess_can.errors import HeldOpenByChoice
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.dbc import StationCodec
from ess_can.uds.target import Did, Rid
from tests.bench.processes import Running, ess_can
from tests.bench.releases import image, write_release
from tests.bench.vcan.station import BUS, CHANNEL
from tests.support.uds_tester import CONFIG, program, read, unlock

BMU1 = NodeAddress(NodeType.BMU, 1)
RESTARTS_S = 10  # attempts of a second each
PY_UDS_ATTEMPTS = 5


@contextmanager
def udsoncan_client() -> Iterator[Client]:
    """udsoncan over can-isotp over python-can, as its documentation puts them together."""
    request_id, response_id = StationCodec.load().diagnostic_ids(BMU1)
    with can.Bus(CHANNEL, "socketcan") as bus:
        notifier = can.Notifier(bus, [], timeout=0.1)
        try:
            stack = isotp.NotifierBasedCanStack(
                bus,
                notifier,
                address=isotp.Address(txid=request_id, rxid=response_id),
                params={"stmin": 0, "blocksize": 0, "tx_padding": 0xCC, "rx_flowcontrol_timeout": 10_000},
            )
            config: ClientConfig = {**CONFIG, "use_server_timing": False, "p2_timeout": 10, "p2_star_timeout": 60}
            with Client(PythonIsoTpConnection(stack), config=config) as client:
                yield client
        finally:
            notifier.stop()


def read_when_booted(client: Client, did: Did) -> object:
    """What the node says once it answers again."""
    client.config["p2_timeout"] = 1
    for _ in range(RESTARTS_S):
        try:
            return read(client, did)
        except TimeoutException:
            continue
    raise AssertionError("the node did not come back")


def test_a_stock_udsoncan_client_flashes_a_bmu(plant: Running, tmp_path: Path) -> None:
    with udsoncan_client() as client:
        client.change_session(3)
        with pytest.raises(NegativeResponseException) as refused:
            client.start_routine(int(Rid.CHECK_PROGRAMMING_PRECONDITIONS))
        assert refused.value.response.code == 0x22, "high voltage is on"

    release = write_release(tmp_path / "gateway.essup", NodeType.COMM_GATEWAY, kib=2)
    code, told = ess_can("upgrade", release, *BUS, "--racks", "1", "--bench", "--hold-open")
    assert code == HeldOpenByChoice.exit_code, told["error"]

    with udsoncan_client() as client:
        program(client, image(NodeType.BMU, 8))
        assert read_when_booted(client, Did.SOFTWARE_VERSION) == "1.1.0"
        client.change_session(3)
        unlock(client)
        client.start_routine(int(Rid.CONFIRM_IMAGE))
    code, told = ess_can("inventory", *BUS, "--racks", "1")
    runs = {node["name"]: (node["version"], node["image"]) for node in told["nodes"]}
    assert (code, runs["bmu1"]) == (0, ("1.1.0", "confirmed"))
    assert plant.alive


def ask(client: PyUdsClient, request: bytes) -> bytes:
    """What is answered to a request.

    py-uds drops an answer that came before it could note when its request had left, which happens where one CPU serves
    both: it is asked again then.
    """
    message = UdsMessage(payload=list(request), addressing_type=AddressingType.PHYSICAL)
    for _ in range(PY_UDS_ATTEMPTS):
        try:
            _, responses = client.send_request_receive_responses(message)
        except TimeoutError:
            continue
        return bytes(responses[-1].payload)
    raise AssertionError(f"no answer to {request.hex()}")


@pytest.mark.filterwarnings("ignore:[PS]3Client:UserWarning", "ignore:Future time:RuntimeWarning")
def test_py_uds_reads_our_identifiers(plant: Running) -> None:
    codec = StationCodec.load()
    request_id, response_id = codec.diagnostic_ids(BMU1)
    functional_id = 0x7DF  # py-uds wants one; nothing is sent on it
    addressing = CanAddressingInformation(
        addressing_format="Normal Addressing",
        tx_physical_params={"can_id": request_id},
        rx_physical_params={"can_id": response_id},
        tx_functional_params={"can_id": functional_id},
        rx_functional_params={"can_id": response_id},
    )
    expected = {
        Did.SOFTWARE_VERSION: b"1.0.0",
        Did.SERIAL_NUMBER: b"BMU-000001",
        Did.HARDWARE_NUMBER: b"\x11",
        Did.NODE_TYPE: bytes((NodeType.BMU,)),
        Did.DBC_FINGERPRINT: codec.sha256,
        Did.SECURITY_COUNTER: (1).to_bytes(4, "big"),
    }
    only_answers = [{"can_id": response_id, "can_mask": 0x7FF}]
    with can.Bus(CHANNEL, "socketcan", can_filters=only_answers) as bus:
        transport = PyCanTransportInterface(bus, addressing)
        client = PyUdsClient(transport, p2_client_timeout=2_000, p3_client_physical=2_000, p3_client_functional=2_000)
        try:
            answers = {did: ask(client, bytes((0x22, *did.to_bytes(2, "big")))) for did in expected}
        finally:
            transport.notifier.stop()
    assert answers == {did: bytes((0x62, *did.to_bytes(2, "big"))) + value for did, value in expected.items()}
    assert plant.alive
