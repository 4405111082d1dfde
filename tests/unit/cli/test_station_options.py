from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ess_can.cli.main import main
from ess_can.cli.station_options import (
    StationOptions,
    afterwards_from,
    expected_nodes,
    gateway_config,
    load_access,
    load_codec,
)
from ess_can.errors import DbcMismatch, FileUnreadable, UsageError
from ess_can.gateway.config import Afterwards
from tests.unit.cli.run import BMU_UPGRADE, run


def test_expected_nodes() -> None:
    assert [str(node) for node in expected_nodes(2, comm_gateway=True)] == ["bmu1", "bmu2", "comm_gateway"]
    assert [str(node) for node in expected_nodes(1, comm_gateway=False)] == ["bmu1"]
    assert StationOptions(1).expected() == expected_nodes(1, comm_gateway=True)
    with pytest.raises(UsageError, match="number of racks"):
        expected_nodes(None, comm_gateway=True)


def test_configuration() -> None:
    config = gateway_config(3, True, afterwards_from(reconnect=False, hold_open=False), None)
    assert (config.racks, config.afterwards) == ((1, 2, 3), Afterwards.AS_FOUND)
    assert afterwards_from(reconnect=True, hold_open=False) is Afterwards.CONNECT
    assert afterwards_from(reconnect=False, hold_open=True) is Afterwards.HOLD_OPEN
    with pytest.raises(UsageError, match="contradict"):
        afterwards_from(reconnect=True, hold_open=True)


def test_racks_from_the_environment() -> None:
    result = CliRunner().invoke(main, ["status", "-i", "nonsense"], env={"ESS_CAN_RACKS": "2"})
    assert result.exit_code == 11
    result = CliRunner().invoke(main, ["status", "-i", "nonsense"], env={"ESS_CAN_RACKS": "many"})
    assert result.exit_code == 2


def test_the_access_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("000102030405060708090a0b0c0d0e0f\n")
    load_access(file)
    with pytest.raises(UsageError, match="access secret"):
        load_access(None)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileUnreadable) as caught:
            load_access(path)
        assert "--access-secret" in caught.value.remedy
    for bad in ("", "00", "zz" * 16, "00" * 15, "\u00e4" * 32):
        file.write_text(bad, "utf-8")
        with pytest.raises(UsageError, match="secret"):
            load_access(file)


def test_a_station_has_at_most_the_racks_of_its_dbc() -> None:
    for racks in (None, 1, 8):
        assert StationOptions(racks).codec().version
    with pytest.raises(UsageError, match="9 racks does not fit the DBC: it describes 8"):
        StationOptions(9).codec()


@pytest.mark.parametrize(
    "command",
    [
        ("status", "--sim"),
        ("inventory", "--sim"),
        ("monitor", "--sim"),
        ("upgrade", BMU_UPGRADE, "--sim"),
        ("demo",),
        ("sim", "bms", "-i", "virtual"),
        ("sim", "pcs", "-i", "virtual"),
    ],
    ids=lambda command: " ".join(str(word) for word in command[:2] if isinstance(word, str)),
)
def test_more_racks_than_the_dbc_has_are_refused(command: tuple[object, ...]) -> None:
    refused = run(*command, "--racks", 9)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error USAGE_ERROR: a station of 9 racks does not fit the DBC: it describes 8\n")
    assert "--racks with at most 8" in refused.stderr


def test_another_dbc(tmp_path: Path) -> None:
    assert load_codec(None).sha256
    bad = tmp_path / "other.dbc"
    bad.write_text('VERSION ""\n')
    for file in (bad, tmp_path / "missing.dbc"):
        with pytest.raises(DbcMismatch):
            load_codec(file)
