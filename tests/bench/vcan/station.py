"""A station on vcan0: the simulated plant, or its parts, and whoever listens beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ess_can.bus.kernel_socket import why_no_kernel_isotp
from tests.bench.processes import ESS_CAN, Running, run, running

CHANNEL = "vcan0"
BUS = ("-i", "socketcan", "-c", CHANNEL)
ONE_RACK = ("--racks", "1", "--speed", "10", "--st-min", "1")
"""A simulated plant for a kernel that is an ordinary process: a stream at full speed costs it its deadlines."""

TRANSPORTS = ("user",) if why_no_kernel_isotp("socketcan", CHANNEL) else ("user", "kernel")
"""Who can speak ISO-TP here.  User-Mode Linux has no module for it; the bench in QEMU has."""

_READY = "The plant runs."

# candump's log format, such as "(1731.000123) vcan0 0A1#0011" and, for CAN FD, "123##1001122"
_LOGGED = re.compile(r"\((\d+\.\d+)\) (\S+) ([0-9A-F]+)#(#[0-9A-F])?([0-9A-F]*)(?: [TR])?")


@dataclass(frozen=True, slots=True)
class Logged:
    """A frame of candump's log; `at` in seconds of the system's clock."""

    at: float
    can_id: int
    data: bytes
    fd: bool


def read_log(text: str) -> list[Logged]:
    """The frames of a log as candump writes it."""
    frames = []
    for line in text.splitlines():
        found = _LOGGED.fullmatch(line)
        assert found is not None, line
        at, _, can_id, fd, data = found.groups()
        frames.append(Logged(float(at), int(can_id, 16), bytes.fromhex(data), fd is not None))
    return frames


@contextmanager
def simulated(part: str, *options: str | Path) -> Iterator[Running]:
    """`ess-can sim plant`, `bms` or `pcs` on vcan0, ready.  If still alive in the end, it has to end well on Ctrl-C."""
    with running(*ESS_CAN, "sim", part, *BUS, *options) as process:
        process.wait_for(_READY)
        yield process
        if process.alive:
            assert process.stop() == 0, process


@contextmanager
def recorded(folder: Path) -> Iterator[Path]:
    """`candump -l` on vcan0 while this lasts; afterwards its log is at the path given."""
    log = folder / "candump.log"
    with running("candump", "-l", "-d", "-r", "4000000", CHANNEL, cwd=folder) as candump:
        candump.wait_for("Enabling Logfile")  # said when it listens
        yield log
        candump.stop()
    (written,) = folder.glob("candump-*.log")
    written.rename(log)


def link(action: str) -> None:
    """Take vcan0 `up` or `down`."""
    run("ip", "link", "set", CHANNEL, action)


def upgrade_command(file: Path, *options: str | Path) -> Sequence[str | Path]:
    """An upgrade of the station as a command that prints its progress."""
    return (*ESS_CAN, "upgrade", file, *BUS, "--isotp", "user", "--racks", "1", "--bench", *options)
