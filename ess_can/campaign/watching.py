"""What a run is watched for beside its rules: the changes of state that were seen, and lines for a timeline."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ess_can.campaign.dialogue import Dialogue
from ess_can.campaign.timeline import Timeline
from ess_can.gateway.phases import TRANSITIONS, Phase
from ess_can.gateway.progress import Event, PhaseEntered
from ess_can.identity import NodeAddress
from ess_can.journal.entries import Entry, Kind
from ess_can.sim.bootloader import BootDecision
from ess_can.sim.electrical import Contactor
from ess_can.sim.hv_control import RackControl
from ess_can.sim.pcs import PCS_TRANSITIONS, PcsEvent
from ess_can.sim.plant import Plant
from ess_can.sim.rack_states import RACK_TRANSITIONS, RackEvent

EDGES = frozenset(
    {
        f"phase {phase.name} {following.name}"
        for phase, all_following in TRANSITIONS.items()
        for following in all_following
    }
    | {f"rack {state.name} {event.name}" for state, event in RACK_TRANSITIONS}
    | {f"pcs {state.name} {event.name}" for state, event in PCS_TRANSITIONS}
)
"""Every change of state that there is: of an upgrade, of a rack, of the PCS."""


class Edges:
    """Collects the changes of state of a plant, as they happen, and of upgrades, from their events.

    `seen` are members of `EDGES`.
    """

    def __init__(self, plant: Plant) -> None:
        self.seen: set[str] = set()
        for rack in plant.racks:
            rack.on_event.append(self._rack(rack))
        plant.pcs.on_event.append(self._pcs(plant))

    def _rack(self, rack: RackControl) -> Callable[[RackEvent], None]:
        before = rack.rack_state

        def on_event(event: RackEvent) -> None:
            nonlocal before
            self.seen.add(f"rack {before.name} {event.name}")
            before = rack.rack_state

        return on_event

    def _pcs(self, plant: Plant) -> Callable[[PcsEvent], None]:
        pcs = plant.pcs
        before = pcs.state

        def on_event(event: PcsEvent) -> None:
            nonlocal before
            self.seen.add(f"pcs {before.name} {event.name}")
            before = pcs.state

        return on_event

    def of_upgrade(self, events: list[Event]) -> None:
        """The phases of one attempt."""
        phases = [Phase.STATUS_CHECK, *(event.phase for event in events if isinstance(event, PhaseEntered))]
        self.seen.update(f"phase {a.name} {b.name}" for a, b in pairwise(phases) if a is not b)


class PlantLines:
    """Writes what a plant does into a timeline.  Call `finish` at the end."""

    def __init__(self, plant: Plant, timeline: Timeline) -> None:
        self._plant = plant
        self._timeline = timeline
        self._names: dict[int, tuple[str, str]] = {}
        circuit = plant.circuit
        self._names[id(circuit.pcs_contactor)] = "PCS", "contactors"
        for number, string in enumerate(circuit.racks, start=1):
            for name, contactor in zip(("main+", "main-", "precharge"), string.contactors, strict=True):
                self._names[id(contactor)] = f"rack {number}", f"contactor {name}"
        circuit.on_contactor.append(self._moved)
        plant.pcs.on_event.append(self._pcs_event)
        for control in plant.racks:
            control.on_event.append(self._rack_event(control))
            control.on_clear.append(self._cleared(control))
        for address, node in plant.nodes.items():
            node.bootloader.on_boot.append(self._booted(address))
        self._dialogue = Dialogue(plant.codec, plant.nodes, lambda at, node, text: timeline.add(at, str(node), text))
        plant.wire.on_frame.append(self._dialogue.on_frame)

    def _say(self, who: str, what: str) -> None:
        self._timeline.add(self._plant.wire.loop.time(), who, what)

    def _moved(self, contactor: Contactor, at: float, carried_a: float) -> None:
        who, name = self._names[id(contactor)]
        self._timeline.add(
            at, who, f"{name} closed" if contactor.closed else f"{name} opened at {abs(carried_a):.1f} A"
        )

    def _pcs_event(self, event: PcsEvent) -> None:
        self._say("PCS", f"{self._plant.pcs.state.name.lower()} ({event.value})")

    def _rack_event(self, rack: RackControl) -> Callable[[RackEvent], None]:
        return lambda event: self._say(f"rack {rack.index}", f"{rack.rack_state.name.lower()} ({event.value})")

    def _cleared(self, rack: RackControl) -> Callable[[str], None]:
        return lambda by: self._say(f"rack {rack.index}", f"latches cleared by {by}")

    def _booted(self, address: NodeAddress) -> Callable[[BootDecision], None]:
        def on_boot(decision: BootDecision) -> None:
            runs = "no image" if decision.facts is None else str(decision.facts.version)
            standing = decision.standing.name.lower()
            self._say(str(address), f"boots {runs} from bank {decision.bank}, {standing} ({decision.reason.value})")

        return on_boot

    def finish(self) -> None:
        """Tell of the last requests, too."""
        self._dialogue.finish()


def entry_text(entry: Entry) -> str:
    """A journal's entry in words."""
    deed = "" if entry.deed is None else f" {entry.deed.value.replace('_', ' ')}"
    node = f" {entry.node}" if entry.node else ""
    outcome = "" if entry.ok is None else " done" if entry.ok else " NOT done"
    text = f": {entry.text}" if entry.text else ""
    return f"{entry.kind.value}{deed}{node}{outcome}{text}" if entry.kind is not Kind.PHASE else f"phase{text}"
