"""Limits from a TOML file: what is understood, and that nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ess_can.errors import EssCanError, FileUnreadable, UsageError
from ess_can.gateway.config import BusLimits, HvLimits, PolicyLimits, StationPhysics, TimeLimits
from ess_can.gateway.config_file import Limits, load_limits
from ess_can.identity import NodeAddress, NodeType


def load(tmp_path: Path, text: str) -> Limits:
    path = tmp_path / "station.toml"
    path.write_text(text, "utf-8")
    return load_limits(path)


def test_what_is_not_given_keeps_its_default(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Limits(PolicyLimits(), HvLimits(), TimeLimits(), BusLimits())


def test_each_table_sets_its_limits(tmp_path: Path) -> None:
    limits = load(
        tmp_path,
        """
        [policy]
        soc_max_percent = 80
        [hv]
        link_voltage_off_v = 50.0
        consecutive_good = 20
        [times]
        discharge_s = 300.0
        [bus]
        max_load_percent = 40
        yield_to_traffic = true
        nodes_at_once = 3
        [physics]
        discharge_tau_s = 20.0
        [serials]
        bmu2 = "BMU-000017"
        comm_gateway = "CG-1"
        """,
    )
    assert limits.serials == (
        (NodeAddress(NodeType.BMU, 2), "BMU-000017"),
        (NodeAddress(NodeType.COMM_GATEWAY), "CG-1"),
    )
    assert limits.policy == PolicyLimits(soc_max_percent=80)
    assert limits.hv == HvLimits(link_voltage_off_v=50.0, consecutive_good=20)
    assert limits.times == TimeLimits(discharge_s=300.0)
    assert limits.bus == BusLimits(40, yield_to_traffic=True, nodes_at_once=3)
    assert limits.physics == StationPhysics(discharge_tau_s=20.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[policy", "not TOML"),
        ("[racks]\ncount = 2", "racks"),
        ("policy = 3", "not a table"),
        ("[policy]\nsoc = 3.0", "soc is not known"),
        ('[times]\ndischarge_s = "long"', "not a number"),
        ("[times]\ndischarge_s = true", "not a number"),
        ("[times]\ndischarge_s = inf", "not a number"),
        ("[times]\nprogram_attempts = 2.5", "not a whole number"),
        ("serials = 3", "not a table"),
        ('[serials]\nrack1 = "A"', "rack1 is no node"),
        ("[serials]\nbmu1 = 17", "no serial number"),
        ('[serials]\nbmu1 = ""', "no serial number"),
        ("[bus]\nyield_to_traffic = 1", "neither true nor false"),
        ("[bus]\nmax_load_percent = true", "not a number"),
        ("[bus]\nmax_load_percent = 0", "no share"),
        ("[bus]\nnodes_at_once = 2.0", "not a whole number"),
        ("[bus]\nnodes_at_once = true", "not a number"),
        ("[bus]\nnodes_at_once = 0", "no node"),
        ("[bus]\nnodes_at_once = -1", "no node"),
        ("[times]\ndischarge_s = 0.0", "outside"),
        ("[times]\ndischarge_s = 100000.0", "outside"),
        ("[physics]\nnode_boot_s = 0.0", "outside"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "line",
    [
        "link_voltage_off_v = 61.0",
        "current_off_a = 100.0",
        "consecutive_good = 1",
        "evidence_age_s = 1.0",
        "missed_cycles = 20",
        "poll_period_s = 5.0",
        "token_age_s = 60.0",
    ],
)
def test_no_file_can_make_the_proof_of_high_voltage_off_worthless(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match="outside"):
        load(tmp_path, f"[hv]\n{line}\n")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(FileUnreadable) as caught:
            load_limits(path)
        assert "--config" in caught.value.remedy
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(EssCanError, match="not TOML"):
        load_limits(binary)
