"""Which interface python-can's configuration names, and which there are."""

from __future__ import annotations

import configparser
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ess_can.bus.link_facts import can_links, read_link

_ASKED = ("slcan", "gs_usb", "pcan", "kvaser", "vector", "ixxat", "systec", "neovi", "usb2can")
"""Backends that are asked what they see: each answers within milliseconds, also without its driver."""

_SERIAL_PORTS = ("ttyACM*", "ttyUSB*", "cu.usb*")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, and where it is from."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class NamedBus:
    """What names the bus; None for what nothing names.  `broken` tells of a configuration that cannot be read."""

    interface: Setting | None
    channel: Setting | None
    bitrate: Setting | None
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """An interface that exists: python-can's names for it, and what is known of it."""

    interface: str
    channel: str
    note: str


def named_bus(interface: str | None, channel: str | None, bitrate: int | None) -> NamedBus:
    """What the command line and, in python-can's own order, its configuration name."""
    given = {
        name: str(value)
        for name, value in (("interface", interface), ("channel", channel), ("bitrate", bitrate))
        if value is not None
    }
    settings = {name: Setting(value, "the command line") for name, value in given.items()}
    broken = ""
    try:
        for source, values in _configurations():
            for name, value in values.items():
                settings.setdefault("interface" if name == "bustype" else name, Setting(str(value), source))
    except (ValueError, AttributeError, configparser.Error) as error:
        broken = f"{type(error).__name__}: {error}"
    return NamedBus(settings.get("interface"), settings.get("channel"), settings.get("bitrate"), broken)


def _configurations() -> Iterator[tuple[str, dict[str, str]]]:
    import can
    import can.util

    yield "can.rc", {name: str(value) for name, value in can.rc.items()}
    yield "the environment (CAN_INTERFACE and the like)", can.util.load_environment_config()
    for name in reversed(can.util.CONFIG_FILES):  # of the files, the last one counts
        path = Path(name).expanduser()
        yield str(path), can.util.load_file_config(path)


def interfaces() -> tuple[Found, ...]:
    """The interfaces that this machine has, as far as that can be told within a moment."""
    import can

    found = [Found("socketcan", name, _link_note(name)) for name in can_links()]
    logger = logging.getLogger("can")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # backends without their driver complain, each in its own words
    try:
        detected = can.detect_available_configs(_ASKED)
    except Exception:  # a backend may raise whatever it likes
        detected = []
    finally:
        logger.setLevel(level)
    found += [Found(str(one["interface"]), str(one["channel"]), "") for one in detected]
    ports = sorted(str(path) for pattern in _SERIAL_PORTS for path in Path("/dev").glob(pattern))
    found += [Found("slcan", port, "a serial port; whether it speaks slcan is not known") for port in ports]
    found.append(Found("udp_multicast", "239.74.163.2", "no hardware: between processes and machines; loses frames"))
    return tuple(found)


def _link_note(name: str) -> str:
    link = read_link(name)
    if link is None:
        return ""
    rate = "" if link.bitrate is None else f", {link.bitrate / 1000:g} kbit/s"
    state = "" if link.state is None else f", {link.state}"
    return f"{link.kind or 'CAN'}, {'up' if link.up else 'down'}{state}{rate}"
