"""The order of programming steps and of TransferData blocks, as one table (ISO 14229-1 services 31, 34, 36, 37)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from ess_can.uds.target import Nrc


class TransferState(Enum):
    """Where programming stands in this session."""

    IDLE = "no download; the bank may hold a part to resume"
    RECEIVING = "34 was accepted, blocks may come"
    SUSPENDED = "a block or the exit failed; a new 34 or an erase is needed"
    EXITED = "37 was accepted: all bytes are programmed and read back"
    VERIFIED = "the image passed the memory check and nothing was changed since"


class Step(Enum):
    """The requests whose order matters."""

    ERASE = "31 FF00"
    DOWNLOAD = "34"
    BLOCK = "36"
    EXIT = "37"
    VERIFY = "31 FD10"
    ACTIVATE = "31 FD11"


_S = TransferState
_ORDER = Nrc.REQUEST_SEQUENCE_ERROR
_BUSY = Nrc.CONDITIONS_NOT_CORRECT  # a download is in progress

TRANSITIONS: Mapping[TransferState, Mapping[Step, TransferState | Nrc]] = MappingProxyType(
    {
        _S.IDLE: {
            Step.ERASE: _S.IDLE,
            Step.DOWNLOAD: _S.RECEIVING,
            Step.BLOCK: _ORDER,
            Step.EXIT: _ORDER,
            Step.VERIFY: _S.VERIFIED,
            Step.ACTIVATE: _ORDER,
        },
        _S.RECEIVING: {
            Step.ERASE: _ORDER,
            Step.DOWNLOAD: _BUSY,
            Step.BLOCK: _S.RECEIVING,
            Step.EXIT: _S.EXITED,
            Step.VERIFY: _ORDER,
            Step.ACTIVATE: _ORDER,
        },
        _S.SUSPENDED: {
            Step.ERASE: _S.IDLE,
            Step.DOWNLOAD: _S.RECEIVING,
            Step.BLOCK: _ORDER,
            Step.EXIT: _ORDER,
            Step.VERIFY: _ORDER,
            Step.ACTIVATE: _ORDER,
        },
        _S.EXITED: {
            Step.ERASE: _S.IDLE,
            Step.DOWNLOAD: _S.RECEIVING,
            Step.BLOCK: _ORDER,
            Step.EXIT: _S.EXITED,  # repeated because its answer was lost: answered, nothing is done
            Step.VERIFY: _S.VERIFIED,
            Step.ACTIVATE: _ORDER,
        },
        _S.VERIFIED: {
            Step.ERASE: _S.IDLE,
            Step.DOWNLOAD: _S.RECEIVING,
            Step.BLOCK: _ORDER,
            Step.EXIT: _ORDER,
            Step.VERIFY: _S.VERIFIED,
            Step.ACTIVATE: _S.VERIFIED,
        },
    }
)
"""What success of a step leads to, or the code with which the step is refused in that state."""

FAILURES: Mapping[Step, TransferState] = MappingProxyType(
    {Step.ERASE: _S.IDLE, Step.BLOCK: _S.SUSPENDED, Step.EXIT: _S.SUSPENDED, Step.VERIFY: _S.IDLE}
)
"""Where a step leads that began and failed."""


NOT_TAKEN = (Nrc.CONDITIONS_NOT_CORRECT, Nrc.BUSY_REPEAT_REQUEST)
"""With these the node took nothing: the same block, or the exit, may come again."""


class DataTransfer:
    """State of one programming session.  Never raises; refusals are response codes."""

    def __init__(self) -> None:
        self.state = TransferState.IDLE
        self.announced = (0, 0)
        self.max_data = 0
        self._remaining = 0
        self._counter = 0
        self._blocks = 0

    def refusal(self, step: Step) -> Nrc | None:
        """The code for a step that is out of order, or None."""
        outcome = TRANSITIONS[self.state][step]
        return outcome if isinstance(outcome, Nrc) else None

    def succeed(self, step: Step) -> None:
        """The step, which was in order, succeeded."""
        outcome = TRANSITIONS[self.state][step]
        if isinstance(outcome, TransferState):
            self.state = outcome

    def fail(self, step: Step) -> None:
        """The step began and failed."""
        self.state = FAILURES.get(step, self.state)

    def is_repeated_download(self, address: int, size: int) -> bool:
        """Whether a 34 only repeats the one in progress, before any block."""
        return self.state is TransferState.RECEIVING and self._blocks == 0 and self.announced == (address, size)

    def begin(self, address: int, size: int, max_data: int) -> None:
        """34 was accepted: `size` bytes will come, at most `max_data` in a block, the first with counter 1."""
        self.succeed(Step.DOWNLOAD)
        self.announced = (address, size)
        self.max_data = max_data
        self._remaining = size
        self._counter = 0
        self._blocks = 0

    def is_repeated_block(self, counter: int) -> bool:
        """Whether a block carries the counter of the last accepted one: its answer was lost (U2)."""
        return self._blocks > 0 and counter == self._counter

    def block_refusal(self, counter: int, length: int) -> Nrc | None:
        """The code for a block that cannot be the next one, or None."""
        if counter != (self._counter + 1) & 0xFF:
            return Nrc.WRONG_BLOCK_SEQUENCE_COUNTER
        if not 1 <= length <= self.max_data:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if length > self._remaining:
            return Nrc.TRANSFER_DATA_SUSPENDED
        return None

    def accept_block(self, length: int) -> None:
        """The next block of `length` bytes is in the node's hands."""
        self._counter = (self._counter + 1) & 0xFF  # FF is followed by 00
        self._blocks += 1
        self._remaining -= length

    @property
    def complete(self) -> bool:
        """Whether every announced byte was accepted."""
        return self._remaining == 0
