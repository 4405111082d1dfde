"""The DBC, its typed codec, and what a DBC that does not fit the code is told."""

from __future__ import annotations

import hashlib
import re
from itertools import combinations, groupby
from pathlib import Path

import pytest
from cantools.database.can.database import Database
from cantools.database.can.message import Message as DbcMessage

from ess_can.can.frame import EXTENDED_FLAG
from ess_can.errors import UsageError
from ess_can.identity import NodeAddress, NodeType
from ess_can.resources import dbc_path
from ess_can.signals.dbc import StationCodec
from ess_can.signals.e2e import protect
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellGroup,
    BmsCellSummary,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    HvNoticeCondition,
    ImageState,
    Message,
    NodeInfo,
    PcsCommandCode,
    PcsStatus,
    RackState,
)

BMUS = tuple(NodeAddress(NodeType.BMU, index) for index in range(1, 9))
BMU1, BMU2, BMU3 = BMUS[:3]
GATEWAY = NodeAddress(NodeType.COMM_GATEWAY)
INFO = NodeInfo(NodeType.BMU, 1, 9, ImageState.TRIAL, 0x2ABC, 7, 1, 2, 345)
PROTECTED = (EmsPcsCommand, PcsStatus, BmsHvStatus, BmsHvNotice)


@pytest.fixture(scope="module")
def text() -> str:
    return dbc_path().read_text("ascii")


@pytest.fixture(scope="module")
def database(text: str) -> Database:
    loaded = Database(strict=True)
    loaded.add_dbc_string(text)
    return loaded


@pytest.fixture(scope="module")
def shared() -> StationCodec:
    return StationCodec.load()


@pytest.fixture
def codec(shared: StationCodec) -> StationCodec:
    """The loaded codec with its counters at zero."""
    shared.counters = type(shared.counters)()
    return shared


# --- the DBC itself ---------------------------------------------------------------------------


def test_every_message_and_signal_is_described(database: Database) -> None:
    assert database.version == "1.1.0"
    for message in database.messages:
        assert message.comment, message.name
        for signal in message.signals:
            assert signal.comment, f"{message.name}.{signal.name}"
            assert signal.byte_order == "little_endian"
            assert signal.minimum is not None
            assert signal.maximum is not None
            assert signal.receivers
            assert message.senders[0] not in signal.receivers


def test_all_identifiers_are_standard_and_all_nodes_known(database: Database) -> None:
    names = [node.name for node in database.nodes]
    assert names == ["EMS", "PCS", *(f"BMU{index}" for index in range(1, 9)), "COMM_GATEWAY"]
    for message in database.messages:
        assert not message.is_extended_frame
        assert not message.is_fd
        assert {*message.senders, *message.receivers} <= set(names)


def test_racks_and_nodes_have_one_layout(database: Database) -> None:
    def family(message: DbcMessage) -> str:
        return re.sub(r"_(\d|BMU\d|COMM_GATEWAY)$", "", message.name)

    def layout(message: DbcMessage) -> list[object]:
        return [message.length, message.cycle_time, message.send_type] + [
            (s.name, s.start, s.length, s.is_signed, s.scale, s.offset, s.minimum, s.maximum, s.unit, s.multiplexer_ids)
            for s in message.signals
        ]

    messages = sorted((m for m in database.messages if m.name[:3] in ("BMS", "Nod", "UDS")), key=family)
    sizes = {}
    for name, members in groupby(messages, key=family):
        layouts = [layout(message) for message in members]
        assert all(one == layouts[0] for one in layouts), name
        sizes[name] = len(layouts)
    assert sorted(sizes.values()) == [8, 8, 8, 8, 8, 9, 9, 9]


def test_safety_frames_win_arbitration_and_the_image_stream_loses(database: Database) -> None:
    order = [
        "EMS_PcsCommand",
        "PCS_Status",
        "BMS_HvStatus_",
        "BMS_HvNotice_",
        "EMS_HvStatusPoll",
        "EMS_UpgradeNotice",
        "BMS_Alarms_",
        "BMS_State_",
        "BMS_Cells_",
        "Node_Info_",
        "UDS_Response_",
        "UDS_Request_",
    ]
    by_priority = [m.name for m in sorted(database.messages, key=lambda m: m.frame_id)]
    assert [next(i for i, start in enumerate(order) if name.startswith(start)) for name in by_priority] == sorted(
        next(i for i, start in enumerate(order) if name.startswith(start)) for name in by_priority
    )


def test_diagnostic_identifiers_cost_no_stuff_bit(codec: StationCodec) -> None:
    for node in codec.nodes():
        for can_id in codec.diagnostic_ids(node):
            # start of frame, identifier, RTR, IDE, r0, and the first bit of a data length of 8 (ISO 11898-1)
            header = f"0{can_id:011b}0001"
            assert max(len(list(run)) for _, run in groupby(header)) < 5


def test_diagnostic_channels_carry_vectors_attributes(database: Database, codec: StationCodec) -> None:
    connections = set()
    for node in codec.nodes():
        request, response = (database.get_message_by_frame_id(can_id) for can_id in codec.diagnostic_ids(node))
        pairs = []
        for message, mark in ((request, "DiagRequest"), (response, "DiagResponse")):
            assert message.dbc is not None
            assert message.dbc.attributes[mark].value == 1
            pairs.append(message.dbc.attributes["DiagConnection"].value)
        assert pairs[0] == pairs[1]
        connections.add(pairs[0])
    assert len(connections) == len(codec.nodes())


# --- routes -----------------------------------------------------------------------------------


def test_the_fingerprint_is_of_the_files_bytes(codec: StationCodec) -> None:
    digest = hashlib.sha256(dbc_path().read_bytes()).digest()
    assert codec.sha256 == digest
    assert f"{codec.fingerprint:014b}" == "".join(f"{byte:08b}" for byte in digest)[:14]
    assert codec.version == "1.1.0"


def test_another_dbc_has_another_fingerprint(codec: StationCodec, text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.dbc"
    path.write_text(text.replace('VERSION "1.1.0"', 'VERSION "1.1.1"'), "ascii")
    other = StationCodec.load(path)
    assert (other.version, other.fingerprint != codec.fingerprint, other.sha256 != codec.sha256) == (
        "1.1.1",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("message_type", "count", "cycle_s", "length"),
    [
        (EmsPcsCommand, 1, 0.05, 8),
        (EmsHvStatusPoll, 1, 0.1, 3),
        (EmsUpgradeNotice, 1, 0.5, 8),
        (PcsStatus, 1, 0.05, 8),
        (BmsHvStatus, 8, 0.05, 8),
        (BmsHvNotice, 8, None, 8),
        (BmsState, 8, 0.2, 6),
        (BmsCellSummary, 8, 0.1, 8),
        (BmsCellGroup, 8, 0.1, 8),
        (BmsAlarms, 8, 0.1, 2),
        (NodeInfo, 9, 0.5, 8),
    ],
)
def test_routes(
    codec: StationCodec, message_type: type[Message], count: int, cycle_s: float | None, length: int
) -> None:
    routes = codec.routes(message_type)
    assert len({route.can_id for route in routes}) == len(routes) == count
    assert {(route.cycle_s, route.length) for route in routes} == {(cycle_s, length)}
    assert all((route.e2e_data_id is not None) == (message_type in PROTECTED) for route in routes)
    if message_type is not NodeInfo:
        assert routes == tuple(codec.route(message_type, index) for index in range(1, count + 1))


def test_data_ids_are_unique(codec: StationCodec) -> None:
    data_ids = [route.e2e_data_id for message_type in PROTECTED for route in codec.routes(message_type)]
    assert len(set(data_ids)) == len(data_ids) == 18


def test_no_frame_with_one_wrong_bit_passes_for_another_senders(codec: StationCodec) -> None:
    """A few wrong bits can make up for another data ID, and which few depends on the IDs: these are chosen."""
    routes = [route for message_type in PROTECTED for route in codec.routes(message_type)]
    by_crc: dict[int, set[str]] = {}
    for route in routes:
        assert route.length == 8
        assert route.e2e_data_id is not None
        crc = int.from_bytes(protect(bytes(8), route.e2e_data_id, 0)[:2], "little")
        by_crc.setdefault(crc, set()).add(route.name)
    bits = [(1 << bit).to_bytes(8, "little") for bit in range(64)]
    base = int.from_bytes(protect(bytes(8), 0, 0)[:2], "little")
    moved = [
        int.from_bytes(wrong[:2], "little") ^ base ^ int.from_bytes(protect(wrong, 0, wrong[2])[:2], "little")
        for wrong in bits
    ]
    alike = {1: moved, 2: [one ^ other for one, other in combinations(moved, 2)]}
    found = {
        (number, frozenset(by_crc[crc] | by_crc[crc ^ change]))
        for number, changes in alike.items()
        for change in changes
        for crc in by_crc
        if crc ^ change in by_crc
    }
    assert found == {(2, frozenset({"PCS_Status", "BMS_HvNotice_3"}))}


def test_routes_know_their_sender(codec: StationCodec) -> None:
    rack3 = codec.route(BmsState, 3)
    assert (rack3.name, rack3.index, rack3.node) == ("BMS_State_3", 3, BMU3)
    command = codec.route(EmsPcsCommand)
    assert (command.name, command.index, command.node) == ("EMS_PcsCommand", 1, None)
    assert codec.node_route(GATEWAY).node == GATEWAY
    assert codec.node_route(BMU2).name == "Node_Info_BMU2"
    assert codec.route(NodeInfo, BMU2) == codec.node_route(BMU2)


def test_nodes_and_their_diagnostic_channels(codec: StationCodec) -> None:
    assert codec.nodes() == (GATEWAY, *BMUS)
    assert {node: codec.diagnostic_ids(node) for node in codec.nodes()} == {
        **{bmu: (0x605 + 0x10 * bmu.index, 0x505 + 0x10 * bmu.index) for bmu in BMUS},
        GATEWAY: (0x6A5, 0x5A5),
    }


def test_what_the_station_does_not_have_is_named(codec: StationCodec) -> None:
    bmu9 = NodeAddress(NodeType.BMU, 9)
    with pytest.raises(UsageError, match="BmsState of 9: it has 1, 2, 3, 4, 5, 6, 7, 8"):
        codec.route(BmsState, 9)
    with pytest.raises(UsageError, match="NodeInfo of bmu9: it has comm_gateway, bmu1"):
        codec.node_route(bmu9)
    with pytest.raises(UsageError, match="NodeInfo of 1"):
        codec.encode(INFO)
    with pytest.raises(UsageError, match="channel for bmu9: it has comm_gateway, bmu1"):
        codec.diagnostic_ids(bmu9)


# --- encode and decode ------------------------------------------------------------------------


def test_decoded_names_rack_and_node(codec: StationCodec) -> None:
    state = BmsState(RackState.OPEN, 50.0, None, 24.0)
    decoded = codec.decode(codec.route(BmsState, 2).can_id, codec.encode(state, 2))
    assert decoded is not None
    assert (decoded.message, decoded.index, decoded.node) == (state, 2, BMU2)
    decoded = codec.decode(codec.node_route(GATEWAY).can_id, codec.encode(INFO, GATEWAY))
    assert decoded is not None
    assert (decoded.message, decoded.node) == (INFO, GATEWAY)


def test_invalid_is_none_and_never_zero(codec: StationCodec) -> None:
    data = codec.encode(BmsState(RackState.OPEN, None, None, None))
    assert codec.decode(codec.route(BmsState).can_id, data) is not None
    zeros = codec.encode(BmsState(RackState.OPEN, 0.0, 0.0, 0.0))
    assert data != zeros
    for sent, expected in ((data, None), (zeros, 0.0)):
        decoded = codec.decode(codec.route(BmsState).can_id, sent)
        assert decoded is not None
        assert isinstance(decoded.message, BmsState)
        message = decoded.message
        assert (message.soc_percent, message.string_voltage_v, message.aux_voltage_v) == (expected,) * 3


def test_a_number_out_of_its_range_is_none(codec: StationCodec) -> None:
    data = bytearray(codec.encode(BmsState(RackState.OPEN, 100.0, 800.0, 24.0)))
    data[1:3] = (1001).to_bytes(2, "little")  # 100.1 %
    decoded = codec.decode(codec.route(BmsState).can_id, bytes(data))
    assert decoded is not None
    assert decoded.message == BmsState(RackState.OPEN, None, 800.0, 24.0)


def test_reserved_bits_do_not_matter(codec: StationCodec) -> None:
    can_id = codec.route(BmsAlarms).can_id
    decoded = codec.decode(can_id, b"\x01\xf0")
    assert decoded is not None
    assert decoded.message == BmsAlarms(overvoltage=True)


def test_what_cannot_be_decoded_is_none_and_counted(codec: StationCodec) -> None:
    state = codec.route(BmsState).can_id
    assert codec.decode(0x7FF, bytes(8)) is None
    assert codec.decode(state | EXTENDED_FLAG, bytes(6)) is None
    assert codec.decode(codec.diagnostic_ids(BMU1)[0], bytes(8)) is None
    for data in (b"", bytes(5), bytes(7), bytes(64)):
        assert codec.decode(state, data) is None
    assert codec.decode(state, b"\x05" + bytes(5)) is None  # RackState 5
    cells = codec.route(BmsCellGroup).can_id
    for page in (5, 255):
        assert codec.decode(cells, bytes([page]) + bytes(7)) is None
    counters = codec.counters
    assert (counters.unknown_id, counters.wrong_length, counters.bad_value) == (3, 4, 3)


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (
            EmsPcsCommand(PcsCommandCode.RUN, 3276.8),
            ("EmsPcsCommand.power_setpoint_kw", "EMS_PcsCommand.PowerSetpoint"),
        ),
        (EmsPcsCommand(PcsCommandCode.RUN, float("nan")), ("EmsPcsCommand.power_setpoint_kw", "nan")),
        (EmsPcsCommand(PcsCommandCode.RUN, float("-inf")), ("EmsPcsCommand.power_setpoint_kw", "inf")),
        (EmsHvStatusPoll(0x1000000), ("EmsHvStatusPoll.token", "EMS_HvStatusPoll.Token")),
        (EmsHvStatusPoll(-1), ("EmsHvStatusPoll.token", "EMS_HvStatusPoll.Token")),
        (BmsState(RackState.OPEN, 100.1, 0.0, 0.0), ("BmsState.soc_percent", "BMS_State_1.Soc", "0 to 100 %")),
        (BmsState(RackState.OPEN, 50.0, 2047.75, 0.0), ("BmsState.string_voltage_v", "BMS_State_1.StringVoltage")),
        (BmsHvNotice(0, HvNoticeCondition.DISCONNECTED, -0.1), ("BmsHvNotice.off_duration_s", "OffDuration")),
        (BmsCellGroup(5, 3.0, 3.0, 3.0), ("BMS_Cells_1", "page")),
        (BmsCellGroup(0, 3.0, 3.0, 3.0), ("BMS_Cells_1", "page")),
    ],
)
def test_what_does_not_fit_is_refused(codec: StationCodec, message: Message, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refused:
        codec.encode(message)
    for name in names:
        assert name in str(refused.value)


@pytest.mark.parametrize("duration", [409.5, 409.6, 1e9, float("inf")])
def test_off_duration_saturates(codec: StationCodec, duration: float) -> None:
    notice = BmsHvNotice(7, HvNoticeCondition.DISCONNECTED, duration)
    decoded = codec.decode(codec.route(BmsHvNotice).can_id, codec.encode(notice))
    assert decoded is not None
    assert decoded.message == BmsHvNotice(7, HvNoticeCondition.DISCONNECTED, 409.5)


def test_the_e2e_header_is_left_zero(codec: StationCodec) -> None:
    assert codec.encode(BmsHvNotice(0xFFFFFF, HvNoticeCondition.UNKNOWN, 409.5), 4)[:3] == bytes(3)


def test_what_the_ems_alone_sends_is_known_by_name() -> None:
    codec = StationCodec.load()
    assert {name for name in codec.gateway_messages.values() if name.startswith("EMS")} == {
        "EMS_PcsCommand",
        "EMS_HvStatusPoll",
        "EMS_UpgradeNotice",
    }
    assert codec.gateway_messages[codec.route(EmsPcsCommand).can_id] == "EMS_PcsCommand"
    requests = {codec.diagnostic_ids(node)[0] for node in codec.nodes()}
    assert {can_id for can_id, name in codec.gateway_messages.items() if name.startswith("UDS_Request")} == requests
    assert len(codec.gateway_messages) == 3 + len(requests)
