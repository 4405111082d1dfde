"""The same seed gives the same run, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from tests.scenario.support import BMU1, QUICK, Scene, play

_PROGRAM = """
from dataclasses import replace
from tests.scenario.support import QUICK, play
print(play(spec=replace(QUICK, racks=1, seed=5)).trace_hash)
"""


def trace_of(seed: int) -> str:
    return play(spec=replace(QUICK, racks=1, seed=seed)).trace_hash


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    first = trace_of(5)
    assert trace_of(5) == first
    assert trace_of(6) != first


def test_the_trace_does_not_depend_on_the_process() -> None:
    traces = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        traces.add(done.stdout.strip())
    assert traces == {trace_of(5)}


def test_a_run_with_torn_flash_repeats_as_well() -> None:
    """What power loss leaves in flash is random, too, and comes out of the seed."""

    async def reset(scene: Scene) -> None:
        await scene.verified(4000)
        scene.plant.nodes[BMU1].reset(scene.plant.wire.loop.time())

    assert len({play(reset, spec=replace(QUICK, racks=1)).trace_hash for _ in range(2)}) == 1
