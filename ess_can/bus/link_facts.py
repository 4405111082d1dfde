"""What the kernel says about a network interface that carries CAN: read from `ip`, or from sysfs where there is none.

Reading is here, judging is in `ess_can.gateway.doctor`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SYSFS = Path("/sys/class/net")
_ARPHRD_CAN = 280
_IFF_UP = 0x1
_PATH = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/bin", "/bin"))  # sbin is not on everybody's PATH
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Counters since the interface exists.  `tec` and `rec` are the controller's present error counters."""

    tx_frames: int = 0
    rx_frames: int = 0
    tx_dropped: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    rx_errors: int = 0
    tec: int | None = None
    rec: int | None = None
    bus_errors: int = 0
    error_passive: int = 0
    bus_off: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One CAN network interface.  None means that it could not be found out.

    `kind` is can, vcan, vxcan or slcan, as `ip` names it.  `state` is the controller's (ERROR-ACTIVE,
    ERROR-WARNING, ERROR-PASSIVE, BUS-OFF, STOPPED).  Bit rates in bit/s.  `restart_ms` 0: bus-off is for ever.
    """

    name: str
    is_can: bool
    kind: str | None
    up: bool
    operstate: str
    mtu: int
    txqueuelen: int
    qdisc: str | None = None
    state: str | None = None
    bitrate: int | None = None
    data_bitrate: int | None = None
    sample_point: float | None = None
    restart_ms: int | None = None
    modes: tuple[str, ...] = ()
    driver: str | None = None
    counts: ErrorCounts = ErrorCounts()

    @property
    def virtual(self) -> bool:
        """Whether frames stay inside this machine."""
        return self.kind in ("vcan", "vxcan")


def read_link(name: str, *, sysfs: Path = _SYSFS) -> LinkFacts | None:
    """The interface's facts, None if there is no such interface or no way to look."""
    program = shutil.which("ip") or shutil.which("ip", path=_PATH)
    driver = _driver(sysfs / name)
    if program is not None:
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
                [program, "-details", "-statistics", "-json", "link", "show", "dev", name],
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return read_sysfs(name, sysfs)
        found = parse_ip_links(done.stdout, {name: driver})
        if found:
            return found[0]
    return read_sysfs(name, sysfs)


def can_links(sysfs: Path = _SYSFS) -> tuple[str, ...]:
    """Names of this machine's CAN network interfaces."""
    try:
        return tuple(path.name for path in sorted(sysfs.iterdir()) if _number(path / "type") == _ARPHRD_CAN)
    except OSError:
        return ()


def parse_ip_links(text: str, drivers: dict[str, str | None] | None = None) -> tuple[LinkFacts, ...]:
    """What ``ip -details -statistics -json link show`` printed; nothing if it is not that."""
    try:
        links = json.loads(text or "[]")
    except ValueError:
        return ()
    if not isinstance(links, list):
        return ()
    return tuple(
        _from_ip(link, (drivers or {}).get(link["ifname"]))
        for link in links
        if isinstance(link, dict) and "ifname" in link
    )


def read_sysfs(name: str, sysfs: Path = _SYSFS) -> LinkFacts | None:
    """The part of the facts that sysfs has: nothing of bit rate and controller."""
    folder = sysfs / name
    kind = _number(folder / "type")
    if kind is None:
        return None
    is_can = kind == _ARPHRD_CAN
    device = (folder / "device").exists()
    guess = next((prefix for prefix in ("vxcan", "vcan", "slcan") if name.startswith(prefix)), None)
    return LinkFacts(
        name=name,
        is_can=is_can,
        kind="can" if is_can and device else guess if is_can else None,
        up=bool((_number(folder / "flags") or 0) & _IFF_UP),
        operstate=_text(folder / "operstate").upper(),
        mtu=_number(folder / "mtu") or 0,
        txqueuelen=_number(folder / "tx_queue_len") or 0,
        driver=_driver(folder),
        counts=ErrorCounts(
            tx_frames=_number(folder / "statistics/tx_packets") or 0,
            rx_frames=_number(folder / "statistics/rx_packets") or 0,
            tx_dropped=_number(folder / "statistics/tx_dropped") or 0,
            tx_errors=_number(folder / "statistics/tx_errors") or 0,
            rx_dropped=_number(folder / "statistics/rx_dropped") or 0,
            rx_errors=_number(folder / "statistics/rx_errors") or 0,
        ),
    )


def _from_ip(link: dict[str, Any], driver: str | None) -> LinkFacts:
    # Names are iproute2's, ip/ipaddress.c and ip/iplink_can.c.
    info = link.get("linkinfo", {})
    data, xstats = info.get("info_data", {}), info.get("info_xstats", {})
    tx, rx = (link.get("stats64", {}).get(way, {}) for way in ("tx", "rx"))
    errors = data.get("berr_counter", {})
    timing = data.get("bittiming", {})
    sample_point = timing.get("sample_point")
    return LinkFacts(
        name=link["ifname"],
        is_can=link.get("link_type") == "can",
        kind=_kind(info.get("info_kind"), data, driver),
        up="UP" in link.get("flags", ()),
        operstate=link.get("operstate", "UNKNOWN"),
        mtu=link.get("mtu", 0),
        txqueuelen=link.get("txqlen", 0),
        qdisc=link.get("qdisc"),
        state=data.get("state"),
        bitrate=timing.get("bitrate") or data.get("bittiming_bitrate") or None,  # 0 where slcand has set it
        data_bitrate=data.get("data_bittiming", {}).get("bitrate"),
        sample_point=None if sample_point is None else float(sample_point),  # a text in iproute2 6.1
        restart_ms=data.get("restart_ms"),
        modes=tuple(data.get("ctrlmode", ())),
        driver=driver,
        counts=ErrorCounts(
            tx_frames=tx.get("packets", 0),
            rx_frames=rx.get("packets", 0),
            tx_dropped=tx.get("dropped", 0),
            tx_errors=tx.get("errors", 0),
            rx_dropped=rx.get("dropped", 0),
            rx_errors=rx.get("errors", 0),
            tec=errors.get("tx"),
            rec=errors.get("rx"),
            bus_errors=xstats.get("bus_error", 0),
            error_passive=xstats.get("error_passive", 0),
            bus_off=xstats.get("bus_off", 0),
            restarts=xstats.get("restarts", 0),
        ),
    )


def _kind(kind: str | None, data: dict[str, Any], driver: str | None) -> str | None:
    # Since Linux 6.0 slcan is of kind can, too.  It has no device behind it, and a fixed list of bit rates.
    return "slcan" if kind == "can" and "bitrate_const" in data and driver is None else kind


def _driver(folder: Path) -> str | None:
    try:
        return (folder / "device/driver").resolve(strict=True).name
    except OSError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path), 0)
    except ValueError:
        return None
