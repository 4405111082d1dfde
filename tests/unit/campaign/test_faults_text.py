"""Faults as texts: every kind has one, and it reads as it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ess_can.campaign.faults import (
    EXAMPLES,
    Fault,
    FaultKind,
    bus,
    fault_help,
    frames,
    gateway,
    memories,
    nodes,
    parse_fault,
    plant,
)
from ess_can.errors import UsageError
from ess_can.identity import NodeAddress, NodeType
from tests.unit.campaign.test_moments import MOMENTS

NODES = st.builds(NodeAddress, st.just(NodeType.BMU), st.integers(1, 99)) | st.just(NodeAddress(NodeType.COMM_GATEWAY))
AMOUNTS = st.none() | st.floats(0.001, 1e6)
COUNTS = st.integers(0, 10**6)


@st.composite
def frame_faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(list(frames.WAYS.values())))
    delay_s = draw(st.floats(0, 100)) if kind is FaultKind.FRAME_DELAYED else frames.DELAY_S
    return frames.FrameFault(
        kind, draw(COUNTS), draw(st.none() | st.sampled_from(frames.CLASSES)), draw(st.integers(1, 99)), delay_s
    )


@st.composite
def bus_faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(list(bus.NAMES.values())))
    counted = kind in (FaultKind.BUS_OFF, FaultKind.BUS_BABBLER, FaultKind.BUS_ERRORS)
    return bus.BusFault(kind, draw(MOMENTS), draw(AMOUNTS) if counted else None)


@st.composite
def node_faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(list(nodes.NAMES.values())))
    amount = None
    if kind is FaultKind.NODE_SLOW:
        amount = draw(AMOUNTS)
    elif kind is FaultKind.NODE_REFUSES:
        amount = float(draw(st.integers(0x10, 0xFF)))
    return nodes.NodeFault(draw(NODES), kind, draw(MOMENTS), amount)


@st.composite
def plant_faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(list(plant.NAMES.values())))
    return plant.PlantFault(kind, draw(MOMENTS), draw(st.integers(1, 8)) if kind in plant.OF_A_RACK else 1)


@st.composite
def gateway_faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(list(gateway.NAMES.values())))
    counted = kind in (FaultKind.GATEWAY_STARVED, FaultKind.GATEWAY_SUSPENDED, FaultKind.CLOCK_JUMPS)
    back = kind is FaultKind.CLOCK_JUMPS and draw(st.booleans())
    return gateway.GatewayFault(kind, draw(MOMENTS), draw(AMOUNTS) if counted else None, back)


FAULTS: st.SearchStrategy[Fault] = st.one_of(
    frame_faults(),
    bus_faults(),
    node_faults(),
    st.builds(nodes.FirmwareFault, NODES, st.sampled_from(list(nodes.FIRMWARE.values()))),
    st.builds(
        memories.PowerCutFault,
        NODES,
        st.sampled_from(list(memories.CUTS.values())),
        st.lists(COUNTS, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(memories.FlashDamage, NODES, st.sampled_from(list(memories.DAMAGE.values())), MOMENTS, COUNTS),
    plant_faults(),
    gateway_faults(),
    st.builds(gateway.KillAtStep, COUNTS, st.integers(1, 9)),
    st.builds(
        gateway.EntryFault,
        st.sampled_from(
            [
                FaultKind.KILL_BEFORE_COMMIT,
                FaultKind.KILL_AFTER_COMMIT,
                FaultKind.DISK_FULL,
                FaultKind.DISK_ERROR,
            ]
        ),
        COUNTS,
    ),
)


@given(FAULTS)
def test_a_fault_reads_as_it_is_written(fault: Fault) -> None:
    assert parse_fault(fault.text) == fault
    assert "\n" not in fault.text


def test_every_kind_has_one_example() -> None:
    assert [parse_fault(example).kind for example in EXAMPLES] == list(FaultKind)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_written_as_faults_write_themselves(example: str) -> None:
    assert parse_fault(example).text == example


def test_the_help_tells_of_every_kind() -> None:
    text = fault_help()
    assert all(kind.value in text for kind in FaultKind)
    assert all(example in text for example in EXAMPLES)


@given(st.text(max_size=40))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fault(f"no{text}")


@pytest.mark.parametrize("example", EXAMPLES)
@given(data=st.data())
def test_a_mutilated_text_is_refused_or_is_another_fault(example: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(example) - 1))
    text = example[:at] + data.draw(st.sampled_from(["", ":", "@", "x", "-1", "=", "~", "%", "é"])) + example[at + 1 :]
    try:
        fault = parse_fault(text)
    except UsageError:
        return
    assert parse_fault(fault.text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "frame:1:lost=2",
        "frame:nobody#1:lost",
        "bus:silent=3@1",
        "bus:off=0@1",
        "node:bmu1:reset=3@1",
        "node:bmu1:refuses=3@1",
        "node:bmu0:reset@1",
        "flash:bmu1:worn=1.5@0",
        "flash:bmu1:3:torn",
        "plant:grid-service:1@0",
        "plant:fire:0@0",
        "plant:fire=2@0",
        "gateway:kill=3@0",
        "gateway:kill%3:full",
        "gateway:disk%3:before",
        "gateway:kill",
    ],
)
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fault(text)
