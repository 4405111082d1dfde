from __future__ import annotations

import pytest

from ess_can.bus.adapter_help import how_to_list


@pytest.mark.parametrize(
    ("interface", "hint"),
    [
        (None, "detect_available_configs()"),
        ("socketcan", "ip -brief link show type can"),
        ("pcan", "detect_available_configs('pcan')"),
        ("nonsense", "socketcan, "),
    ],
)
def test_there_is_always_a_way_on(interface: str | None, hint: str) -> None:
    assert hint in how_to_list(interface)
