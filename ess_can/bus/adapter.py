"""The Bus port over any interface that python-can opens: subscriptions, confirmation, back-pressure, watching.

One reader (`ess_can.bus.reader`) serves all subscriptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ess_can.bus.clock import Cycle
from ess_can.bus.driver import Driver, ErrorReport, ErrorState, Heard, HostFrame, IdFilter, OwnFrame
from ess_can.bus.port import Receive, Sent
from ess_can.bus.reader import Reader
from ess_can.bus.transmit_queue import TransmitQueue
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import AdapterLost, BusError, BusOff, ErrorPassive, InterfaceDown, UsageError

_READ_FAILURES_LIMIT = 100
_STATE_PERIOD_S = 0.25
_ROUTES_LIMIT = 4096
_STALE_S = 0.05  # after an interface went down, frames from before may still be read
_EXACTLY = 0x1FFF_FFFF | EXTENDED_FLAG


@dataclass(slots=True, eq=False)
class _Subscription:
    can_ids: frozenset[int] | None
    receive: Receive
    live: bool = True


class PythonCanBus:
    """A `Bus` over an open interface.

    Up to `depth` frames of each kind (bulk or not) wait here while the driver's queue is full, for up to `patience_s`
    seconds without progress; then they are dropped, and watchers get TransmitQueueFull or TransmitStalled.  A bus that
    is off or down refuses frames until it is back; only after AdapterLost it never comes back.

    `unreadable` counts what the interface gave that is no frame, `overruns` the frames lost because we read too
    slowly, `restarts` how often the controller came back from bus-off; `last_report` is its latest error report.
    """

    def __init__(self, driver: Driver, *, depth: int = 64, patience_s: float = 1.0) -> None:
        self.unreadable = 0
        self.overruns = 0
        self.restarts = 0
        self.last_report: ErrorReport | None = None
        self._driver = driver
        self._depth = depth
        self._patience_s = patience_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: TransmitQueue | None = None
        self._end: BusError | None = None  # why nothing can be sent any more
        self._off: BusOff | None = None
        self._down_at: float | None = None  # when last seen down, and watchers know
        self._passive = False  # and watchers know
        self._closed = False
        self._failures = 0
        self._watchers: list[Callable[[BusError], None]] = []
        self._subscriptions: list[_Subscription] = []
        self._routes: dict[int, tuple[_Subscription, ...]] = {}
        self._sent_ids: set[int] = set()  # must pass the filters, or nothing would be confirmed
        self._adopted: set[int] = set()
        self._filters_due: asyncio.Handle | None = None
        self._reader = Reader(driver, self._take)
        self._state_poll: Cycle | None = None

    @property
    def backend(self) -> str:
        """python-can's name of this kind of interface."""
        return self._driver.name

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read from the interface on the running loop, until `close`."""
        if self._loop is not None:
            return
        self._loop = loop = asyncio.get_running_loop()
        self._queue = TransmitQueue(
            self._driver, loop, depth=self._depth, patience_s=self._patience_s, report=self._failed
        )
        self._apply_filters()
        if self._end is not None:
            return
        self._reader.start(loop)
        if self._driver.polls_state:
            self._state_poll = Cycle(_STATE_PERIOD_S, self._poll_state)
            self._state_poll.start()

    def close(self) -> None:
        """Release the interface.  Frames that wait are dropped.  Waits shortly for a reader thread."""
        if self._closed:
            return
        self._closed = True
        self._stop(AdapterLost("the bus was closed"))
        self._reader.join()
        self._driver.close()

    # --- the Bus port -----------------------------------------------------------------------------

    @property
    def fd(self) -> bool:
        """Whether CAN FD frames may be sent."""
        return self._driver.fd

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Give a frame to the driver, or queue it, as `Bus.send` says.

        `on_sent` is called when the interface gave the frame back, or, if it does not do that, when its driver has
        taken it.  Raises UsageError for a CAN FD frame on a classic bus, BusError for a frame that the driver rejects.
        """
        queue = self._queue
        if queue is None:
            raise UsageError("the bus was not started")
        if self._end is not None:
            self._check_not_ended()
        if self._off is not None:
            raise BusOff(self._off.what, why=self._off.why)
        if frame.fd and not self._driver.fd:
            raise UsageError("a CAN FD frame on a classic bus", why=str(frame))
        # filters that are due: the answer may be there before the loop comes round
        if frame.can_id not in self._sent_ids or self._filters_due is not None:
            self._sent_ids.add(frame.can_id)
            self._apply_filters()
            self._check_not_ended()
        try:
            queue.send(frame, on_sent, bulk=bulk)
        except (AdapterLost, BusOff, InterfaceDown) as error:
            self._failed(error)
            raise
        self._down_at = None

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """Take back frames of a stream, as `Bus.withdraw` says."""
        return [] if self._queue is None else self._queue.withdraw(can_id)

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        """Deliver frames from others, as `Bus.subscribe` says."""
        subscription = _Subscription(None if can_ids is None else frozenset(can_ids), receive)
        self._subscriptions.append(subscription)
        self._subscriptions_changed()

        def cancel() -> None:
            if subscription.live:
                subscription.live = False
                self._subscriptions.remove(subscription)
                self._subscriptions_changed()

        return cancel

    def adopt(self, can_id: int) -> None:
        """Take this host's frames with this identifier for ours, as `Bus.adopt` says."""
        self._adopted.add(can_id)

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Report AdapterLost, InterfaceDown, BusOff, TransmitStalled, TransmitQueueFull, as `Bus.watch` says.

        ErrorPassive is reported as a warning, once each time the controller becomes so.
        """
        self._watchers.append(on_error)

        def cancel() -> None:
            if on_error in self._watchers:
                self._watchers.remove(on_error)

        return cancel

    def restart(self) -> bool:
        """Have the controller leave bus-off, as `Bus.restart` says."""
        return self._end is None and self._driver.restart()

    # --- who receives what ------------------------------------------------------------------------

    def _subscriptions_changed(self) -> None:
        self._routes.clear()
        if self._driver.filters_ids and self._loop is not None and self._filters_due is None and self._end is None:
            self._filters_due = self._loop.call_soon(self._apply_filters)

    def _apply_filters(self) -> None:
        if self._filters_due is not None:
            self._filters_due.cancel()
            self._filters_due = None
        if self._driver.filters_ids and self._end is None:
            try:
                self._driver.set_filters(self._wanted())
            except BusError as error:  # the interface may be gone just now
                self._failed(error)

    def _wanted(self) -> Sequence[IdFilter] | None:
        """What has to be received: the subscribed identifiers, and our own; None for everything."""
        wanted: set[int] = set()
        for subscription in self._subscriptions:
            if subscription.can_ids is None:
                if not self._driver.user_filters:
                    return None
                return (*self._driver.user_filters, *(IdFilter(can_id, _EXACTLY) for can_id in sorted(self._sent_ids)))
            wanted |= subscription.can_ids
        admitted = {can_id for can_id in wanted if self._admits(can_id)} | self._sent_ids
        return tuple(IdFilter(can_id, _EXACTLY) for can_id in sorted(admitted))

    def _admits(self, can_id: int) -> bool:
        filters = self._driver.user_filters
        return not filters or any(one.admits(can_id) for one in filters)

    def _route(self, can_id: int) -> tuple[_Subscription, ...]:
        """Find, and remember, who wants an identifier."""
        if len(self._routes) >= _ROUTES_LIMIT:
            self._routes.clear()
        route: tuple[_Subscription, ...] = ()
        if self._admits(can_id):
            route = tuple(one for one in self._subscriptions if one.can_ids is None or can_id in one.can_ids)
        self._routes[can_id] = route
        return route

    # --- reading ----------------------------------------------------------------------------------

    def _take(self, heard: list[Heard]) -> None:
        queue = self._queue
        if queue is None:
            return
        now = asyncio.get_running_loop().time()
        unmarked_echo = not self._driver.marks_echo
        for one in heard:
            if self._end is not None:
                return
            if type(one) is CanFrame:
                self._failures = 0
                if unmarked_echo and queue.confirm(one):
                    continue
                if self._off is not None or self._down_at is not None:
                    self._alive(now)
                if queue.paced:
                    queue.heard(one)
                self._deliver(one, now)
            elif isinstance(one, OwnFrame):
                self._failures = 0
                self._alive(now)
                queue.confirm(one.frame)
            elif isinstance(one, HostFrame):
                self._failures = 0
                self._alive(now)
                self._deliver(one.frame, now, adopted=one.frame.can_id in self._adopted)
            elif isinstance(one, ErrorReport):
                self._reported(one)
            elif isinstance(one, BusError):
                self._read_failed(one)

    def _deliver(self, frame: CanFrame, now: float, *, adopted: bool = False) -> None:
        route = self._routes.get(frame.can_id)
        for subscription in self._route(frame.can_id) if route is None else route:
            if subscription.live and not (adopted and subscription.can_ids is not None):
                subscription.receive(frame, now)

    def _read_failed(self, error: BusError) -> None:
        if isinstance(error, AdapterLost | BusOff | InterfaceDown):
            self._failed(error)
            return
        self.unreadable += 1
        self._failures += 1
        if self._failures >= _READ_FAILURES_LIMIT:
            self._failed(AdapterLost(f"the {self.backend} adapter gives nothing readable any more", why=str(error)))

    def _poll_state(self, _now: float) -> None:
        report = self._driver.state()
        if report is not None:
            self._reported(report)

    # --- what goes wrong --------------------------------------------------------------------------

    def _alive(self, now: float) -> None:
        """A frame went over the bus."""
        self._off = None
        if self._down_at is not None and now - self._down_at > _STALE_S:
            self._down_at = None

    def _reported(self, report: ErrorReport) -> None:
        if report.overrun:
            self.overruns += report.overrun
            if self._queue is not None:
                self._queue.settle()
            return
        self.last_report = report
        if self._queue is not None:
            if report.transmit_timeout:
                self._queue.hint = "the driver reports a transmit time-out: the adapter hangs"
            elif report.not_acknowledged:
                self._queue.hint = "no node acknowledges our frames"
        if report.restarted:
            self.restarts += 1
            self._off = None
            self._passive = False
        if report.state is ErrorState.BUS_OFF:
            if self._off is None:
                self._failed(BusOff("the controller went bus-off", why=report.counters or "reported by the driver"))
        elif report.state is not None:
            passive = report.state is ErrorState.PASSIVE
            if passive and not self._passive:
                self._report(ErrorPassive("the controller is error passive", why=report.counters))
            self._passive = passive
            if report.state is ErrorState.ACTIVE:
                self._off = None

    def _check_not_ended(self) -> None:
        if self._end is not None:
            raise AdapterLost(self._end.what, why=self._end.why)

    def _failed(self, error: BusError) -> None:
        """Something ends the use of the bus: forget what was queued, and tell the watchers once."""
        if isinstance(error, AdapterLost):
            if self._end is None:
                self._stop(error)
                self._report(error)
            return
        if isinstance(error, InterfaceDown | BusOff) and self._queue is not None:
            self._queue.drop()
        if isinstance(error, BusOff):
            self._off = error
            self._passive = False
        if isinstance(error, InterfaceDown) and self._loop is not None:
            told, self._down_at = self._down_at is not None, self._loop.time()
            if told:
                return
        self._report(error)

    def _stop(self, why: BusError) -> None:
        self._end = self._end or why
        self._reader.stop()
        if self._queue is not None:
            self._queue.drop()
        if self._filters_due is not None:
            self._filters_due.cancel()
            self._filters_due = None
        if self._state_poll is not None:
            self._state_poll.stop()

    def _report(self, error: BusError) -> None:
        for on_error in tuple(self._watchers):
            on_error(error)
