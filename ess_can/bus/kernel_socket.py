"""The Linux kernel's CAN_ISOTP socket (linux/can/isotp.h): whether there is one, and opening it with our parameters."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ess_can.bus.adapter_help import how_to_bring_up
from ess_can.errors import InterfaceDown, InterfaceUnavailable
from ess_can.isotp import IsoTpAddress, IsoTpParams

# linux/can/isotp.h
_SOL_CAN_ISOTP = 106
_CAN_ISOTP_OPTS = 1
_CAN_ISOTP_RECV_FC = 2
_CAN_ISOTP_LL_OPTS = 5
_OPTIONS = struct.Struct("=IIBBBB")  # flags, frame_txtime in ns, ext_address, txpad, rxpad, rx_ext_address
_FC_OPTIONS = struct.Struct("=BBB")  # block size, STmin, wftmax
_LL_OPTIONS = struct.Struct("=BBB")  # mtu, tx_dl, tx_flags
_TX_PADDING = 0x0004
_CAN_MTU, _CANFD_MTU = 16, 72
_CANFD_BRS = 0x01
_SHORTEST_GAP_NS = 1  # beside STmin; 0 would mean the kernel's default of 50 us

_OLDEST_KERNEL = (5, 18)
_PDU_LIMIT_FILE = Path("/sys/module/can_isotp/parameters/max_pdu_size")
_PDU_LIMIT = 4095  # every kernel carries that much; those without the file do not say how much more


class KernelSocket(Protocol):
    """What is used of a bound, non-blocking CAN_ISOTP socket."""

    def fileno(self) -> int:
        """For the loop's selector."""

    def send(self, data: bytes, /) -> int:
        """Give a message to the kernel."""

    def recv(self, size: int, /) -> bytes:
        """The next message, cut to `size` bytes."""

    def getsockopt(self, level: int, option: int, /) -> int:
        """SO_ERROR."""

    def close(self) -> None:
        """Close it."""


def open_kernel_socket(
    channel: str,
    address: IsoTpAddress,
    params: IsoTpParams,
    make: Callable[[int, int, int], socket.socket] = socket.socket,
) -> KernelSocket:
    """A CAN_ISOTP socket on an interface such as ``can0``.

    Raises InterfaceDown for an interface that is down, InterfaceUnavailable for everything else.
    """
    try:
        opened = make(socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP)
    except (AttributeError, OSError) as failure:  # AttributeError: no Linux
        raise _unavailable(channel, failure) from failure
    try:
        opened.setblocking(False)
        padding = params.padding
        flags, fill = (0, 0) if padding is None else (_TX_PADDING, padding)
        opened.setsockopt(_SOL_CAN_ISOTP, _CAN_ISOTP_OPTS, _OPTIONS.pack(flags, _SHORTEST_GAP_NS, 0, fill, 0, 0))
        flow_control = _FC_OPTIONS.pack(params.block_size, params.st_min, 0)
        opened.setsockopt(_SOL_CAN_ISOTP, _CAN_ISOTP_RECV_FC, flow_control)
        if params.fd:
            link_layer = _LL_OPTIONS.pack(_CANFD_MTU, params.tx_dl, _CANFD_BRS if params.brs else 0)
        else:
            link_layer = _LL_OPTIONS.pack(_CAN_MTU, params.tx_dl, 0)
        opened.setsockopt(_SOL_CAN_ISOTP, _CAN_ISOTP_LL_OPTS, link_layer)
        opened.bind((channel, address.rx_id, address.tx_id))
        number = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number == errno.ENETDOWN:  # reported, although it is bound
            raise InterfaceDown(f"{channel} is down", why=error_text(number), remedy=how_to_bring_up(channel))
    except OSError as failure:
        opened.close()
        raise _unavailable(channel, failure) from failure
    except InterfaceDown:
        opened.close()
        raise
    return opened


def _unavailable(channel: str, failure: Exception) -> InterfaceUnavailable:
    number = failure.errno if isinstance(failure, OSError) else None
    if number == errno.ENODEV:
        remedy = "`ip -brief link show` lists what exists."
    elif number == errno.EINVAL:
        remedy = f"CAN FD needs an interface that carries it: `ip link set {channel} type can fd on` (vcan: mtu 72)."
    else:
        remedy = "`modprobe can-isotp`, or --isotp user."
    why = f"{type(failure).__name__}: {failure}"
    return InterfaceUnavailable(f"the kernel's ISO-TP cannot be used on {channel}", why=why, remedy=remedy)


def pdu_limit() -> int:
    """The longest message that the kernel surely carries, in bytes; never below 4095."""
    try:
        return max(_PDU_LIMIT, int(_PDU_LIMIT_FILE.read_text("ascii")))
    except (OSError, ValueError):
        return _PDU_LIMIT


def error_text(number: int) -> str:
    """An error number with its name."""
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"


def how_to_get_kernel_isotp(interface: str | None, channel: str | None) -> str:
    """What to do about `why_no_kernel_isotp`."""
    if interface != "socketcan" or not channel:
        return "Name a SocketCAN interface, such as -i socketcan -c can0, or use --isotp user."
    if not hasattr(socket, "CAN_ISOTP") or not _kernel_is_young_enough():
        return "Use --isotp user, or a gateway with Linux 5.18 or later."
    try:
        _try_socket()
    except OSError:
        return "`modprobe can-isotp`, or --isotp user."
    return "`ip -brief link show` lists what exists."


def _kernel_is_young_enough() -> bool:
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= _OLDEST_KERNEL


def why_no_kernel_isotp(interface: str | None, channel: str | None) -> str:
    """Why the kernel's ISO-TP cannot be used on this interface, empty if it can; names as python-can knows them."""
    if interface != "socketcan" or not channel:
        return f"the interface is {interface or 'not named'}, not socketcan with a channel"
    if not hasattr(socket, "CAN_ISOTP"):
        return "this is no Linux"
    if not _kernel_is_young_enough():
        return f"Linux {os.uname().release} may fill the transmit queue; 5.18 and later wait for each frame"
    try:
        _try_socket()
        socket.if_nametoindex(channel)
    except OSError as failure:
        return f"{type(failure).__name__}: {failure}"
    return ""


def _try_socket() -> None:
    """Have the kernel load its module.  Raises OSError if there is none."""
    socket.socket(socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP).close()
