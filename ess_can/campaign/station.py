"""A station under test: a simulated plant, and a gateway computer whose process may die and be started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from ess_can.bus.clock import now, pause
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.journal_disk import JournalDisk
from ess_can.campaign.moments import Moment
from ess_can.campaign.releases import make_plant
from ess_can.can.frame import CanFrame
from ess_can.errors import UsageError
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Event, PhaseEntered
from ess_can.gateway.report import Report
from ess_can.gateway.run import GatewaySetup, roll_back_station, upgrade_station
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.sim.process import SimulatedProcess, outside
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.sim.wire import Delayed, WireFault
from ess_can.trust.verify import VerifiedUpgrade
from ess_can.uds.access import CmacAccess

SETTLED_S = 1.2
"""How long a plant runs before the gateway comes: everybody was heard, the current is steady."""
TECHNICIAN = "A. Technician"
"""Who clears latches when everything is healed."""

_EPOCH = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)

Verdict = WireFault | Delayed | CanFrame | None
Rule = Callable[[int, CanFrame], Verdict]
"""What becomes of a transmission, by its index since the first upgrade began, and its frame; None leaves it alone."""


class Fault(Protocol):
    """Something that goes wrong at a station, a frozen dataclass: see `ess_can.campaign.faults`."""

    @property
    def kind(self) -> FaultKind:
        """Of which kind."""

    @property
    def text(self) -> str:
        """In one line, as `parse_fault` reads it."""

    def arm(self, station: Station) -> None:
        """Have it happen when its time comes."""


class Station:
    """Create it on the running virtual loop, attach whoever watches `plant`, then `settle`.

    `config` is that of a gateway that expects the whole plant unless given; the journal is in memory unless there is a
    `directory` for it.  `report` is the last attempt's, None as long as it runs and if its process died; `events` are
    those of all attempts, `begun_at` is when the first began, and `kills` how often the gateway died; `afterwards` is
    how the last was to leave the plant.  `slept_s` is for how many seconds the gateway's computer has slept so far.
    """

    def __init__(
        self,
        spec: PlantSpec,
        upgrade: VerifiedUpgrade,
        seed: int,
        config: GatewayConfig | None = None,
        make_plant: Callable[[PlantSpec], Plant] = make_plant,
        *,
        faults: Sequence[Fault] = (),
        directory: Path | None = None,
    ) -> None:
        self.plant = make_plant(spec)
        self.upgrade = upgrade
        self.seed = seed
        self.config = config or GatewayConfig(self.plant.addresses)
        self.afterwards = self.config.afterwards
        self.controller = self.plant.gateway_controller()
        self.plugged = True
        self.clock_error = timedelta()
        self.slept_s = 0.0
        self.disk = JournalDisk(self.clock, directory)
        self.journal = self.disk.open()
        self.faults: list[Fault] = []
        self.events: list[Event] = []
        self.on_event: list[Callable[[Event], None]] = []
        self.on_start: list[Callable[[SimulatedProcess], None]] = []
        self.report: Report | None = None
        self.begun_at: float | None = None
        self._attempt_at = 0.0
        self.kills = 0
        self.attempts = 0
        self._process: SimulatedProcess | None = None
        self._over: asyncio.Event = asyncio.Event()
        self._failure: BaseException | None = None
        self._last = upgrade, self.config
        self._started: dict[bytes, tuple[VerifiedUpgrade, GatewayConfig]] = {}
        self._effects: dict[Fault, float] = {}
        self._first_transmission = 0
        self._rules: list[Rule] = []
        self._pending: list[tuple[Moment, Callable[[], None]]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._heals: list[Callable[[], None]] = []
        for fault in faults:
            self.arm(fault)

    def clock(self) -> datetime:
        """The gateway computer's date and time: nothing may depend on it."""
        return _EPOCH + timedelta(seconds=now()) + self.clock_error

    async def settle(self) -> None:
        """Switch the plant on, and let it run until the gateway may come."""
        self.plant.start()
        await pause(SETTLED_S)

    # --- the gateway --------------------------------------------------------------------------------

    @property
    def process(self) -> SimulatedProcess:
        """The gateway's process, the last one if it ended.  Raises UsageError before the first."""
        if self._process is None:
            raise UsageError("the gateway was not started")
        return self._process

    @property
    def running(self) -> bool:
        """Whether the gateway works."""
        return self._process is not None and not self._over.is_set()

    @property
    def works(self) -> bool:
        """Whether the gateway runs, and its computer lets it."""
        return self.running and not self.process.starved

    @property
    def unfinished(self) -> bool:
        """Whether the journal has an upgrade that did not end."""
        return self.journal.unfinished() is not None

    def start_upgrade(
        self, upgrade: VerifiedUpgrade | None = None, config: GatewayConfig | None = None, *, dry_run: bool = False
    ) -> None:
        """Start the gateway with an upgrade, or only the check before it.  Raises UsageError while it runs."""
        self._last = upgrade or self.upgrade, config or self.config
        self._started[self._last[0].file_sha256] = self._last
        self._start(*self._last, dry_run=dry_run)

    def start_resume(self, *, roll_back: bool = False) -> None:
        """Start the gateway to go on with what is unfinished, or to give it up; with the last upgrade if nothing is.

        Raises UsageError while it runs.
        """
        unfinished = self.journal.unfinished()
        began = None if unfinished is None else self._started.get(unfinished.file_sha256)
        self._start(*(began or self._last), roll_back=roll_back)

    def _start(
        self, upgrade: VerifiedUpgrade, config: GatewayConfig, *, roll_back: bool = False, dry_run: bool = False
    ) -> None:
        if self.running:
            raise UsageError("the gateway is running")
        self._over.clear()
        self.report = self._failure = None
        self.afterwards = config.afterwards
        self.attempts += 1
        if self.plugged:
            self.controller.attach()
        process = self._process = SimulatedProcess(f"gateway {self.attempts}")
        for tell in self.on_start:
            tell(process)
        self._attempt_at = now()
        if self.begun_at is None:
            self.begun_at = now()
            self._first_transmission = self.plant.wire.transmissions
        self._release(None)
        task = process.start(self._run(process, upgrade, config, roll_back=roll_back, dry_run=dry_run))
        task.add_done_callback(partial(self._ended, process))

    async def _run(
        self,
        process: SimulatedProcess,
        upgrade: VerifiedUpgrade,
        config: GatewayConfig,
        *,
        roll_back: bool,
        dry_run: bool,
    ) -> Report:
        plant = self.plant
        setup = GatewaySetup(
            plant.codec,
            config,
            CmacAccess(TEST_ONLY_ACCESS_SECRET),
            plant.spec.bit_timing,
            isotp=plant.spec.isotp,
            entropy=random.Random(f"{self.seed} gateway {self.attempts}"),  # noqa: S311 - to be repeatable
            slept_s=lambda: self.slept_s,
        )

        def on_progress(event: Event) -> None:
            outside(self._on_progress, process, event)

        bus, journal = self.controller, self.journal
        if roll_back:
            return await roll_back_station(bus, upgrade, setup, journal=journal, on_progress=on_progress)
        return await upgrade_station(bus, upgrade, setup, journal=journal, on_progress=on_progress, dry_run=dry_run)

    def _on_progress(self, process: SimulatedProcess, event: Event) -> None:
        if not process.alive:
            return
        self.events.append(event)
        for tell in self.on_event:
            tell(event)
        if isinstance(event, PhaseEntered):
            self._release(event.phase)

    def _ended(self, process: SimulatedProcess, task: asyncio.Task[Report]) -> None:
        outside(self._take_end, process, task)

    def _take_end(self, process: SimulatedProcess, task: asyncio.Task[Report]) -> None:
        if not process.alive or process is not self._process:
            return
        if task.cancelled():
            self._failure = asyncio.CancelledError()
        elif (failure := task.exception()) is not None:
            self._failure = failure
        else:
            self.report = task.result()
        self.journal = self.disk.reopen(self.journal)
        self._over.set()

    async def ended(self) -> bool:
        """Wait until the gateway came to its end, or died; whether it did come to its end.

        Raises what came out of the upgrade, which should have been told in its report.
        """
        await self._over.wait()
        if self._failure is not None:
            raise self._failure
        return self.process.alive

    def kill_gateway(self, *, power: bool = False) -> None:
        """Kill the gateway's process, as by SIGKILL: what its controller was given is still sent.

        With `power` its computer is switched off: nothing more is sent.  Nothing if it is not running.
        """
        if power:
            self.controller.detach()
        if self.running:
            self.process.kill()
            self.kills += 1
            self.journal = self.disk.reopen(self.journal)
            self._over.set()

    def switch_off(self) -> None:
        """The end of a test: gateway and plant are gone."""
        self.kill_gateway(power=True)
        self.plant.stop()

    # --- faults -------------------------------------------------------------------------------------

    def arm(self, fault: Fault) -> None:
        """Have a fault happen when its time comes."""
        self.faults.append(fault)
        fault.arm(self)

    def at(self, moment: Moment, act: Callable[[], None]) -> None:
        """Call `act` at a moment of the upgrade, unless everything is healed before."""
        self._pending.append((moment, act))
        if self.begun_at is not None:
            self._release(None)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` in so many seconds from now, unless everything is healed before."""
        self._timers.append(outside(asyncio.get_running_loop().call_later, seconds, act))

    def _release(self, phase: Phase | None) -> None:
        """Set what counts from here: from the entry of this phase or, without, from the begin."""

        def due(moment: Moment) -> bool:
            return moment.phase is phase and moment.attempt in (None, self.attempts)

        released = [(moment, act) for moment, act in self._pending if due(moment)]
        self._pending = [each for each in self._pending if not due(each[0])]
        for moment, act in released:
            begun_at = self._attempt_at if self.begun_at is None or moment.attempt is not None else self.begun_at
            self.later((begun_at if phase is None else now()) + moment.seconds - now(), act)

    def to_heal(self, heal: Callable[[], None]) -> None:
        """Have `heal` called when everything is healed, the newest first."""
        self._heals.append(heal)

    def on_transmission(self, rule: Rule) -> Callable[[], None]:
        """Ask `rule` about every transmission since the first upgrade began, until the function returned is called."""
        self._rules.append(rule)
        self.plant.wire.fault = self._on_transmission

        def remove() -> None:
            if rule in self._rules:
                self._rules.remove(rule)
            if not self._rules:
                self.plant.wire.fault = None

        self.to_heal(remove)
        return remove

    def _on_transmission(self, index: int, frame: CanFrame) -> Verdict:
        if self.begun_at is None:
            return None
        index -= self._first_transmission
        found: Verdict = None
        for rule in tuple(self._rules):  # all of them: some count
            verdict = rule(index, frame)
            if found is None:
                found = verdict
        return found

    def took(self, fault: Fault) -> None:
        """A fault took effect now."""
        self._effects.setdefault(fault, now())

    def took_effect(self, fault: Fault) -> bool:
        """Whether a fault did anything."""
        return fault in self._effects

    @property
    def effects(self) -> list[tuple[float, Fault]]:
        """Which faults took effect, and when first."""
        return sorted(((at, fault) for fault, at in self._effects.items()), key=lambda each: each[0])

    def chance(self, fault: Fault) -> random.Random:
        """A generator for what is random about a fault, the same for the same station and fault."""
        return random.Random(f"{self.seed} {fault.text}")  # noqa: S311 - a simulation has to be repeatable

    def heal(self) -> None:
        """Nothing is wrong any more, and no fault will come: all is repaired, powered, and a person clears latches."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._pending.clear()
        while self._heals:
            self._heals.pop()()
        self.plugged = True
        if not self.controller.online:  # bus-off, unplugged or without power
            self.controller.detach()
            self.controller.attach()
        plant = self.plant
        for each in (plant.pcs_node.controller, *(node.controller for node in plant.nodes.values())):
            each.restart()  # out of bus-off; nothing to one that is online, or without power
        plant.circuit.step(now())
        plant.pcs.clear(TECHNICIAN, now())
        for rack in plant.racks:
            rack.clear_latches(TECHNICIAN, now())
