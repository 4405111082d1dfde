"""The doctor's judgement of the interface: the kernel's CAN link, and what is peculiar to other adapters."""

from __future__ import annotations

from collections.abc import Iterator

from ess_can.bus.link_facts import LinkFacts
from ess_can.bus.machine_facts import SerialPort
from ess_can.errors import BusOff, EssCanError, InterfaceDown, InterfaceUnavailable
from ess_can.gateway.doctor import Finding, Group, not_applicable, ok, problem, warning

_INTERFACE = Group.INTERFACE
_SHORT_QUEUE = 64
_GOOD_QUEUE = 128
_FD_MTU = 72
_RESTART_MS = 100
_SAFE_QDISCS = ("pfifo_fast", "pfifo", "noqueue", "noop")
"""They keep the order of frames; CAN devices get pfifo_fast, virtual ones noqueue, what is down noop."""


def judge_link(
    link: LinkFacts | None, channel: str, *, bitrate: int, fd: bool, in_container: bool
) -> Iterator[Finding]:
    """A SocketCAN interface: `bitrate` in bit/s is what the bus is said to have, `fd` whether CAN FD is asked for."""
    if link is None or not link.is_can:
        yield _missing(link, channel, bitrate, in_container)
        return
    driver = f", driver {link.driver}" if link.driver else ""
    yield ok(_INTERFACE, "link", f"{channel} is of kind {link.kind or 'unknown'}{driver}")
    yield _state(link, bitrate)
    yield _bitrate(link, bitrate)
    if fd and link.mtu < _FD_MTU:
        how = "mtu 72" if link.virtual else f"type can bitrate {bitrate} dbitrate 2000000 fd on"
        yield problem(
            _INTERFACE,
            "CAN FD",
            InterfaceUnavailable(
                f"{channel} carries no CAN FD frames", why=f"its MTU is {link.mtu}", remedy="Set it up for CAN FD."
            ),
            f"ip link set {channel} down && ip link set {channel} up {how}",
        )
    yield _restart(link)
    yield _queue(link)
    yield _counters(link)


def _missing(link: LinkFacts | None, channel: str, bitrate: int, in_container: bool) -> Finding:
    if link is not None:
        what, remedy = f"{channel} is no CAN interface", "Name a CAN interface; --list shows what exists."
        return problem(_INTERFACE, "link", InterfaceUnavailable(what, remedy=remedy), "ess-can doctor --list")
    if not channel:
        what, remedy = "no channel is named", "Name one with -c; --list shows what exists."
        return problem(_INTERFACE, "link", InterfaceUnavailable(what, remedy=remedy), "ess-can doctor --list")
    here = (
        " This is a container, with network interfaces of its own: run it with --network host, or move the interface "
        f"into it with `ip link set {channel} netns PID`."
        if in_container
        else ""
    )
    if channel.startswith("vcan"):
        remedy, command = "Make it.", f"ip link add dev {channel} type vcan && ip link set {channel} mtu 72 up"
    else:
        remedy = "Plug the adapter in and look whether its driver loads (`dmesg | tail`); --list shows what exists."
        command = "ess-can doctor --list"
    error = InterfaceUnavailable(f"there is no interface {channel}", remedy=remedy + here)
    return problem(_INTERFACE, "link", error, command)


def _bring_up(link: LinkFacts, bitrate: int) -> str:
    if link.virtual:
        return f"ip link set {link.name} up"
    if link.kind != "can":  # slcan: its bit rate belongs to slcand
        return f"ip link set {link.name} up txqueuelen {_GOOD_QUEUE}"
    return f"ip link set {link.name} up txqueuelen {_GOOD_QUEUE} type can bitrate {bitrate} restart-ms {_RESTART_MS}"


def _state(link: LinkFacts, bitrate: int) -> Finding:
    if not link.up:
        remedy = "Bring it up."
        if link.kind == "can" and link.bitrate is None:
            remedy = "Bring it up; its bit rate has to be set with it, to that of the plant."
        error = InterfaceDown(f"{link.name} is down", remedy=remedy)
        return problem(_INTERFACE, "state", error, _bring_up(link, bitrate))
    counts = link.counts
    counters = "" if counts.tec is None else f" (TEC {counts.tec}, REC {counts.rec})"
    if link.state == "BUS-OFF":
        off = BusOff(
            f"{link.name} is bus-off{counters}",
            why="too many of its transmissions failed",
            remedy="Check bit rate, wiring and termination, then restart the controller.",
        )
        return problem(_INTERFACE, "state", off, f"ip link set {link.name} down && {_bring_up(link, bitrate)}")
    if link.state in ("ERROR-PASSIVE", "ERROR-WARNING"):
        return warning(
            _INTERFACE,
            "state",
            f"up, {link.state}{counters}: frames fail",
            "Check the bit rate first, then termination, wiring, and that another node is powered.",
        )
    return ok(_INTERFACE, "state", f"up{f', {link.state}' if link.state else ''}{counters}")


def _bitrate(link: LinkFacts, bitrate: int) -> Finding:
    if link.virtual:
        return not_applicable(_INTERFACE, "bit rate", "a virtual link has none")
    if link.bitrate is None:
        told = (
            "its serial adapter was told by slcand" if link.kind == "slcan" else "it does not say, or `ip` is missing"
        )
        return not_applicable(_INTERFACE, "bit rate", told)
    sample = "" if link.sample_point is None else f", sample point {100 * link.sample_point:.1f} %"
    if link.bitrate != bitrate:
        return warning(
            _INTERFACE,
            "bit rate",
            f"{link.bitrate} bit/s{sample}, not {bitrate}",
            "Set the plant's bit rate, or say with -b which it is; -i socketcan does not set it.",
            f"ip link set {link.name} down && {_bring_up(link, bitrate)}",
        )
    return ok(_INTERFACE, "bit rate", f"{link.bitrate} bit/s{sample}")


def _restart(link: LinkFacts) -> Finding:
    if link.kind != "can" or link.restart_ms is None:
        return not_applicable(_INTERFACE, "restart", "this kind of link has no bus-off, or does not say")
    if link.restart_ms == 0:
        return warning(
            _INTERFACE,
            "restart",
            "restart-ms is 0: after bus-off the controller stays off until somebody restarts it",
            "Let it restart by itself; the interface has to be down for that.",
            f"ip link set {link.name} down && ip link set {link.name} up type can restart-ms {_RESTART_MS}",
        )
    return ok(_INTERFACE, "restart", f"restart-ms {link.restart_ms}")


def _queue(link: LinkFacts) -> Finding:
    discipline = f", {link.qdisc}" if link.qdisc else ""
    if link.qdisc and link.qdisc not in _SAFE_QDISCS:
        return warning(
            _INTERFACE,
            "queue",
            f"queueing discipline {link.qdisc} may drop frames or change their order",
            "Use the kernel's default for CAN: it keeps the order, and lets our safety frames pass the stream.",
            f"tc qdisc replace dev {link.name} root pfifo_fast",
        )
    if not link.virtual and link.txqueuelen < _SHORT_QUEUE:
        return warning(
            _INTERFACE,
            "queue",
            f"txqueuelen {link.txqueuelen}{discipline}: others' frames fill it, and ENOBUFS is back-pressure, no error",
            "ess-can waits and sends again; other programs may lose frames. A longer queue spares both.",
            f"ip link set {link.name} txqueuelen {_GOOD_QUEUE}",
        )
    return ok(_INTERFACE, "queue", f"txqueuelen {link.txqueuelen}{discipline}")


def _counters(link: LinkFacts) -> Finding:
    counts = link.counts
    bad = [
        f"{count} {word}"
        for count, word in (
            (counts.tx_dropped, "frames dropped in sending"),
            (counts.tx_errors, "transmit errors"),
            (counts.rx_dropped, "frames dropped in receiving"),
            (counts.rx_errors, "receive errors"),
            (counts.bus_errors, "bus errors"),
            (counts.error_passive, "times error passive"),
            (counts.bus_off, "times bus-off"),
            (counts.restarts, "restarts"),
        )
        if count
    ]
    seen = f"{counts.tx_frames} frames sent, {counts.rx_frames} received"
    if bad:
        return warning(
            _INTERFACE,
            "counters",
            f"{seen}, {', '.join(bad)} since the interface exists",
            "Look whether they still grow: run the doctor again.",
        )
    return ok(_INTERFACE, "counters", f"{seen}, no errors")


def judge_adapter(interface: str, serial: SerialPort | None, *, confirms: bool = True) -> Iterator[Finding]:
    """What is peculiar to an adapter that is not SocketCAN; `confirms` says whether it tells what it has sent."""
    if interface == "slcan":
        port = serial.path if serial else "PORT"
        if serial is not None:
            yield _serial(serial)
        yield warning(
            _INTERFACE,
            "adapter",
            "python-can reads slcan one byte a call: it is slow, and at 115200 baud the line carries 500 frames/s",
            "On Linux let the kernel do it, then use -i socketcan -c can0.",
            f"slcand -o -c -s6 {port} can0 && ip link set can0 up txqueuelen {_GOOD_QUEUE}",
        )
    elif interface == "gs_usb":
        yield warning(
            _INTERFACE,
            "adapter",
            "gs_usb in user space stops after failed transmissions, and carries classic frames only",
            "On Linux use the kernel's driver: -i socketcan -c can0.",
            f"ip link set can0 up txqueuelen {_GOOD_QUEUE} type can bitrate 500000 restart-ms {_RESTART_MS}",
        )
    elif interface == "udp_multicast":
        yield warning(
            _INTERFACE,
            "adapter",
            "udp_multicast loses frames under load, and buses that share a port hear each other",
            "Upgrades still succeed, by repeating. Give each bus a port of its own: --bus-kwargs port=43114.",
        )
    elif interface == "virtual":
        yield warning(
            _INTERFACE, "adapter", "virtual exists inside one process only", "Use -i udp_multicast between processes."
        )
    else:
        yield not_applicable(_INTERFACE, "adapter", f"{interface}: what its driver says is not known")
    if not confirms:
        yield warning(
            _INTERFACE,
            "confirmation",
            f"{interface} confirms no frame: frames of firmware are paced by their time on the wire, and a command may "
            "wait behind two of them and 2 ms, plus what the adapter itself buffers",
            "Prefer an adapter that confirms what it sent, on Linux one with a kernel driver: -i socketcan.",
        )


def _serial(port: SerialPort) -> Finding:
    if not port.exists:
        error = InterfaceUnavailable(
            f"there is no serial port {port.path}", remedy="Plug the adapter in; --list shows what exists."
        )
        return problem(_INTERFACE, "serial port", error, "ess-can doctor --list")
    if not port.permitted:
        group = port.group or "dialout"
        error = InterfaceUnavailable(
            f"{port.path} may not be opened by this user",
            why=f"it belongs to group {group}",
            remedy="Join the group, and log in again.",
        )
        return problem(_INTERFACE, "serial port", error, f'sudo usermod -aG {group} "$USER"')
    return ok(_INTERFACE, "serial port", f"{port.path} may be opened")


def judge_opening(failure: EssCanError | None, bring_up: str = "") -> Finding:
    """Whether the interface could be opened; `bring_up` is what to type if it is down."""
    if failure is None:
        return ok(_INTERFACE, "opening", "it opens")
    return problem(_INTERFACE, "opening", failure, bring_up if isinstance(failure, InterfaceDown) else "")
