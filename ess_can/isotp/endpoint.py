"""One end of an ISO-TP connection, both directions at once (ISO 15765-2), sans-IO.

The driver's loop: give every frame to `receive` and every transmit confirmation to `frame_sent`, call `tick` at
`next_deadline`, and after each of these send what `next_frame` gives until it gives None.
"""

from __future__ import annotations

import math
from collections import deque

from ess_can.can.frame import CanFrame
from ess_can.errors import IsoTpError, NTimeoutA, NUnexpPdu, NWftOvrn, NWrongSn, UsageError
from ess_can.isotp import pci
from ess_can.isotp.events import (
    Event,
    IsoTpCounters,
    MessageReceived,
    MessageSent,
    MessageStarted,
    ReceiveFailed,
    SendFailed,
)
from ess_can.isotp.params import IsoTpAddress, IsoTpParams
from ess_can.isotp.receiver import Reception, Step
from ess_can.isotp.sender import Transmission

Events = tuple[Event, ...]

_NOTHING: Events = ()
_CONSECUTIVE_FRAME = pci.CONSECUTIVE_FRAME  # looked up on every frame


class Endpoint:
    """One end of an ISO-TP connection.

    At most `max_in_flight` of our frames are handed over and not yet confirmed; a flow control takes the next free
    place.  Frames are told apart by identity, so the driver must confirm the very object that `next_frame` gave.
    All times are seconds of one clock; what the peer does never raises but becomes an event or a count.
    """

    def __init__(self, address: IsoTpAddress, params: IsoTpParams, *, max_in_flight: int = 2) -> None:
        if max_in_flight < 1:
            raise UsageError(f"{max_in_flight} frames in flight are too few to send anything")
        self.address = address
        self.params = params
        self.counters = IsoTpCounters()
        self._rx_id = address.rx_id
        self._fd = params.fd
        self._max_in_flight = max_in_flight
        self._transmission: Transmission | None = None
        self._reception: Reception | None = None
        self._flow_control: CanFrame | None = None  # due, not yet handed over
        self._in_flight: deque[tuple[CanFrame, Transmission | Reception | None]] = deque()
        self._refused: tuple[CanFrame, Transmission | Reception | None] | None = None
        self._unconfirmed_since = 0.0  # N_As and N_Ar of the oldest frame run from here
        self._flow_control_owed_until = -math.inf  # to a transmission that was given up
        self._held = False

    # --- sending --------------------------------------------------------------------------------

    @property
    def sending(self) -> bool:
        """Whether a message is on its way out."""
        return self._transmission is not None

    @property
    def receiving(self) -> bool:
        """Whether a segmented message is on its way in."""
        return self._reception is not None

    def send(self, payload: bytes, now: float) -> None:
        """Start sending a message of 1 to 2^32-1 bytes; ends in MessageSent or SendFailed.

        After a segmented message was aborted, the flow control still owed to it could be taken for the next one's:
        the next segmented message waits until it came or N_Bs passed.  Raises UsageError for a payload of other size
        or while another message is being sent.
        """
        if self._transmission is not None:
            raise UsageError(f"{self.address}: another message is still being sent")
        self.check_sendable(payload)
        single = pci.fits_single_frame(len(payload), self.params.tx_dl)
        not_before = 0.0 if single or now >= self._flow_control_owed_until else self._flow_control_owed_until
        self._transmission = Transmission(payload, self.address, self.params, now, not_before)

    def check_sendable(self, payload: bytes) -> None:
        """Raise UsageError for a payload that no message can have."""
        if not 1 <= len(payload) <= pci.MAX_FF_DL:
            raise UsageError(f"{self.address}: an ISO-TP message cannot have {len(payload)} bytes")

    def abort_send(self, now: float, *, flow_control_may_come: bool = True) -> None:
        """Give up the message on its way out, without an event: only frames already handed over still go out.

        A flow control that may still come for it must not be taken for the next message's, which waits for that long.
        """
        transmission = self._transmission
        if transmission is None:
            return
        self._transmission = None
        if self._refused is not None and self._refused[1] is transmission:
            self._refused = None  # it never went out, so nothing is owed for it
        elif transmission.awaits_flow_control and flow_control_may_come:
            self._flow_control_owed_until = now + self.params.n_bs_s

    def next_frame(self, now: float) -> CanFrame | None:
        """The next frame to send now; it counts as handed over until `frame_sent` or `frame_refused`."""
        in_flight = self._in_flight
        if len(in_flight) >= self._max_in_flight:
            return None
        transmission = self._transmission
        owner: Transmission | Reception | None = transmission
        if self._refused is not None:
            entry, self._refused = self._refused, None
            in_flight.append(entry)
            return entry[0]  # its N_As goes on
        if self._flow_control is not None:
            frame, owner = self._flow_control, self._reception
            self._flow_control = None
        elif transmission is None:
            return None
        elif ahead := transmission.ahead:
            frame = ahead.pop()
        else:
            candidate = transmission.next_frame(now)
            if candidate is None:
                return None
            frame = candidate
        if not in_flight:
            self._unconfirmed_since = now
        in_flight.append((frame, owner))
        return frame

    @property
    def may_send(self) -> bool:
        """Whether `next_frame` is worth a call; false is certain."""
        return self._transmission is not None or self._flow_control is not None or self._refused is not None

    def frame_refused(self, frame: CanFrame) -> None:
        """The bus had no room for the frame that `next_frame` gave last: it comes again, and its N_As goes on."""
        if self._in_flight and self._in_flight[-1][0] is frame:
            entry = self._in_flight.pop()
            if entry[1] is None or entry[1] is self._transmission or entry[1] is self._reception:
                self._refused = entry

    def frame_withdrawn(self, frame: CanFrame) -> None:
        """The bus gave a frame back that it had not sent, and will not send: its message was given up.

        Frames are given back from the last one on, so that what would have asked for a flow control is among them.
        """
        self._in_flight = deque(entry for entry in self._in_flight if entry[0] is not frame)
        self._flow_control_owed_until = -math.inf

    def frame_sent(self, frame: CanFrame, now: float) -> Events:
        """The frame is confirmed on the wire.  Frames handed over before it will not be confirmed any more."""
        in_flight = self._in_flight
        if in_flight and in_flight[0][0] is frame:
            owner = in_flight.popleft()[1]
        elif any(entry[0] is frame for entry in in_flight):
            while True:
                entry = in_flight.popleft()
                if entry[0] is frame:
                    owner = entry[1]
                    break
        else:
            self.counters.late_confirmation += 1
            return _NOTHING
        self._unconfirmed_since = now
        transmission = self._transmission
        if transmission is not None and owner is transmission:
            if frame is transmission.pivot and transmission.confirmed(now):
                self._transmission = None
                return (MessageSent(),)
        elif self._reception is not None and owner is self._reception:
            self._reception.flow_control_sent(now)
        return _NOTHING

    # --- receiving ------------------------------------------------------------------------------

    def receive(self, frame: CanFrame, now: float) -> Events:
        """Take a frame from the bus, with its receive time."""
        can_id, data, fd, _, remote = frame
        if can_id != self._rx_id:
            self.counters.wrong_identifier += 1
            return _NOTHING
        if remote:
            self.counters.remote_frame += 1
            return _NOTHING
        if fd and not self._fd:
            self.counters.fd_frame += 1
            return _NOTHING
        if not data:
            self.counters.empty_frame += 1
            return _NOTHING
        kind = data[0] >> 4
        if kind == _CONSECUTIVE_FRAME:
            reception = self._reception
            if reception is None:
                self.counters.consecutive_frame_unsolicited += 1
                return _NOTHING
            step = reception.consecutive(data, now)
            return _NOTHING if step is None else self._reception_step(reception, step, data, now)
        if kind == pci.FLOW_CONTROL:
            return self._flow_control_frame(data, now)
        if kind == pci.SINGLE_FRAME:
            return self._single_frame(data, now)
        if kind == pci.FIRST_FRAME:
            return self._first_frame(data, now)
        self.counters.unknown_pci += 1
        return _NOTHING

    def _reception_step(self, reception: Reception, step: Step, data: bytes, now: float) -> Events:
        if step is Step.BLOCK_END:
            return self._request_flow_control(reception, now)
        if step is Step.COMPLETE:
            self._end_reception()
            return (MessageReceived(reception.payload),)
        if step is Step.WRONG_LENGTH:
            self.counters.consecutive_frame_invalid_length += 1
            return _NOTHING
        if step is Step.TOO_LATE:
            self.counters.consecutive_frame_unsolicited += 1
            return self._reception_expired(reception, now)
        return self._fail_reception(
            NWrongSn(f"{self.address}: wrong sequence number", why=reception.wrong_sequence_number(data))
        )

    def _flow_control_frame(self, data: bytes, now: float) -> Events:
        if len(data) < pci.FLOW_CONTROL_SIZE:
            self.counters.flow_control_too_short += 1
            return _NOTHING
        transmission = self._transmission
        if transmission is None or not transmission.awaits_flow_control:
            self._unsolicited_flow_control(data, now)
            return _NOTHING
        error = transmission.expired(now)
        if error is None:
            error = transmission.flow_control(data, now)
        else:
            self.counters.flow_control_late += 1
            transmission.awaits_flow_control = False
        return self._fail_send(error, now) if error is not None else _NOTHING

    def _unsolicited_flow_control(self, data: bytes, now: float) -> None:
        if now >= self._flow_control_owed_until:
            self.counters.flow_control_unsolicited += 1
            return
        self.counters.flow_control_late += 1
        if data[0] & 0xF != pci.FlowStatus.WAIT:  # after a wait, another one follows
            self._flow_control_owed_until = -math.inf
            if self._transmission is not None:
                self._transmission.admit()

    def _single_frame(self, data: bytes, now: float) -> Events:
        payload = pci.decode_single_frame(data)
        if payload is None:
            self.counters.single_frame_invalid_length += 1
            return _NOTHING
        return (*self._interrupt_reception(now, "single"), MessageReceived(payload))

    def _first_frame(self, data: bytes, now: float) -> Events:
        decoded = pci.decode_first_frame(data)
        if decoded is None:
            self.counters.first_frame_invalid_length += 1
            return _NOTHING
        length, first = decoded
        events = self._interrupt_reception(now, "first")
        if length > self.params.max_payload:
            self.counters.first_frame_overflow += 1
            self._flow_control = self._flow_control_of(pci.FlowStatus.OVFLW)
            return events
        self._reception = reception = Reception(length, first, len(data), self.address, self.params, now)
        return (*events, MessageStarted(length), *self._request_flow_control(reception, now))

    def _interrupt_reception(self, now: float, kind: str) -> Events:
        reception = self._reception
        if reception is None:
            return _NOTHING
        error = reception.expired(now) or NUnexpPdu(
            f"{self.address}: the sender began a new message", why=f"a {kind} frame in the middle of another message"
        )
        return self._fail_reception(error)

    def hold(self) -> None:
        """Make senders wait: where a flow control is due, wait frames go out until `release` (at most `wft_max`)."""
        self._held = True

    def release(self, now: float) -> None:
        """Let senders go on."""
        self._held = False
        if self._reception is not None and self._reception.waits:
            self._request_flow_control(self._reception, now)

    def _request_flow_control(self, reception: Reception, now: float) -> Events:
        if not self._held:
            reception.clear_to_send()
            self._flow_control = self._flow_control_of(pci.FlowStatus.CTS)
        elif reception.wait(now):
            self._flow_control = self._flow_control_of(pci.FlowStatus.WAIT)
        else:
            return self._fail_reception(
                NWftOvrn(
                    f"{self.address}: we kept the sender waiting", why=f"{self.params.wft_max} wait frames in a row"
                )
            )
        return _NOTHING

    def _flow_control_of(self, status: pci.FlowStatus) -> CanFrame:
        params = self.params
        data = pci.encode_flow_control(status, params.block_size, params.st_min, params.padding)
        return CanFrame(self.address.tx_id, data, params.fd, params.brs)

    # --- time -----------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float | None:
        """When `tick` must be called unless something else happens before; None if nothing is going on."""
        deadline = math.inf
        if self._in_flight or self._refused is not None:
            deadline = self._confirmation_deadline
        transmission = self._transmission
        if transmission is not None:
            deadline = min(deadline, transmission.deadline)
            if self._refused is None and len(self._in_flight) < self._max_in_flight:
                deadline = min(deadline, transmission.ready_at)
        reception = self._reception
        if reception is not None:
            deadline = min(deadline, reception.deadline, reception.wait_again_at)
        return None if deadline == math.inf else deadline

    @property
    def holds_back(self) -> bool:
        """Whether STmin, or a message given up, keeps our next frame back for a time."""
        return self._transmission is not None and self._transmission.ready_at != math.inf

    def tick(self, now: float) -> Events:
        """Let time pass: everything whose deadline is not after `now` expires."""
        events = _NOTHING
        if (self._in_flight or self._refused is not None) and now >= self._confirmation_deadline:
            events = self.give_up_unconfirmed(now)
        transmission = self._transmission
        if transmission is not None:
            error = transmission.expired(now)
            if error is not None:
                events += self._fail_send(error, now)
        reception = self._reception
        if reception is not None:
            if now >= reception.deadline:
                events += self._reception_expired(reception, now)
            elif now >= reception.wait_again_at:
                events += self._request_flow_control(reception, now)
        return events

    def give_up_unconfirmed(self, now: float, why: str = "") -> Events:
        """Take every frame handed over and not confirmed as lost: N_TIMEOUT_A for the messages they belong to."""
        owners = [entry[1] for entry in self._in_flight]
        if self._refused is not None:
            owners.append(self._refused[1])
        what, why = f"{self.address}: our frame was not sent", why or "the bus did not confirm it in time"
        events = _NOTHING
        if self._transmission is not None and self._transmission in owners:
            events = self._fail_send(NTimeoutA(what, why=why), now)
        if self._reception is not None and self._reception in owners:
            events += self._fail_reception(NTimeoutA(what, why=why))
        self._in_flight.clear()
        self._refused = None
        return events

    @property
    def _confirmation_deadline(self) -> float:
        owner = self._in_flight[0][1] if self._in_flight else self._refused[1] if self._refused is not None else None
        return self._unconfirmed_since + (self.params.n_ar_s if owner is None else owner.confirm_timeout)

    # --- endings --------------------------------------------------------------------------------

    def _fail_send(self, error: IsoTpError, now: float) -> Events:
        self.abort_send(now)
        return (SendFailed(error),)

    def _fail_reception(self, error: IsoTpError) -> Events:
        self._end_reception()
        return (ReceiveFailed(error),)

    def _reception_expired(self, reception: Reception, now: float) -> Events:
        error = reception.expired(now)
        return self._fail_reception(error) if error is not None else _NOTHING

    def _end_reception(self) -> None:
        if self._refused is not None and self._refused[1] is self._reception:
            self._refused = None
        self._reception = None
        self._flow_control = None
