"""Run the command line, in this process or in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ess_can.cli import embedded
from ess_can.cli.main import main
from ess_can.signals.dbc import StationCodec
from ess_can.sim.plant import Plant, PlantSpec
from tests.unit.trust.samples import FOLDER

REPORT_KEYS = {
    *("result", "exit_code", "error", "dry_run", "phases", "nodes", "hv_off_s", "expected_transfer_s"),
    *(
        "expected_hv_off_s",
        "expected_duration_s",
        "flash_assumed",
        "unavailable",
        "transfer_s",
        "proved_safe",
        "hv_before",
        "hv_after",
        "bus_time_s",
        "wall_time_s",
        "trace_hash",
        "upgrade_id",
        "journal_error",
        "resume",
        "head",
    ),
}
BMU_UPGRADE = FOLDER / "bmu-1.1.0.essup"
COMM_GATEWAY_UPGRADE = FOLDER / "comm_gateway-1.1.0.essup"


def run(*arguments: object) -> Result:
    """In this process.  No environment variable of ours is set."""
    clean = {"ESS_CAN_RACKS": None, "ESS_CAN_ACCESS_SECRET": None}
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=clean)


def document(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


def record_senders(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Who sends on the wires of simulated plants that are made from now on."""
    senders: set[str] = set()
    original = embedded.make_plant

    def make_plant(spec: PlantSpec, codec: StationCodec) -> Plant:
        plant = original(spec, codec)
        plant.wire.on_frame.append(lambda _frame, _at, sender: senders.add(sender))
        return plant

    monkeypatch.setattr(embedded, "make_plant", make_plant)
    return senders


def python(
    arguments: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """In another process."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=60,
        check=False,
    )
