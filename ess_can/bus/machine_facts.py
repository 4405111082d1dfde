"""What this machine is, as far as CAN is concerned: Python, packages, kernel, disk.  It reads and judges nothing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ess_can.bus.kernel_socket import why_no_kernel_isotp

_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"), Path("/run/systemd/container"))


@dataclass(frozen=True, slots=True)
class Package:
    """A package that ess-can needs: what is installed (None if it is not), and what its metadata ask for."""

    name: str
    version: str | None
    wanted: str
    fits: bool


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """`crc_extension` tells whether crcmod computes in C; `no_can` and `no_isotp` why the kernel lacks CAN sockets and
    ISO-TP sockets on the interface asked for, empty if it has them.  `free_bytes` is the room in `folder`.
    """

    python: str
    system: str
    packages: tuple[Package, ...]
    crc_extension: bool
    crcmod_twice: bool
    no_can: str
    no_isotp: str
    in_container: bool
    folder: Path
    free_bytes: int


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A serial port.  `group` owns it, as far as that is known."""

    path: str
    exists: bool
    permitted: bool
    group: str | None


def read_machine(interface: str | None, channel: str | None, folder: Path) -> MachineFacts:
    """Look at this machine.  `folder` is where traces are going to be written."""
    installed = {name.lower() for name in metadata.packages_distributions().get("crcmod", ())}
    return MachineFacts(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        packages=read_packages(),
        crc_extension=_crc_extension(),
        crcmod_twice={"crcmod", "crcmod-plus"} <= installed,
        no_can=_why_no_can(),
        no_isotp=why_no_kernel_isotp(interface, channel),
        in_container=any(mark.exists() for mark in _CONTAINER_MARKS),
        folder=folder,
        free_bytes=shutil.disk_usage(folder).free,
    )


def read_packages() -> tuple[Package, ...]:
    """What ess-can's own metadata ask for, and what is there; nothing if ess-can runs without being installed."""
    from packaging.requirements import Requirement

    found = []
    try:
        wanted = [Requirement(text) for text in metadata.requires("ess-can") or ()]
    except metadata.PackageNotFoundError:
        return ()
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            found.append(Package(one.name, None, str(one.specifier), False))
            continue
        found.append(Package(one.name, version, str(one.specifier), one.specifier.contains(version, prereleases=True)))
    return tuple(found)


def read_serial_port(path: str) -> SerialPort:
    """A serial port, as python-can's slcan names it (the part behind @ is its baud rate)."""
    name = path.partition("@")[0]
    device = Path(name)
    group = None
    if device.exists() and sys.platform != "win32":
        try:
            group = device.group()
        except (KeyError, OSError):
            group = None
    return SerialPort(name, device.exists(), os.access(device, os.R_OK | os.W_OK), group)


def _why_no_can() -> str:
    family = getattr(socket, "AF_CAN", None)
    if family is None:
        return f"{platform.system()} has no CAN sockets"
    try:
        with socket.socket(family, socket.SOCK_RAW, socket.CAN_RAW):
            return ""
    except OSError as failure:
        return f"{type(failure).__name__}: {failure}"


def _crc_extension() -> bool:
    # The module's own flag: it falls back to Python in silence.
    importlib.import_module("crcmod.predefined")
    return bool(getattr(sys.modules.get("crcmod.crcmod"), "_usingExtension", False))
