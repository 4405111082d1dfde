"""Whatever is ordered and whatever breaks: what must never happen in the high-voltage circuit does not."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.signals.messages import ContactorState, PcsCommandCode, PcsState, RackState
from ess_can.sim.electrical import Contactor, ContactorFault
from ess_can.sim.pcs import PcsFaults
from ess_can.sim.rack import SensorFault
from tests.unit.sim.hv_station import Station

Action = Callable[[Station], None]

SILENCE_S = 0.5
SOFTWARE_DROPS = (RackState.FAULT, RackState.INIT)
PCS_DROPS = (PcsState.FAULT, PcsState.EMERGENCY_STOP, PcsState.INIT)


class Watch:
    """Compares each step's outcome with what was true before it."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.heard_at = station.now
        self.closings = 0
        self._before = self._look()
        station.observers.append(self.check)

    def _look(self) -> tuple[list[bool], list[float], float]:
        circuit = self.station.circuit
        coils = [contactor.coil for contactor in circuit.contactors]
        currents = [circuit.bridge_current_a]
        currents += [rack.carried_by(contactor) for rack in circuit.racks for contactor in rack.contactors]
        return coils, currents, self.station.now

    def check(self) -> None:
        station = self.station
        if station.order is not None and station.steps % 5 == 0:
            self.heard_at = station.now
        silent = station.now - self.heard_at > SILENCE_S + 0.011
        (was, _, _), (is_, carried, _) = self._before, self._look()
        self._before = self._look()
        for number in range(len(station.circuit.contactors)):
            rack_number, pole = divmod(number - 1, 3)
            if was[number] and not is_[number]:
                self._opened(number, carried[number])
            elif is_[number] and not was[number]:
                assert not silent, "closing without a heartbeat"
                if number:
                    assert not station.racks[rack_number].hold_open
                    assert not station.racks[rack_number].latches
                if number and pole == 0:
                    self._closed_main_plus(rack_number)
        for number, rack in enumerate(station.racks):
            if rack.hv_off(station.now) or rack.programming_allowed(station.now):
                self._claims_off(number)

    def _opened(self, number: int, current_a: float) -> None:
        if number == 0:
            emergency = self.station.pcs.state in PCS_DROPS
        else:
            emergency = self.station.racks[(number - 1) // 3].rack_state in SOFTWARE_DROPS
        assert emergency or abs(current_a) < 200.0, "ordered open above the break current"

    def _closed_main_plus(self, number: int) -> None:
        rack = self.station.rack_circuits[number]
        self.closings += 1
        assert rack.precharge.coil
        assert self.station.circuit.link_voltage_v >= 0.95 * rack.string_voltage_v - 10.0

    def _claims_off(self, number: int) -> None:
        station, rack = self.station, self.station.rack_circuits[number]
        assert station.circuit.link_voltage_v < 60.0 + 10.0
        assert [contactor.closed for contactor in rack.contactors] == [False, False, False]
        assert rack.current_a == 0.0


def order(code: PcsCommandCode | None, power_kw: float) -> Action:
    return lambda station: station.command(code, power_kw)


def contactor_fault(number: int, fault: ContactorFault, feedback: ContactorState | None) -> Action:
    def act(station: Station) -> None:
        contactor: Contactor = station.circuit.contactors[number]
        contactor.fault = fault
        contactor.feedback_fault = feedback

    return act


def sensor_fault(rack: int, sensor: str, fault: SensorFault | None) -> Action:
    def act(station: Station) -> None:
        hardware = station.hardware[rack]
        # one broken sensor at a time is what the evidence withstands; invalid ones may be any number
        for name in ("string_sensor", "link_sensor", "current_sensor"):
            present: SensorFault | None = getattr(hardware, name)
            if present is not None and present.stuck_at is not None:
                setattr(hardware, name, None)
        setattr(hardware, sensor, fault)

    return act


def freeze(rack: int) -> Action:
    def act(station: Station) -> None:
        sensor_fault(rack, "link_sensor", SensorFault(station.circuit.link_voltage_v))(station)

    return act


def trip(rack: int, name: str, active: bool) -> Action:
    return lambda station: setattr(station.hardware[rack], name, active is not (name == "hvil_closed"))


def pcs_faults(faults: PcsFaults) -> Action:
    return lambda station: setattr(station.pcs, "faults", faults)


def hear_pcs(heard: bool) -> Action:
    return lambda station: setattr(station, "pcs_heard", heard)


def hold_open(rack: int, held: bool) -> Action:
    return lambda station: setattr(station.racks[rack], "hold_open", held)


def restart(who: int) -> Action:
    def act(station: Station) -> None:
        if who == 0:
            station.pcs.restart(station.now)
        else:
            station.racks[who - 1].power_cycle(station.now)

    return act


def clear(who: int) -> Action:
    def act(station: Station) -> None:
        if who == 0:
            station.pcs.clear("a person", station.now)
        else:
            station.racks[who - 1].clear_latches("a person", station.now)

    return act


def foreign_source(voltage_v: float | None) -> Action:
    return lambda station: setattr(station.circuit, "external_source_v", voltage_v)


RACKS = st.integers(0, 1)
ANYBODY = st.integers(0, 2)
ORDERS = st.builds(order, st.sampled_from([None, *PcsCommandCode]), st.sampled_from([-150.0, -30.0, 0.0, 30.0, 300.0]))
FAULTS: st.SearchStrategy[Action] = st.one_of(
    st.builds(
        contactor_fault,
        st.integers(0, 6),
        st.sampled_from(ContactorFault),
        st.sampled_from([None, ContactorState.OPEN, ContactorState.CLOSED, ContactorState.INVALID]),
    ),
    st.builds(
        sensor_fault,
        RACKS,
        st.sampled_from(["string_sensor", "link_sensor", "current_sensor"]),
        st.sampled_from([None, SensorFault(), SensorFault(0.0), SensorFault(55.0), SensorFault(790.0)]),
    ),
    st.builds(freeze, RACKS),
    st.builds(
        trip, RACKS, st.sampled_from(["emergency_stop", "fire", "insulation_fault", "hvil_closed"]), st.booleans()
    ),
    st.builds(pcs_faults, st.builds(PcsFaults, st.booleans(), st.booleans(), st.sampled_from([None, 0.0, 40.0]))),
    st.builds(hear_pcs, st.booleans()),
    st.builds(hold_open, RACKS, st.booleans()),
    st.builds(restart, ANYBODY),
    st.builds(clear, ANYBODY),
    st.builds(foreign_source, st.sampled_from([None, 400.0, 790.0])),
)
PAUSES = st.sampled_from([0.01, 0.07, 0.3, 1.0, 6.0])


def play(station: Station, script: list[tuple[Action, float]]) -> Watch:
    watch = Watch(station)
    for action, pause_s in script:
        action(station)
        station.run(pause_s)
    return watch


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.booleans(), st.lists(st.tuples(st.one_of(ORDERS, ORDERS, FAULTS), PAUSES), max_size=20))
def test_no_order_and_no_fault_leads_to_harm(closed: bool, script: list[tuple[Action, float]]) -> None:
    play(Station(2, closed=closed), script)


TO_CLOSE: list[tuple[Action, float]] = [
    (order(PcsCommandCode.ZERO_POWER, 0.0), 0.6),
    (order(PcsCommandCode.OPEN, 0.0), 6.0),
    (order(PcsCommandCode.CLOSE, 0.0), 0.0),
]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(FAULTS, st.sampled_from([0.01, 0.05, 0.1, 0.2])), min_size=1, max_size=4), PAUSES)
def test_faults_in_the_midst_of_closing_lead_to_no_harm(faults: list[tuple[Action, float]], last_s: float) -> None:
    station = Station(2)
    play(station, [*TO_CLOSE, *faults, (order(PcsCommandCode.CLOSE, 0.0), last_s)])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(FAULTS, PAUSES), max_size=5), st.sampled_from(PcsCommandCode))
def test_a_lost_heartbeat_never_closes(faults: list[tuple[Action, float]], last: PcsCommandCode) -> None:
    station = Station(2)
    watch = Watch(station)
    station.run(0.3)
    station.isolate()
    station.command(last)
    station.run(0.05)
    station.command(None)
    station.run(0.6)
    coils = [contactor.coil for contactor in station.circuit.contactors]
    for action, pause_s in faults:
        action(station)
        station.run(pause_s)
    now = [contactor.coil for contactor in station.circuit.contactors]
    assert not any(after and not before for before, after in zip(coils, now, strict=True))
    assert watch.closings == 0 or last is PcsCommandCode.CLOSE


def test_the_watch_sees_closings() -> None:
    station = Station(2)
    watch = play(station, [*TO_CLOSE, (order(PcsCommandCode.CLOSE, 0.0), 3.0)])
    assert watch.closings == 2
