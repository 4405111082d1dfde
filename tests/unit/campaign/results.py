"""Results of runs that never took place."""

from __future__ import annotations

from ess_can.campaign.result import RunResult


def result(
    seed: int = 1,
    *,
    ended: str = "DONE",
    errors: tuple[str, ...] = (),
    violations: tuple[str, ...] = (),
    stuck: str = "",
    unhealed: str = "",
    kills: int = 0,
) -> RunResult:
    return RunResult(
        seed=seed,
        plant="1 rack",
        faults=("bus:silence@3",),
        ended=ended,
        errors=errors,
        kills=kills,
        took_effect=("BUS_SILENCE",),
        edges=("phase STATUS_CHECK RAMP_DOWN",),
        violations=violations,
        stuck=stuck,
        unhealed=unhealed,
        trace_hash=f"{seed:064x}",
        virtual_s=30.0,
        frames=1000,
        steps=500,
        entries=50,
    )
