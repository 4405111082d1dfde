from __future__ import annotations

import pytest

from ess_can.identity import NodeAddress, NodeType, Version


@pytest.mark.parametrize("text", ["0.0.0", "1.2.3", "1.2.3+4", "255.255.65535+4294967295"])
def test_a_version_is_read_and_written_the_same(text: str) -> None:
    assert str(Version.parse(text)) == text


def test_a_build_of_zero_is_not_written() -> None:
    assert str(Version.parse("1.2.3+0")) == "1.2.3"


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.3+", "1.2.x", " 1.2.3", "-1.2.3", "256.0.0"]
)
def test_anything_else_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match=r"version"):
        Version.parse(text)


@pytest.mark.parametrize(
    ("major", "minor", "revision", "build"),
    [(256, 0, 0, 0), (0, 256, 0, 0), (0, 0, 65536, 0), (0, 0, 0, 1 << 32), (-1, 0, 0, 0)],
)
def test_each_field_has_its_limit(major: int, minor: int, revision: int, build: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        Version(major, minor, revision, build)


def test_versions_are_ordered_by_field_not_by_text() -> None:
    ordered = [Version.parse(text) for text in ("0.9.0", "1.2.9", "1.2.10", "1.2.10+1", "1.10.0", "2.0.0")]
    assert sorted([ordered[3], *ordered[:3], *ordered[:3:-1]]) == ordered


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("bmu1", NodeAddress(NodeType.BMU, 1)),
        ("bmu12", NodeAddress(NodeType.BMU, 12)),
        ("cmu3", NodeAddress(NodeType.CMU, 3)),
        ("comm_gateway", NodeAddress(NodeType.COMM_GATEWAY)),
    ],
)
def test_an_address_is_read_and_written_the_same(text: str, address: NodeAddress) -> None:
    assert NodeAddress.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "bmu", "bmu0", "bmu01", "BMU1", "comm_gateway1", "pcs1", "bmu1 "])
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not a node"):
        NodeAddress.parse(text)


def test_node_types_have_the_numbers_of_the_dbc_and_the_image_format() -> None:
    assert [(node.name, node.value) for node in NodeType] == [("COMM_GATEWAY", 1), ("BMU", 2), ("CMU", 3)]
