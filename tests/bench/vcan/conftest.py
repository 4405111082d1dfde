"""What the tests on vcan0 share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ess_can.identity import NodeType
from tests.bench.processes import Running
from tests.bench.releases import write_release
from tests.bench.vcan.station import ONE_RACK, link, simulated


@pytest.fixture(autouse=True)
def vcan0() -> None:
    """The interface is up, whatever a test before left."""
    link("up")


@pytest.fixture(scope="session")
def bmu_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BMU release: one block."""
    return write_release(tmp_path_factory.mktemp("release") / "bmu.essup", NodeType.BMU, kib=8)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where the plant's flash lives."""
    return tmp_path / "state"


@pytest.fixture
def plant(state: Path) -> Iterator[Running]:
    """A plant of one rack, with its state in files."""
    with simulated("plant", *ONE_RACK, "--state", state) as process:
        yield process
