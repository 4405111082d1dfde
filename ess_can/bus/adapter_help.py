"""What to do when an interface cannot be opened, by the cause."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from os.path import expanduser
from pathlib import Path

_MULTICAST = "-i udp_multicast -c 239.74.163.2"

_HOW_TO_LIST: Mapping[str, str] = {
    "socketcan": "`ip -brief link show type can` lists what exists; bring it up with "
    "`ip link set CHANNEL up type can bitrate 500000`.",
    "slcan": "`python -m serial.tools.list_ports` lists the serial ports.",
    "gs_usb": "`lsusb` lists what is plugged in; on Linux prefer the kernel driver, that is -i socketcan -c can0.",
    "udp_multicast": f"Name a multicast address, for example {_MULTICAST}, and for each bus a port of its own: "
    "--bus-kwargs port=43114.",
    "virtual": "This interface exists inside one process only.",
}
_TO_INSTALL: Mapping[str, str] = {
    "canalystii": '`pip install "python-can[canalystii]"`',
    "cantact": '`pip install "python-can[cantact]"`',
    "etas": "ETAS BOA (Windows only)",
    "gs_usb": '`pip install "python-can[gs-usb]"`; on Linux prefer the kernel driver, that is -i socketcan -c can0',
    "ixxat": "the VCI driver of HMS (Windows only)",
    "kvaser": "CANlib of Kvaser; on Linux prefer the kernel driver, that is -i socketcan -c can0",
    "neovi": '`pip install "python-can[neovi]"`',
    "nixnet": '`pip install "python-can[nixnet]"`, and NI-XNET (Windows only)',
    "pcan": "PCAN-Basic of PEAK-System; on Linux prefer the kernel driver, that is -i socketcan -c can0",
    "robotell": '`pip install "python-can[serial]"`',
    "seeedstudio": '`pip install "python-can[seeedstudio]"`',
    "serial": '`pip install "python-can[serial]"`',
    "slcan": '`pip install "python-can[serial]"`',
    "udp_multicast": '`pip install "python-can[multicast]"`',
    "vector": "the XL Driver Library of Vector (Windows only)",
}
_SERIAL = frozenset({"slcan", "serial", "robotell", "seeedstudio"})
_NOT_PERMITTED = frozenset({errno.EPERM, errno.EACCES})


def how_to_list(interface: str | None) -> str:
    """How to find out what can be opened, given python-can's name of the interface, or None if none was named."""
    if interface is None:
        return (
            "Name an interface and a channel, for example -i socketcan -c can0, or configure python-can; "
            '`python -c "import can; print(can.detect_available_configs())"` lists what is found.'
        )
    if interface in _HOW_TO_LIST:
        return _HOW_TO_LIST[interface]
    from can import VALID_INTERFACES

    if interface not in VALID_INTERFACES:
        return f"Name an interface that python-can knows: {', '.join(sorted(VALID_INTERFACES))}."
    command = f"python -c \"import can; print(can.detect_available_configs('{interface}'))\""
    return f"Install and plug in what the interface needs; `{command}` lists what is found."


def how_to_bring_up(channel: str) -> str:
    """How to bring a network interface up that is down."""
    if is_virtual(channel):
        return f"Bring it up: `ip link set {channel} up`."
    return f"Bring it up: `ip link set {channel} up type can bitrate 500000 restart-ms 100`, with the bus's bit rate."


def how_to_carry_fd(channel: str) -> str:
    """How to make a network interface carry CAN FD."""
    how = "mtu 72" if is_virtual(channel) else "type can bitrate 500000 dbitrate 2000000 fd on"
    return f"`ip link set {channel} down`, then `ip link set {channel} up {how}`; or work without --fd."


def is_virtual(channel: str) -> bool:
    """Whether a network interface has no bus behind it, by the usual names."""
    return channel.startswith(("vcan", "vxcan"))


def remedy_for(failure: BaseException, interface: str | None, channel: str | int | None) -> str:
    """What to do about an opening that failed, given what python-can raised."""
    broken = _broken_configuration()
    if broken:
        return broken
    numbers = set(_error_numbers(failure))
    if errno.EAFNOSUPPORT in numbers and interface in ("socketcan", None):
        return (
            "This kernel has no CAN: try `modprobe -a can can_raw vcan` as root; where that fails (many containers and "
            f"cloud machines), use {_MULTICAST}."
        )
    if errno.ENODEV in numbers and interface == "socketcan":
        return _how_to_make(str(channel))
    if numbers & _NOT_PERMITTED:
        return _how_to_be_permitted(interface, channel)
    if interface is not None and interface in _TO_INSTALL and _is_not_installed(failure):
        return f"Install what it needs: {_TO_INSTALL[interface]}."
    if isinstance(failure, TypeError):
        return "Give the interface the settings that it wants by --bus-kwargs KEY=VALUE."
    return how_to_list(interface)


def _broken_configuration() -> str:
    """What to do about python-can's own configuration if it cannot be read, which python-can does first of all."""
    from can.util import CONFIG_FILES, load_environment_config, load_file_config

    try:
        readable = isinstance(load_environment_config(), dict)
    except Exception:  # whatever json raises
        readable = False
    if not readable:
        return "Correct or unset the environment variable CAN_CONFIG: python-can wants a JSON object there."
    try:
        load_file_config()
    except Exception:  # configparser's, or UnicodeDecodeError
        files = [str(path) for path in map(Path, map(expanduser, CONFIG_FILES)) if path.is_file()]
        return f"Correct or remove python-can's configuration file {' or '.join(files)}: it cannot be read."
    return ""


def _how_to_make(channel: str) -> str:
    if is_virtual(channel):
        return f"Make it: `ip link add dev {channel} type vcan`, then `ip link set {channel} mtu 72 up`."
    return f"No CAN interface has this name: {_HOW_TO_LIST['socketcan'].replace('CHANNEL', channel)}"


def _how_to_be_permitted(interface: str | None, channel: str | int | None) -> str:
    if interface in _SERIAL:
        return f"You may not open {channel}: `sudo usermod -aG dialout $USER`, then log in again."
    if interface == "socketcan":
        return (
            "CAN sockets need no privilege, so something forbids them: a container's seccomp profile, or systemd's "
            "RestrictAddressFamilies= without AF_CAN."
        )
    return "You may not open the device: add a udev rule that gives your group access to it, and replug it."


def _is_not_installed(failure: BaseException) -> bool:
    # python-can's name for it, compared as text because python-can is not imported here; NameError is kvaser's way,
    # an OSError without number pcan's
    return (
        isinstance(failure, ImportError | NameError)
        or type(failure).__name__ == "CanInterfaceNotImplementedError"
        or (isinstance(failure, OSError) and failure.errno is None)
    )


def _error_numbers(failure: BaseException | None) -> list[int]:
    """The error numbers of an exception and of what caused it: backends wrap what the system told them."""
    numbers = []
    while failure is not None:
        for number in (getattr(failure, "errno", None), getattr(failure, "error_code", None)):
            if isinstance(number, int):
                numbers.append(number)
        failure = failure.__cause__ or failure.__context__
    return numbers
