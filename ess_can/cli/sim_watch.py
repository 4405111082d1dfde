"""What `ess-can sim plant --monitors` says of the rules of safety, while gateways work with the plant."""

from __future__ import annotations

from collections.abc import Callable

from ess_can.campaign.monitors import Monitors, Violation
from ess_can.errors import InvariantViolated
from ess_can.sim.bridge import OUTSIDE
from ess_can.sim.plant import Plant


class Watch:
    """Watches a plant from now on and has each violation told as it happens.  Make it before the plant is started.

    Whoever is on the bus outside is a gateway: its journal is not seen, so that the rules about it are not watched.
    """

    def __init__(self, plant: Plant, say: Callable[[str], None]) -> None:
        self._monitors = Monitors(plant, gateways=frozenset({OUTSIDE}))
        self._say = say
        self._told = 0
        plant.on_step.append(self._tell)

    def _tell(self, _now: float) -> None:
        new = self._monitors.violations[self._told :]
        self._told += len(new)
        for violation in new:
            self._say(f"violation at {violation}")

    def finish(self) -> tuple[Violation, ...]:
        """All violations; call it while the plant still has power."""
        self._monitors.finish()
        self._tell(0.0)
        return tuple(self._monitors.violations)


def error_of(violations: tuple[Violation, ...]) -> InvariantViolated | None:
    """The error that a simulation ends with; None if no rule was broken."""
    if not violations:
        return None
    return InvariantViolated(
        "rules of safety were broken on the simulated plant",
        why="; ".join(dict.fromkeys(str(violation.invariant) for violation in violations)),
        remedy="Look at what the gateway did then, with `--trace FILE` on its side; report it if it is ess-can's.",
    )
