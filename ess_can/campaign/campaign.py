"""Many seeded runs on all cores, their results in the order of the seeds."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress

from ess_can.campaign.result import RunResult
from ess_can.campaign.run import checked_seed

Run = Callable[[int], RunResult]
"""Runs one seed.  It must be a function that another process can import."""

CHUNK = 4
"""Seeds that are given to a process at a time: some seconds of work, so that an interruption need not wait long."""

_AHEAD = 4  # chunks that wait for each process: none is ever idle, and few are lost to an interruption


def cores() -> int:
    """How many processes this machine runs at the same time."""
    with suppress(AttributeError):  # not every system tells what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_campaign(first: int, seeds: int, *, jobs: int, run: Run = checked_seed) -> Generator[RunResult, None, None]:
    """Run the seeds `first`, `first` + 1, ... and give each result in its turn, whatever the number of `jobs`.

    Closing the iterator, or an interruption, drops what has not begun and waits for the few runs that have.
    """
    chunks = [range(at, min(at + CHUNK, first + seeds)) for at in range(first, first + seeds, CHUNK)]
    if jobs == 1 or len(chunks) < 2:
        for seed in range(first, first + seeds):
            yield run(seed)
        return
    # A process of its own each, with nothing of ours in it: threads and open files stay here.
    processes = ProcessPoolExecutor(
        min(jobs, len(chunks)), mp_context=multiprocessing.get_context("spawn"), initializer=_leave_interrupts
    )
    try:
        waiting: list[Future[list[RunResult]]] = []
        for chunk in chunks:
            waiting.append(processes.submit(_run_chunk, run, chunk))
            if len(waiting) > jobs * _AHEAD:
                yield from waiting.pop(0).result()
        for future in waiting:
            yield from future.result()
    finally:
        processes.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal: who gave us the work says when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_chunk(run: Run, seeds: range) -> list[RunResult]:
    return [run(seed) for seed in seeds]
