"""Counts what the campaigns ran, prints it at the end, and keeps it in build/campaign for the documents.

A campaign is a test that asks `tests.campaign.scale` how much of it to run, wherever it stands: `tests/conftest.py`
gives all of them the fixture `count`, and the Makefile finds them by that import.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.campaign.scale import SCALE, SEED

Count = Callable[[str, int], None]
_ROOT = Path(__file__).resolve().parents[2]
_CASES = "campaign cases"
_BEGAN = pytest.StashKey[datetime]()


def _wall_clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - how long a campaign took is told to people, and decides nothing


def pytest_configure(config: pytest.Config) -> None:
    """Remember when it began."""
    config.stash[_BEGAN] = _wall_clock()


@pytest.fixture(name="count")
def count_cases(request: pytest.FixtureRequest) -> Count:
    """Say how many cases of a campaign a test ran."""

    def counted(campaign: str, cases: int) -> None:
        request.node.user_properties.append((_CASES, [campaign, cases]))

    return counted


def _counts(reporter: pytest.TerminalReporter) -> Counter[str]:
    counts: Counter[str] = Counter()
    for report in reporter.stats.get("passed", []) + reporter.stats.get("failed", []):
        for name, value in report.user_properties:
            if name == _CASES:
                counts[value[0]] += value[1]
    return counts


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of counts."""
    counts = _counts(terminalreporter)
    if not counts:
        return
    terminalreporter.section(f"campaigns, {SCALE.value}" + (f", drawn by {SEED}" if SEED else ""))
    for campaign, cases in sorted(counts.items()):
        terminalreporter.write_line(f"{cases:>9,} {campaign}")
    failed = len(terminalreporter.stats.get("failed", []))
    kept = Path(os.environ.get("ESS_CAN_CAMPAIGN_OUT", _ROOT / "build" / "campaign"))
    kept.mkdir(parents=True, exist_ok=True)
    minutes = (_wall_clock() - config.stash[_BEGAN]).total_seconds() / 60
    found = {
        "scale": SCALE.value,
        "seed": SEED,
        "commit": _commit(),
        "failed": failed,
        "minutes": round(minutes, 1),
        "cores": os.cpu_count(),
        "cases": dict(counts),
    }
    (kept / f"{SCALE.value}.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", "utf-8")
