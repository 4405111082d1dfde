"""Ctrl-C, the end of a service and the end of a terminal: an upgrade is stopped, and the plant put back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from ess_can.errors import Interrupted


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], None]]:
    """Have Ctrl-C, SIGTERM and SIGHUP cancel the running task, however often: whatever it is, it puts the plant back.

    Gives what to call once its report is there: from then on they change nothing, because only little is left to do.
    A SIGHUP that was ignored before (`nohup`) stays ignored.  Raises Interrupted for a cancellation that nobody took.
    """
    task, running = asyncio.current_task(), True

    def stop() -> None:
        if running and task is not None:
            task.cancel()

    def report_is_there() -> None:
        nonlocal running
        running = False

    with ExitStack() as undo:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
                undo.callback(_handled(number, stop))
        try:
            yield report_is_there
        except asyncio.CancelledError:
            raise Interrupted("interrupted", remedy="`ess-can status` tells how the plant is.") from None


def _handled(number: signal.Signals, stop: Callable[[], None]) -> Callable[[], object]:
    """Have `stop` called at this signal; gives what undoes it."""
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError):
        loop.add_signal_handler(number, stop)
        return lambda: loop.remove_signal_handler(number)
    try:  # loops on Windows, and those in virtual time, have no handlers
        earlier = signal.signal(number, lambda _number, _frame: stop())
    except ValueError:  # signals belong to the main thread
        return lambda: None
    return lambda: signal.signal(number, earlier)
