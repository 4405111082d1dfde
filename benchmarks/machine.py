"""The machine and the versions that a run's figures belong to."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ess_can import __version__

_PACKAGES = ("python-can", "can-isotp", "udsoncan", "cantools", "crcmod", "cryptography", "matplotlib")
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what a run was made.  `load` is the load average when it began; `commit` None if unknown."""

    system: str
    processor: str
    cores: int
    load: float
    python: str
    ess_can: str
    packages: dict[str, str]
    commit: str | None


def this_machine() -> Machine:
    """Look around."""
    return Machine(
        platform.platform(),
        _processor(),
        os.cpu_count() or 1,
        round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        platform.python_version(),
        __version__,
        {name: _version(name) for name in _PACKAGES},
        _commit(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
