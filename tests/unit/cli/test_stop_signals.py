from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ess_can.bus.clock import pause
from ess_can.cli.stop_signals import stopped_by_signals
from ess_can.errors import Interrupted
from ess_can.sim.loop import run_virtual

LOOPS = {"real": asyncio.run, "virtual": run_virtual}
Run = Callable[[Coroutine[Any, Any, str]], str]


def strike(number: signal.Signals) -> None:
    """The signal is taken before this returns."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_upgrade_and_another_one_does_not_break_off_the_putting_back(
    number: signal.Signals, run: Run
) -> None:
    async def upgrade() -> str:
        with stopped_by_signals() as report_is_there:
            strike(number)
            try:
                await pause(5)
            except asyncio.CancelledError:
                report_is_there()
                strike(number)
                await pause(0.01)
                return "put back"
            return "went on"

    before = signal.getsignal(number)
    assert run(upgrade()) == "put back"
    assert signal.getsignal(number) in (before, signal.SIG_DFL, signal.default_int_handler)


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_stopped_before_anybody_could_make_a_report(run: Run) -> None:
    async def opening() -> str:
        with stopped_by_signals():
            strike(signal.SIGTERM)
            await pause(5)
        return "went on"

    with pytest.raises(Interrupted):
        run(opening())


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_nohup_is_respected(run: Run) -> None:
    async def upgrade() -> str:
        with stopped_by_signals():
            strike(signal.SIGHUP)
            await pause(0.01)
        return "went on"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(upgrade()) == "went on"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_has_no_signals() -> None:
    async def upgrade() -> str:
        with stopped_by_signals():
            await pause(0.01)
        return "went on"

    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(run_virtual(upgrade())))
    thread.start()
    thread.join()
    assert told == ["went on"]
