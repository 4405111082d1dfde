"""The doctor's judgement of the machine, and of what names the bus."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from ess_can.bus.interfaces import NamedBus
from ess_can.bus.machine_facts import MachineFacts
from ess_can.errors import DbcMismatch, EssCanError, InterfaceUnavailable, UsageError
from ess_can.gateway.doctor import Finding, Group, not_applicable, ok, problem, warning
from ess_can.signals.dbc import StationCodec

ROOM_BYTES = 200_000_000
"""Some hours of trace of a full bus at 500 kbit/s, and the evidence of an upgrade many times over."""

_OLDEST_DATE = date(2025, 1, 1)


def judge_machine(facts: MachineFacts, interface: str | None, today: date) -> Iterator[Finding]:
    """Python, packages, kernel, clock and disk.  `interface` is python-can's name of what is to be used."""
    yield ok(Group.MACHINE, "python", f"{facts.python} on {facts.system}")
    yield from _packages(facts)
    yield _crc(facts)
    yield _can_sockets(facts, interface)
    if facts.no_isotp:
        yield not_applicable(Group.MACHINE, "kernel ISO-TP", f"ISO-TP runs in user space: {facts.no_isotp}")
    else:
        yield ok(Group.MACHINE, "kernel ISO-TP", "CAN_ISOTP is there")
    if today < _OLDEST_DATE:
        yield warning(
            Group.MACHINE,
            "clock",
            f"today is {today.isoformat()}",
            "Set the clock: whether an upgrade file has expired is judged by the date.",
            "timedatectl set-ntp true",
        )
    else:
        yield ok(Group.MACHINE, "clock", today.isoformat())
    room = f"{facts.free_bytes / 1e9:.1f} GB free in {facts.folder}"
    if facts.free_bytes < ROOM_BYTES:
        yield warning(Group.MACHINE, "disk", room, "Make room before you write traces with --trace.")
    else:
        yield ok(Group.MACHINE, "disk", room)


def _packages(facts: MachineFacts) -> Iterator[Finding]:
    fits = [f"{package.name} {package.version}" for package in facts.packages if package.fits]
    for package in facts.packages:
        if package.fits:
            continue
        name = f"{package.name}{package.wanted}"
        found = f"{package.version} is installed" if package.version else "it is not installed"
        error = InterfaceUnavailable if package.name == "python-can" else UsageError
        yield problem(
            Group.MACHINE,
            package.name,
            error(f"{name} is needed", why=found, remedy="Install what ess-can asks for."),
            f"pip install '{name}'",
        )
    if fits:
        yield ok(Group.MACHINE, "packages", ", ".join(fits))
    elif not facts.packages:
        yield not_applicable(
            Group.MACHINE, "packages", "ess-can is not installed as a package: nothing to compare with"
        )


def _crc(facts: MachineFacts) -> Finding:
    if facts.crcmod_twice:
        return warning(
            Group.MACHINE,
            "crcmod",
            "crcmod and crcmod-plus are both installed, and overwrite each other's files",
            "Keep one of them.",
            "pip uninstall -y crcmod crcmod-plus && pip install crcmod",
        )
    if not facts.crc_extension:
        return warning(
            Group.MACHINE,
            "crcmod",
            "computes in Python: its C extension is missing, so checksums are some 100 times slower",
            "Install a C compiler and Python's headers, then build crcmod again; or use crcmod-plus in its place.",
            "pip install --force-reinstall --no-cache-dir --no-binary crcmod crcmod",
        )
    return ok(Group.MACHINE, "crcmod", "its C extension is in use")


def _can_sockets(facts: MachineFacts, interface: str | None) -> Finding:
    if not facts.no_can:
        return ok(Group.MACHINE, "CAN sockets", "the kernel has AF_CAN")
    if interface != "socketcan":
        return not_applicable(Group.MACHINE, "CAN sockets", f"only -i socketcan needs them: {facts.no_can}")
    container = " A container uses the host's kernel: load the modules there." if facts.in_container else ""
    return problem(
        Group.MACHINE,
        "CAN sockets",
        InterfaceUnavailable(
            "this kernel has no CAN sockets (AF_CAN)",
            why=facts.no_can,
            remedy=f"Load the kernel's modules as root, or use -i udp_multicast, which needs none.{container}",
        ),
        "modprobe can-raw vcan",
    )


def judge_dbc(loaded: StationCodec | EssCanError) -> Finding:
    """Whether the DBC fits the code."""
    if isinstance(loaded, StationCodec):
        version = loaded.version or "without a version"
        return ok(Group.MACHINE, "DBC", f"{version}, fingerprint {loaded.fingerprint:#06x}, fits this ess-can")
    error = (
        loaded if isinstance(loaded, DbcMismatch) else DbcMismatch(loaded.what, why=loaded.why, remedy=loaded.remedy)
    )
    return problem(Group.MACHINE, "DBC", error)


def judge_name(named: NamedBus) -> Finding:
    """What says which bus is meant."""
    if named.broken:
        return problem(
            Group.INTERFACE,
            "named",
            InterfaceUnavailable(
                "python-can's configuration cannot be read",
                why=named.broken,
                remedy="Correct ~/can.conf, /etc/can.conf, ~/.can, ~/.canrc or CAN_CONFIG.",
            ),
        )
    if named.interface is None:
        return problem(
            Group.INTERFACE,
            "named",
            InterfaceUnavailable(
                "nothing says which interface to use",
                why="no -i, no CAN_INTERFACE, no configuration file of python-can",
                remedy="Name one, for example -i socketcan -c can0; --list shows what exists.",
            ),
            "ess-can doctor --list",
        )
    parts = (("", named.interface), ("channel ", named.channel), ("bit rate ", named.bitrate))
    texts = [(f"{word}{setting.value}", setting.source) for word, setting in parts if setting is not None]
    sources = list(dict.fromkeys(source for _, source in texts))
    seen = "; ".join(f"{', '.join(text for text, of in texts if of == source)} by {source}" for source in sources)
    return ok(Group.INTERFACE, "named", seen)
