from __future__ import annotations

import errno

import can
import pytest

from ess_can.bus.adapter_help import how_to_bring_up, how_to_carry_fd, how_to_list, remedy_for


@pytest.mark.parametrize(
    ("interface", "hint"),
    [
        (None, "detect_available_configs()"),
        ("socketcan", "ip -brief link show type can"),
        ("pcan", "detect_available_configs('pcan')"),
        ("nonsense", "socketcan, "),
    ],
)
def test_there_is_always_a_way_on(interface: str | None, hint: str) -> None:
    assert hint in how_to_list(interface)


def wrapped(failure: Exception, number: int) -> Exception:
    failure.__cause__ = OSError(number, "as the system said it")
    return failure


@pytest.mark.parametrize(
    ("failure", "interface", "channel", "hints"),
    [
        (OSError(errno.EAFNOSUPPORT, "x"), "socketcan", "can0", ("modprobe", "udp_multicast")),
        (OSError(errno.EAFNOSUPPORT, "x"), None, None, ("modprobe", "udp_multicast")),
        (OSError(errno.ENODEV, "x"), "socketcan", "can7", ("ip -brief link", "ip link set can7 up")),
        (OSError(errno.ENODEV, "x"), "socketcan", "vcan3", ("ip link add dev vcan3 type vcan",)),
        (OSError(errno.EPERM, "x"), "socketcan", "can0", ("seccomp", "RestrictAddressFamilies")),
        (wrapped(can.CanInitializationError("x"), errno.EACCES), "slcan", "/dev/ttyACM0", ("/dev/ttyACM0", "dialout")),
        (OSError(errno.EACCES, "x"), "gs_usb", 0, ("udev",)),
        (can.CanInterfaceNotImplementedError("The serial module is not installed"), "slcan", "x", ("[serial]",)),
        (OSError("pcanbasic library not found."), "pcan", "PCAN_USBBUS1", ("PCAN-Basic", "socketcan")),
        (NameError("canGetNumberOfChannels"), "kvaser", 0, ("CANlib",)),
        (can.CanInterfaceNotImplementedError("Unknown"), "nonsense", "x", ("socketcan, ",)),
        (TypeError("missing 2 required positional arguments: 'host' and 'port'"), "socketcand", "x", ("--bus-kwargs",)),
        (can.CanInitializationError("x"), "slcan", "/dev/no", ("list_ports",)),
    ],
)
def test_the_remedy_fits_the_cause(
    failure: Exception, interface: str | None, channel: str | int | None, hints: tuple[str, ...]
) -> None:
    remedy = remedy_for(failure, interface, channel)
    for hint in hints:
        assert hint in remedy


def test_bringing_up_a_virtual_interface_needs_no_bit_rate() -> None:
    assert "bitrate" not in how_to_bring_up("vcan0")
    assert "bitrate" in how_to_bring_up("can0")
    assert "mtu 72" in how_to_carry_fd("vcan0")
    assert "dbitrate" in how_to_carry_fd("can0")
