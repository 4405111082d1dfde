from __future__ import annotations

from pathlib import Path

import pytest

from ess_can.bus.link_facts import ErrorCounts, LinkFacts, can_links, parse_ip_links, read_link, read_sysfs
from tests.unit.bus.link_outputs import (
    CAN0_250,
    CAN0_BUS_OFF,
    CAN0_UNSET,
    LOOPBACK,
    SLCAN,
    VCAN_DOWN,
    VCAN_UP,
    changed,
)


def one(text: str) -> LinkFacts:
    (link,) = parse_ip_links(text)
    return link


def test_a_virtual_link() -> None:
    down, up = one(VCAN_DOWN), one(VCAN_UP)
    assert (down.name, down.is_can, down.kind, down.virtual, down.up) == ("vcan0", True, "vcan", True, False)
    assert (down.qdisc, down.state, down.bitrate, down.restart_ms) == ("noop", None, None, None)
    assert (up.up, up.operstate, up.mtu, up.txqueuelen) == (True, "UNKNOWN", 72, 1000)
    assert up.counts == ErrorCounts(tx_frames=5, rx_frames=5)


def test_a_controller() -> None:
    link = one(CAN0_250)
    assert (link.kind, link.virtual, link.up, link.state) == ("can", False, True, "ERROR-ACTIVE")
    assert (link.bitrate, link.sample_point, link.restart_ms, link.txqueuelen) == (250_000, 0.875, 0, 10)
    assert (link.counts.tec, link.counts.rec, link.counts.tx_frames, link.counts.rx_frames) == (0, 0, 5, 3)
    off = one(CAN0_BUS_OFF)
    assert (off.state, off.counts.tec) == ("BUS-OFF", 248)
    unset = one(CAN0_UNSET)
    assert (unset.up, unset.state, unset.bitrate, unset.sample_point) == (False, "STOPPED", None, None)


def test_controllers_with_more_to_say() -> None:
    text = changed(
        CAN0_250,
        {"stats64": {"rx": {"dropped": 2, "errors": 3}, "tx": {"dropped": 4, "errors": 5}}},
        data={"ctrlmode": ["FD"], "data_bittiming": {"bitrate": 2_000_000}},
    )
    link = one(text)
    assert (link.data_bitrate, link.modes) == (2_000_000, ("FD",))
    assert (link.counts.rx_dropped, link.counts.rx_errors) == (2, 3)
    assert (link.counts.tx_dropped, link.counts.tx_errors) == (4, 5)
    assert not one(LOOPBACK).is_can


def test_slcan_is_known_by_having_no_device() -> None:
    link = one(SLCAN)
    assert (link.kind, link.virtual, link.bitrate, link.state) == ("slcan", False, None, "ERROR-ACTIVE")
    (usb,) = parse_ip_links(SLCAN, {"slcan0": "mcba_usb"})
    assert (usb.kind, usb.driver) == ("can", "mcba_usb")
    told = changed(SLCAN, {}, data={"bittiming_bitrate": 500_000})
    assert one(told).bitrate == 500_000


@pytest.mark.parametrize("text", ["", "[]", "Device does not exist.", "{}", "[1]", "null"])
def test_what_is_no_link(text: str) -> None:
    assert parse_ip_links(text) == ()


def make_sysfs(root: Path, name: str, values: dict[str, str]) -> None:
    for file, value in values.items():
        path = root / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n", "ascii")


CAN_VALUES = {
    "type": "280",
    "flags": "0x40081",
    "operstate": "up",
    "mtu": "16",
    "tx_queue_len": "10",
    "statistics/tx_packets": "20",
    "statistics/rx_packets": "3",
    "statistics/tx_dropped": "1",
}


def test_sysfs_has_the_better_part(tmp_path: Path) -> None:
    make_sysfs(tmp_path, "can0", CAN_VALUES)
    (tmp_path / "drivers" / "kvaser_pci").mkdir(parents=True)
    (tmp_path / "can0" / "device").mkdir()
    (tmp_path / "can0" / "device" / "driver").symlink_to(tmp_path / "drivers" / "kvaser_pci")
    make_sysfs(tmp_path, "vcan0", {"type": "280", "flags": "0x80", "operstate": "down", "mtu": "72"})
    make_sysfs(tmp_path, "lo", {"type": "772", "flags": "0x9"})
    link = read_sysfs("can0", tmp_path)
    assert link is not None
    assert (link.kind, link.up, link.operstate, link.mtu, link.txqueuelen) == ("can", True, "UP", 16, 10)
    assert (link.driver, link.state, link.bitrate) == ("kvaser_pci", None, None)
    assert link.counts == ErrorCounts(tx_frames=20, rx_frames=3, tx_dropped=1)
    virtual = read_sysfs("vcan0", tmp_path)
    assert virtual is not None
    assert (virtual.kind, virtual.up, virtual.driver) == ("vcan", False, None)
    loopback = read_sysfs("lo", tmp_path)
    assert loopback is not None
    assert (loopback.is_can, loopback.kind) == (False, None)
    assert read_sysfs("can7", tmp_path) is None
    assert can_links(tmp_path) == ("can0", "vcan0")
    assert can_links(tmp_path / "nothing") == ()


def make_ip(folder: Path, script: str) -> None:
    program = folder / "ip"
    program.write_text(f"#!/bin/sh\n{script}\n", "ascii")
    program.chmod(0o755)


def test_reading_prefers_ip_and_falls_back_to_sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sysfs, programs = tmp_path / "net", tmp_path / "bin"
    programs.mkdir()
    make_sysfs(sysfs, "can0", CAN_VALUES)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    make_ip(programs, f"[ \"$*\" = '-details -statistics -json link show dev can0' ] && echo '{CAN0_250}'")
    link = read_link("can0", sysfs=sysfs)
    assert link is not None
    assert link.bitrate == 250_000
    make_ip(programs, "echo 'Device \"can0\" does not exist.' >&2; exit 1")
    link = read_link("can0", sysfs=sysfs)
    assert link is not None
    assert (link.bitrate, link.counts.tx_frames) == (None, 20)
    assert read_link("can7", sysfs=sysfs) is None


def test_a_real_interface_that_every_linux_has() -> None:
    link = read_link("lo")
    assert link is None or not link.is_can
