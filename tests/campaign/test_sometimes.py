"""Sometimes: every kind of fault, every change of state and every error is reached here, or the campaign has a gap.

What runs here is directed, because chance reaches some of it in one run of thousands only: runs under faults, commands
other than one upgrade, and for errors of files, journals and adapters what a user would do to meet them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import ess_can
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults import EXAMPLES, Fault, parse_fault
from ess_can.campaign.mixture import plain
from ess_can.campaign.plants import SMALLEST, Site
from ess_can.campaign.result import Summary
from ess_can.campaign.run import error_names, run_mixture
from ess_can.campaign.watching import EDGES
from ess_can.errors import EssCanError, IsoTpError, NodeMissing, PlantRefusal, UdsError, UpgradeFileError
from ess_can.gateway.config import Afterwards
from ess_can.gateway.node_client import NodeClient
from tests.campaign import directed, reached_buses, reached_files, reached_journals, reached_stations
from tests.campaign.counts import Count
from tests.campaign.reached import Reached

DIRECTED: tuple[tuple[str, ...], ...] = (
    ("plant:emergency-stop:1@RECONNECT+0.35",),
    ("plant:pcs-restarts@RECONNECT+0.35",),
    ("plant:hvil:1@RECONNECT+0.1",),
    ("plant:pcs-restarts@RAMP_DOWN+0.05",),
    ("plant:emergency-stop:1@RAMP_DOWN+0.05",),
    ("plant:emergency-stop:1@0.2",),
    ("plant:pcs-restarts@0.2",),
    ("plant:emergency-stop:1@PROGRAM+0.05", "plant:pcs-restarts@PROGRAM+0.2"),
    ("plant:emergency-stop:1@PROGRAM+0.05", "plant:emergency-stop:1@PROGRAM+0.1"),
    ("node:bmu1:reset@0.2",),
    ("node:bmu1:reset@0.2", "plant:pcs-restarts@1"),
    ("node:bmu1:reset@0.2", "plant:emergency-stop:1@1"),
    ("node:bmu1:reset@RAMP_DOWN+0.05",),
    ("node:bmu1:reset@PROGRAM+0.05", "node:bmu1:reset@PROGRAM+0.1"),
    ("plant:pcs-restarts@PROGRAM+0.1", "plant:pcs-restarts@PROGRAM+0.2"),
    ("gateway:interrupted@OPEN_CONTACTORS+0.01",),
    ("gateway:interrupted@PROVE_HV_OFF+0.1",),
    ("gateway:disk%24:error",),
    ("gateway:kill%43:before",),
    ("node:bmu1:reset@RECONNECT+0.12",),
    ("bus:silent@0",),
    ("bus:babbler=95@0",),
    ("bus:off=6@PROGRAM+0.1",),
    ("plant:hv-status-lost:1@0",),
    ("node:bmu1:refuses=51@PROGRAM+0~20",),
    ("gateway:suspended=30@RECONNECT+0.1",),
    ("plant:hv-closes@PROGRAM+0.05",),
    ("node:bmu1:power@PROGRAM+0.1~60",),
    ("frame:request#30x40:lost",),
    ("frame:553:corrupted",),
    ("frame:answer#60x4:corrupted",),
    ("node:bmu1:garbage@CONFIRM+0~3",),
    ("node:bmu1:refuses=34@CONFIRM+0~10",),
    ("firmware:bmu1:mute", "gateway:kill@TRIAL_BOOT+1.5"),
    ("plant:emergency-stop:1@CONFIRM+0",),
    ("gateway:unplugged@CONFIRM+0",),
)
"""Beside an example of each kind of fault."""

REACHED: tuple[Reached, ...] = (
    *reached_files.REACHED,
    *reached_journals.REACHED,
    *reached_buses.REACHED,
    *reached_stations.REACHED,
)
"""Errors that end no upgrade under faults, each with what raises it."""

NEVER_RAISED: tuple[type[EssCanError], ...] = (PlantRefusal, UdsError, UpgradeFileError)
"""What only groups its kinds: nothing in the package makes one."""


def runs() -> Iterator[tuple[Site, Sequence[Fault]]]:
    """Sites, and what goes wrong there."""
    for texts in (*((text,) for text in EXAMPLES), *DIRECTED):
        yield SMALLEST, [parse_fault(text) for text in texts]
    yield replace(SMALLEST, afterwards=Afterwards.HOLD_OPEN), []
    yield from directed.runs()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The errors of messages on their way in, as ISO-TP tells them to a gateway: it goes on after some of them."""
    names: set[str] = set()
    original = NodeClient._on_error

    def on_error(client: NodeClient, error: IsoTpError) -> None:
        names.add(error.name)
        original(client, error)

    monkeypatch.setattr(NodeClient, "_on_error", on_error)
    return names


def test_everything_is_reached_at_least_once(count: Count, told: set[str]) -> None:
    planned = list(runs())
    results = [run_mixture(plain(site=site), faults=faults) for site, faults in planned]
    visits = [reached_stations.visit(script, site) for site, script in reached_stations.EDGES]
    summary = Summary.of(results)
    count("directed runs that reach every fault, change of state and error", len(planned) + len(visits) + len(REACHED))
    assert not [f"{result.faults}: {result.wrong}" for result in results if result.wrong]
    assert {kind.name for kind in FaultKind} - set(summary.faults) == set()
    assert EDGES - set(summary.edges).union(*visits) == set()
    elsewhere = {reached.name for reached in REACHED} | {error("").name for error in NEVER_RAISED}
    assert error_names() - set(summary.errors) - told - elsewhere == set()


@pytest.mark.parametrize("reached", REACHED, ids=lambda reached: reached.name)
def test_an_error_is_raised_by_what_a_user_would_do(reached: Reached, tmp_path: Path) -> None:
    with pytest.raises(reached.error) as caught:
        reached.reach(tmp_path)
    assert type(caught.value) is reached.error


def test_what_is_never_raised_is_never_made() -> None:
    sources = [source.read_text("utf-8") for source in Path(ess_can.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    assert any(makes(NodeMissing, source) for source in sources)
    assert [error.__name__ for error in NEVER_RAISED if any(makes(error, source) for source in sources)] == []


def makes(error: type[EssCanError], source: str) -> bool:
    """Whether a source calls or raises this class."""
    name = error.__name__
    return re.search(rf"(?<!class )\b{name}\(|\braise (\w+\.)*{name}\b", source) is not None
