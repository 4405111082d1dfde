"""A transport straight into a server core, with every message recorded and any of them lost on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ess_can.bus.clock import pause
from ess_can.errors import EssCanError, IsoTpError
from tests.support.uds_server import Bench

LATENCY = 0.001


@dataclass
class MemoryLink:
    """Messages take `LATENCY` each way.  `requests` and `answers` record what was sent, in hex.

    `lose_request`, `lose_answer` say of the n-th message (from 0) whether it vanishes; `fail_send` gives the error that
    sending it ends with, `answer_delay` how many seconds more an answer takes: others overtake it.
    """

    bench: Bench
    requests: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    lose_request: Callable[[int], bool] = lambda _: False
    lose_answer: Callable[[int], bool] = lambda _: False
    fail_send: Callable[[int], EssCanError | None] = lambda _: None
    answer_delay: Callable[[int], float] = lambda _: 0.0
    closed: bool = False
    closing_s: float = 0.0
    _on_message: Callable[[bytes, float], None] = field(init=False)
    on_error: Callable[[IsoTpError], None] = field(init=False)
    _timer: asyncio.TimerHandle | None = None

    def connect(self, on_message: Callable[[bytes, float], None], on_error: Callable[[IsoTpError], None]) -> MemoryLink:
        self._on_message = on_message
        self.on_error = on_error
        return self

    async def send(self, payload: bytes) -> None:
        loop = asyncio.get_running_loop()
        number = len(self.requests)
        self.requests.append(payload.hex())
        self.times.append(loop.time())
        error = self.fail_send(number)
        await pause(LATENCY)
        if error is not None:
            raise error
        if not self.lose_request(number):
            self._serve(payload)

    def close(self) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()

    async def wait_closed(self) -> None:
        await pause(self.closing_s)

    def deliver(self, payload: bytes) -> None:
        self._on_message(payload, asyncio.get_running_loop().time())

    def _serve(self, payload: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self._answer(self.bench.server.receive(payload, now))

    def _tick(self) -> None:
        self._answer(self.bench.server.tick(asyncio.get_running_loop().time()))

    def _answer(self, messages: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        for message in messages:
            number = len(self.answers)
            self.answers.append(message.hex())
            if not self.lose_answer(number):
                loop.call_later(LATENCY + self.answer_delay(number), self.deliver, message)
        if self.bench.server.reset_pending:
            self.bench.server.perform_reset(loop.time())
        if self._timer is not None:
            self._timer.cancel()
        due = self.bench.server.next_deadline
        self._timer = None if due is None else loop.call_at(due, self._tick)
