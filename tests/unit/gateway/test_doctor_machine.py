from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from ess_can.bus.interfaces import NamedBus, Setting
from ess_can.bus.machine_facts import MachineFacts, Package
from ess_can.errors import DbcMismatch, FileUnreadable, InterfaceUnavailable, UsageError
from ess_can.gateway.doctor import Finding, Outcome
from ess_can.gateway.doctor_machine import ROOM_BYTES, judge_dbc, judge_machine, judge_name
from ess_can.signals.dbc import StationCodec

TODAY = date(2026, 5, 1)
PYTHON_CAN = Package("python-can", "4.6.1", "<5,>=4.6.1", True)
GOOD = MachineFacts(
    python="3.12.1",
    system="Linux 6.6.0",
    packages=(PYTHON_CAN, Package("cantools", "45.1.0", ">=41", True)),
    crc_extension=True,
    crcmod_twice=False,
    no_can="",
    no_isotp="",
    in_container=False,
    folder=Path("traces"),
    free_bytes=10 * ROOM_BYTES,
)


def judged(facts: MachineFacts, interface: str | None = "socketcan", today: date = TODAY) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge_machine(facts, interface, today)}


def test_a_good_machine() -> None:
    found = judged(GOOD)
    assert {finding.outcome for finding in found.values()} == {Outcome.OK}
    assert found["packages"].seen == "python-can 4.6.1, cantools 45.1.0"


@pytest.mark.parametrize(
    ("package", "error", "seen"),
    [
        (replace(PYTHON_CAN, version="3.3.4", fits=False), InterfaceUnavailable, "3.3.4 is installed"),
        (Package("cantools", None, ">=41", False), UsageError, "cantools>=41 is needed: it is not installed"),
    ],
)
def test_packages_that_do_not_fit(package: Package, error: type[Exception], seen: str) -> None:
    finding = judged(replace(GOOD, packages=(package,)))[package.name]
    assert finding.outcome is Outcome.PROBLEM
    assert isinstance(finding.error, error)
    assert seen in finding.seen
    assert finding.command == f"pip install '{package.name}{package.wanted}'"


def test_a_checkout_without_metadata() -> None:
    assert judged(replace(GOOD, packages=()))["packages"].outcome is Outcome.NOT_APPLICABLE


def test_crcmod() -> None:
    slow = judged(replace(GOOD, crc_extension=False))["crcmod"]
    assert (slow.outcome, "C extension is missing" in slow.seen) == (Outcome.WARNING, True)
    twice = judged(replace(GOOD, crcmod_twice=True))["crcmod"]
    assert (twice.outcome, "crcmod-plus" in twice.seen) == (Outcome.WARNING, True)


def test_a_kernel_without_can() -> None:
    facts = replace(GOOD, no_can="OSError: [Errno 97] Address family not supported by protocol", no_isotp="no")
    finding = judged(facts)["CAN sockets"]
    assert finding.outcome is Outcome.PROBLEM
    assert isinstance(finding.error, InterfaceUnavailable)
    assert finding.command.startswith("modprobe ")
    assert "udp_multicast" in finding.remedy
    assert "container" not in finding.remedy
    assert "container" in judged(replace(facts, in_container=True))["CAN sockets"].remedy
    for interface in ("udp_multicast", None):
        assert judged(facts, interface)["CAN sockets"].outcome is Outcome.NOT_APPLICABLE
    assert judged(facts)["kernel ISO-TP"].outcome is Outcome.NOT_APPLICABLE


def test_clock_and_disk() -> None:
    assert judged(GOOD, today=date(1970, 1, 1))["clock"].outcome is Outcome.WARNING
    full = judged(replace(GOOD, free_bytes=ROOM_BYTES - 1))["disk"]
    assert (full.outcome, "0.2 GB free in traces" in full.seen) == (Outcome.WARNING, True)


def test_the_dbc() -> None:
    codec = StationCodec.load()
    assert judge_dbc(codec).outcome is Outcome.OK
    assert f"{codec.fingerprint:#06x}" in judge_dbc(codec).seen
    mismatch = DbcMismatch("it does not fit")
    assert judge_dbc(mismatch).error is mismatch
    unreadable = judge_dbc(FileUnreadable("missing", why="why", remedy="install"))
    assert isinstance(unreadable.error, DbcMismatch)
    assert (unreadable.seen, unreadable.remedy) == ("missing: why", "install")


def test_who_names_the_bus() -> None:
    line = "the command line"
    named = NamedBus(Setting("socketcan", line), Setting("can0", line), Setting("250000", "can.conf"))
    assert judge_name(named).seen == "socketcan, channel can0 by the command line; bit rate 250000 by can.conf"
    nothing = judge_name(NamedBus(None, None, None))
    assert isinstance(nothing.error, InterfaceUnavailable)
    assert nothing.command == "ess-can doctor --list"
    broken = judge_name(NamedBus(None, None, None, "ParsingError: line 3"))
    assert isinstance(broken.error, InterfaceUnavailable)
    assert "line 3" in broken.seen
