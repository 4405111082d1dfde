"""What the gateway last heard from the plant, and when.  It records; it judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from ess_can.bus.station import Received, StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import TrialBootFailed
from ess_can.gateway.foreign import ForeignFrame, is_notice
from ess_can.identity import NodeAddress
from ess_can.signals.messages import (
    BOOT_COUNTER_MODULUS,
    BmsAlarms,
    BmsCellSummary,
    BmsHvStatus,
    BmsState,
    ContactorState,
    EmsUpgradeNotice,
    ImageState,
    Message,
    NodeInfo,
    PcsStatus,
)
from ess_can.uds.target import BootState

M_co = TypeVar("M_co", bound=Message, covariant=True)


class Sample(NamedTuple, Generic[M_co]):
    """A message and the loop time of its reception."""

    value: M_co
    at: float


@dataclass(slots=True)
class RackView:
    """Latest messages of one rack."""

    hv: Sample[BmsHvStatus] | None = None
    state: Sample[BmsState] | None = None
    cells: Sample[BmsCellSummary] | None = None
    alarms: Sample[BmsAlarms] | None = None


class Connection(Enum):
    """Whether high voltage is connected, by the contactors' feedbacks of PCS and racks."""

    CONNECTED = "connected"
    OPEN = "open"
    PARTLY = "partly connected"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class PlantView:
    """Latest messages of everybody.  Times are seconds of the running loop.

    `foreign` has the latest frame of each message that only we should send, by `can_id`.  `any_frame_at` is of interest
    until the plant is heard, and not kept up to date after that.
    """

    racks: dict[int, RackView] = field(default_factory=dict)
    nodes: dict[NodeAddress, Sample[NodeInfo]] = field(default_factory=dict)
    pcs: Sample[PcsStatus] | None = None
    foreign: dict[int, ForeignFrame] = field(default_factory=dict)
    foreign_notice: Sample[EmsUpgradeNotice] | None = None
    any_frame_at: float | None = None
    plant_frame_at: float | None = None
    _stop_listening: Callable[[], None] | None = field(default=None, repr=False)

    def rack(self, index: int) -> RackView:
        """The view of one rack, empty if nothing was heard."""
        view = self.racks.get(index)
        if view is None:
            view = self.racks[index] = RackView()
        return view

    def attach(self, link: StationLink) -> Callable[[], None]:
        """Record everything that `link` hears.  Gives a function that stops listening to raw traffic.

        What is none of the station's messages is listened to only until the plant is heard: after that an adapter may
        filter.
        """
        link.subscribe(BmsHvStatus, self._on_hv)
        link.subscribe(BmsState, self._on_state)
        link.subscribe(BmsCellSummary, self._on_cells)
        link.subscribe(BmsAlarms, self._on_alarms)
        link.subscribe(PcsStatus, self._on_pcs)
        link.subscribe(NodeInfo, self._on_node)
        link.subscribe(EmsUpgradeNotice, self._on_foreign_notice)
        names = link.codec.gateway_messages

        def on_guarded(frame: CanFrame, at: float) -> None:
            if not is_notice(link.codec, frame):
                self.foreign[frame.can_id] = ForeignFrame(names[frame.can_id], frame, at)

        stop_guard = link.bus.subscribe(names, on_guarded)
        self._stop_listening = link.bus.subscribe(None, self._on_any)

        def stop() -> None:
            stop_guard()
            self._stop_raw()

        return stop

    def _on_any(self, _frame: CanFrame, at: float) -> None:
        self.any_frame_at = at

    def _stop_raw(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    def _plant_heard(self, at: float) -> None:
        self.plant_frame_at = at
        if self.any_frame_at is None:
            self.any_frame_at = at
        self._stop_raw()

    def _on_hv(self, received: Received[BmsHvStatus]) -> None:
        self.rack(received.index).hv = Sample(received.message, received.at)
        self._plant_heard(received.at)

    def _on_state(self, received: Received[BmsState]) -> None:
        self.rack(received.index).state = Sample(received.message, received.at)

    def _on_cells(self, received: Received[BmsCellSummary]) -> None:
        self.rack(received.index).cells = Sample(received.message, received.at)

    def _on_alarms(self, received: Received[BmsAlarms]) -> None:
        self.rack(received.index).alarms = Sample(received.message, received.at)

    def _on_pcs(self, received: Received[PcsStatus]) -> None:
        self.pcs = Sample(received.message, received.at)
        self._plant_heard(received.at)

    def _on_node(self, received: Received[NodeInfo]) -> None:
        self.nodes[NodeAddress(received.message.node_type, received.index)] = Sample(received.message, received.at)
        self._plant_heard(received.at)

    def node_told(self, address: NodeAddress, state: BootState, at: float) -> None:
        """Record what a node answered when it was asked, as if its Node_Info had come.

        Nothing is recorded of a node that was never heard, or whose answer makes no sense.
        """
        heard = self.nodes.get(address)
        if heard is None or state.standing not in tuple(ImageState):
            return
        said = replace(
            heard.value,
            bank=state.bank,
            boot_counter=state.boot_counter % BOOT_COUNTER_MODULUS,
            image_state=ImageState(state.standing),
            version_major=state.version.major,
            version_minor=state.version.minor,
            version_revision=state.version.revision,
        )
        self.nodes[address] = Sample(said, at)

    def _on_foreign_notice(self, received: Received[EmsUpgradeNotice]) -> None:
        self.foreign_notice = Sample(received.message, received.at)

    def connection(self, racks: Iterable[int], since: float) -> Connection:
        """What PCS and these racks say of their contactors in messages received at `since` or later."""
        samples = [self.rack(rack).hv for rack in racks]
        if self.pcs is None or self.pcs.at < since or any(hv is None or hv.at < since for hv in samples):
            return Connection.UNKNOWN
        feedbacks = {self.pcs.value.contactors}
        for hv in samples:
            if hv is not None:
                feedbacks |= {hv.value.main_plus, hv.value.main_minus}
        if feedbacks == {ContactorState.CLOSED}:
            return Connection.CONNECTED
        return Connection.OPEN if feedbacks == {ContactorState.OPEN} else Connection.PARTLY

    def snapshot(self) -> dict[int, RackView]:
        """A copy of what the racks say now, for `require_plausible`."""
        return {rack: replace(view) for rack, view in self.racks.items()}

    def heard_since(self, racks: Iterable[int], since: float) -> bool:
        """Whether each of these racks sent each of its messages after `since`."""
        return all(_silent_since(self.rack(rack), since) == () for rack in racks)

    def require_plausible(self, before: dict[int, RackView], since: float) -> None:
        """Compare what the racks measured after `since` with a snapshot from before the new firmware.

        Nothing flowed meanwhile, so a value that jumped was scaled wrongly; and silence proves nothing.  Raises
        TrialBootFailed.
        """
        for rack, old in before.items():
            new = self.rack(rack)
            silent = _silent_since(new, since)
            if silent:
                raise TrialBootFailed(
                    f"rack {rack} does not say all with its new firmware", why=f"no {', '.join(silent)} since"
                )
            for name, was, is_now, tolerance in _comparisons(old, new):
                if was is not None and (is_now is None or abs(is_now - was) > tolerance):
                    raise TrialBootFailed(
                        f"rack {rack} measures implausibly with its new firmware", why=f"{name} {was} became {is_now}"
                    )


def _silent_since(rack: RackView, since: float) -> tuple[str, ...]:
    samples: tuple[tuple[str, Sample[Message] | None], ...] = (
        ("BMS_HvStatus", rack.hv),
        ("BMS_State", rack.state),
        ("BMS_Cells", rack.cells),
        ("BMS_Alarms", rack.alarms),
    )
    return tuple(name for name, sample in samples if sample is None or sample.at <= since)


def _comparisons(old: RackView, new: RackView) -> Iterator[tuple[str, float | None, float | None, float]]:
    """Quantities that cannot change while nothing flows: name, before, after, tolerance."""
    if old.state is not None and new.state is not None:
        a, b = old.state.value, new.state.value
        voltage = 0.05 * (a.string_voltage_v or 0.0)
        yield "state of charge in %", a.soc_percent, b.soc_percent, 5.0
        yield "string voltage in V", a.string_voltage_v, b.string_voltage_v, voltage
    if old.cells is not None and new.cells is not None:
        c, d = old.cells.value, new.cells.value
        yield "lowest cell voltage in V", c.cell_voltage_min_v, d.cell_voltage_min_v, 0.2
        yield "highest cell voltage in V", c.cell_voltage_max_v, d.cell_voltage_max_v, 0.2
        yield "lowest cell temperature in degC", c.cell_temperature_min_degc, d.cell_temperature_min_degc, 15.0
        yield "highest cell temperature in degC", c.cell_temperature_max_degc, d.cell_temperature_max_degc, 15.0
