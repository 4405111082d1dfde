"""The guest's interfaces, and `ip link` on them."""

from __future__ import annotations

import subprocess

CONTROLLERS = ("can0", "can1")
VCAN = "vcan0"


def link(name: str, *change: str) -> None:
    """``ip link set NAME CHANGE...``."""
    subprocess.run(["ip", "link", "set", name, *change], check=True, timeout=60)


def details(name: str) -> str:
    """``ip -details -statistics link show NAME``."""
    command = ["ip", "-details", "-statistics", "link", "show", name]
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
