"""A simulated plant in a process of its own, on a multicast bus that nobody else uses."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

GROUP = "239.74.163.2"
_LONGEST_S = "1800"


def free_port() -> int:
    """A UDP port that nobody uses: a bus of one's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def own_bus(*flags: str) -> tuple[str, ...]:
    """The options that name such a bus."""
    return ("-i", "udp_multicast", "-c", GROUP, *flags, "--bus-kwargs", f"port={free_port()}")


@contextmanager
def plant(bus: tuple[str, ...], *options: str) -> Iterator[None]:
    """`ess-can sim plant` on this bus while the block lasts."""
    command = (sys.executable, "-m", "ess_can", "sim", "plant", *bus, "--duration", _LONGEST_S, *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr or ():
                if line == "The plant runs.\n":
                    break
            yield
        finally:
            process.terminate()
