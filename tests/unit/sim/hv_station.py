"""Circuit, PCS and racks wired together without a bus: orders and statuses every 50 ms, steps every 10 ms."""

from __future__ import annotations

from collections.abc import Callable

from ess_can.signals.messages import ContactorState, EmsPcsCommand, PcsCommandCode, RackState
from ess_can.sim.electrical import Contactor, ContactorSpec, LinkSpec, RackCircuit, StationCircuit
from ess_can.sim.hv_control import HvSpec, RackControl
from ess_can.sim.pcs import Pcs, PcsSpec
from ess_can.sim.rack import RackHardware
from tests.support.latch_store import MemoryLatchStore

STEP_S = 0.010
CYCLE_STEPS = 5


class Station:
    """A plant that begins closed (unless told otherwise) and under the PCS's local control."""

    def __init__(
        self,
        racks: int = 1,
        *,
        closed: bool = True,
        soc_percent: tuple[float, ...] = (50.0, 50.0, 50.0, 50.0),
        pcs_spec: PcsSpec | None = None,
        link: LinkSpec | None = None,
        hv_spec: HvSpec | None = None,
    ) -> None:
        self.now = 100.0
        self.steps = 0
        self.rack_circuits = [RackCircuit(soc_percent=soc_percent[index], closed=closed) for index in range(racks)]
        contactor = Contactor(ContactorSpec(), closed=closed)
        self.circuit = StationCircuit(self.rack_circuits, self.now, link, contactor)
        self.pcs = Pcs(self.circuit, self.now, pcs_spec)
        self.hardware = [RackHardware(self.circuit, rack) for rack in self.rack_circuits]
        self.stores = [MemoryLatchStore() for _ in range(racks)]
        self.racks = [
            RackControl(hardware, store, self.now, index=index, spec=hv_spec)
            for index, (hardware, store) in enumerate(zip(self.hardware, self.stores, strict=True), start=1)
        ]
        self.order: EmsPcsCommand | None = None
        self.pcs_heard = True
        self.observers: list[Callable[[], None]] = []

    @property
    def rack(self) -> RackControl:
        return self.racks[0]

    def command(self, code: PcsCommandCode | None, power_kw: float = 0.0) -> None:
        """From now on the EMS orders this every 50 ms; None: it is silent."""
        self.order = None if code is None else EmsPcsCommand(code, power_kw)

    def step(self) -> None:
        self.now += STEP_S
        self.steps += 1
        if self.steps % CYCLE_STEPS == 0:
            if self.order is not None:
                self.pcs.receive_command(self.order, self.now)
                for rack in self.racks:
                    rack.on_command(self.order, self.now)
            if self.pcs_heard:
                status = self.pcs.status(self.now)
                for rack in self.racks:
                    rack.on_pcs_status(status, self.now)
        self.pcs.step(self.now)
        for rack in self.racks:
            rack.step(self.now)
        for observe in self.observers:
            observe()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.step()

    def run_until(self, condition: Callable[[], bool], limit_s: float) -> float:
        """Step until `condition` holds; gives how long it took.  Fails after `limit_s`."""
        started = self.now
        while not condition():
            assert self.now - started < limit_s, "the condition did not come true"
            self.step()
        return self.now - started

    def isolate(self) -> None:
        """Zero power, open, lock, discharged: as a gateway would leave the plant for programming."""
        self.command(PcsCommandCode.ZERO_POWER)
        self.run(0.5)
        self.command(PcsCommandCode.OPEN)
        self.run_until(lambda: not self.circuit.pcs_contactor.closed, 2.0)
        self.command(PcsCommandCode.LOCK)
        self.run_until(lambda: all(rack.programming_allowed(self.now) for rack in self.racks), 10.0)

    def reconnect(self, limit_s: float = 15.0) -> None:
        """Unlock and close everything."""
        self.command(PcsCommandCode.UNLOCK)
        self.run(0.2)
        self.command(PcsCommandCode.CLOSE)
        self.run_until(
            lambda: (
                all(rack.rack_state is RackState.CLOSED for rack in self.racks)
                and self.circuit.pcs_contactor.feedback is ContactorState.CLOSED
            ),
            limit_s,
        )
