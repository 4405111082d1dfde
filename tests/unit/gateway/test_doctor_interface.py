from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.link_facts import ErrorCounts, LinkFacts, parse_ip_links
from ess_can.bus.machine_facts import SerialPort
from ess_can.errors import BusOff, InterfaceDown, InterfaceUnavailable
from ess_can.gateway.doctor import Finding, Outcome
from ess_can.gateway.doctor_interface import judge_adapter, judge_link, judge_opening
from tests.unit.bus.link_outputs import CAN0_250, CAN0_BUS_OFF, CAN0_UNSET, LOOPBACK, SLCAN, VCAN_DOWN, VCAN_UP


def link_of(text: str) -> LinkFacts:
    return parse_ip_links(text)[0]


def judged(
    link: LinkFacts | None, channel: str = "can0", *, bitrate: int = 500_000, fd: bool = False, container: bool = False
) -> dict[str, Finding]:
    return {
        finding.name: finding for finding in judge_link(link, channel, bitrate=bitrate, fd=fd, in_container=container)
    }


def outcomes(found: dict[str, Finding]) -> dict[str, Outcome]:
    return {name: finding.outcome for name, finding in found.items() if finding.outcome is not Outcome.OK}


def test_vcan_up_is_well() -> None:
    found = judged(link_of(VCAN_UP), "vcan0", fd=True)
    assert outcomes(found) == {"bit rate": Outcome.NOT_APPLICABLE, "restart": Outcome.NOT_APPLICABLE}
    assert found["counters"].seen == "5 frames sent, 5 received, no errors"


def test_vcan_down() -> None:
    state = judged(link_of(VCAN_DOWN), "vcan0")["state"]
    assert isinstance(state.error, InterfaceDown)
    assert state.command == "ip link set vcan0 up"


def test_a_controller_as_it_comes() -> None:
    found = judged(link_of(CAN0_250))
    assert outcomes(found) == {"bit rate": Outcome.WARNING, "restart": Outcome.WARNING, "queue": Outcome.WARNING}
    assert found["bit rate"].seen == "250000 bit/s, sample point 87.5 %, not 500000"
    assert "type can bitrate 500000" in found["bit rate"].command
    assert "ENOBUFS is back-pressure" in found["queue"].seen
    assert found["queue"].command == "ip link set can0 txqueuelen 128"
    assert found["state"].seen == "up, ERROR-ACTIVE (TEC 0, REC 0)"
    assert "bit rate" not in outcomes(judged(link_of(CAN0_250), bitrate=250_000))


def test_a_controller_that_is_set_up_as_it_should_be() -> None:
    link = replace(link_of(CAN0_250), restart_ms=100, txqueuelen=128, driver="kvaser_pci")
    found = judged(link, bitrate=250_000)
    assert outcomes(found) == {}
    assert found["link"].seen == "can0 is of kind can, driver kvaser_pci"


def test_down_and_without_a_bit_rate() -> None:
    found = judged(link_of(CAN0_UNSET))
    assert isinstance(found["state"].error, InterfaceDown)
    assert found["state"].command == "ip link set can0 up txqueuelen 128 type can bitrate 500000 restart-ms 100"
    assert found["bit rate"].outcome is Outcome.NOT_APPLICABLE


def test_bus_off() -> None:
    found = judged(link_of(CAN0_BUS_OFF))
    assert isinstance(found["state"].error, BusOff)
    assert "TEC 248" in found["state"].seen
    assert found["state"].command.startswith("ip link set can0 down && ip link set can0 up ")


@pytest.mark.parametrize("state", ["ERROR-PASSIVE", "ERROR-WARNING"])
def test_a_controller_with_errors(state: str) -> None:
    finding = judged(replace(link_of(CAN0_250), state=state))["state"]
    assert (finding.outcome, state in finding.seen) == (Outcome.WARNING, True)


def test_fd_on_a_classic_link() -> None:
    finding = judged(link_of(CAN0_250), fd=True)["CAN FD"]
    assert isinstance(finding.error, InterfaceUnavailable)
    assert "fd on" in finding.command
    virtual = judged(replace(link_of(VCAN_UP), mtu=16), "vcan0", fd=True)["CAN FD"]
    assert "mtu 72" in virtual.command
    assert "CAN FD" not in judged(link_of(CAN0_250))


def test_a_queue_that_reorders() -> None:
    finding = judged(replace(link_of(CAN0_250), qdisc="fq_codel"))["queue"]
    assert (finding.outcome, "fq_codel" in finding.seen) == (Outcome.WARNING, True)
    assert "pfifo_fast" in finding.command


def test_counters_since_ever() -> None:
    counts = ErrorCounts(tx_frames=1, rx_frames=2, tx_dropped=3, bus_errors=4)
    finding = judged(replace(link_of(CAN0_250), counts=counts))["counters"]
    assert finding.outcome is Outcome.WARNING
    assert "3 frames dropped in sending, 4 bus errors" in finding.seen


def test_slcan_of_the_kernel() -> None:
    found = judged(link_of(SLCAN), "slcan0")
    assert outcomes(found) == {
        "bit rate": Outcome.NOT_APPLICABLE,
        "restart": Outcome.NOT_APPLICABLE,
        "queue": Outcome.WARNING,
    }
    assert "slcand" in found["bit rate"].seen
    down = judged(replace(link_of(SLCAN), up=False), "slcan0")
    assert down["state"].command == "ip link set slcan0 up txqueuelen 128"


def test_links_that_are_not_there() -> None:
    (missing,) = judged(None, "can0").values()
    assert isinstance(missing.error, InterfaceUnavailable)
    assert missing.command == "ess-can doctor --list"
    assert "--network host" not in missing.remedy
    assert "--network host" in judged(None, "can0", container=True)["link"].remedy
    assert judged(None, "vcan7")["link"].command.startswith("ip link add dev vcan7 type vcan")
    assert "no channel is named" in judged(None, "")["link"].seen
    (loopback,) = judged(link_of(LOOPBACK), "lo").values()
    assert loopback.seen == "lo is no CAN interface"


@pytest.mark.parametrize(
    ("interface", "outcome", "hint"),
    [
        ("udp_multicast", Outcome.WARNING, "loses frames"),
        ("virtual", Outcome.WARNING, "one process only"),
        ("gs_usb", Outcome.WARNING, "stops after failed transmissions"),
        ("slcan", Outcome.WARNING, "one byte a call"),
        ("pcan", Outcome.NOT_APPLICABLE, "pcan"),
    ],
)
def test_what_is_peculiar_to_adapters(interface: str, outcome: Outcome, hint: str) -> None:
    (finding,) = judge_adapter(interface, None)
    assert (finding.outcome, hint in finding.seen) == (outcome, True)


@pytest.mark.parametrize("interface", ["slcan", "serial", "canalystii"])
def test_an_adapter_that_confirms_nothing_holds_commands_up(interface: str) -> None:
    _, finding = judge_adapter(interface, None, confirms=False)
    assert (finding.outcome, finding.name) == (Outcome.WARNING, "confirmation")
    assert "two of them and 2 ms" in finding.seen
    assert "-i socketcan" in finding.remedy


@pytest.mark.parametrize(
    ("port", "hint", "command"),
    [
        (SerialPort("/dev/ttyACM0", False, False, None), "no serial port", "ess-can doctor --list"),
        (SerialPort("/dev/ttyACM0", True, False, "uucp"), "group uucp", 'sudo usermod -aG uucp "$USER"'),
        (SerialPort("/dev/ttyACM0", True, False, None), "group dialout", 'sudo usermod -aG dialout "$USER"'),
    ],
)
def test_serial_ports(port: SerialPort, hint: str, command: str) -> None:
    finding, adapter = judge_adapter("slcan", port)
    assert isinstance(finding.error, InterfaceUnavailable)
    assert (hint in finding.seen, finding.command) == (True, command)
    assert "/dev/ttyACM0" in adapter.command


def test_a_serial_port_that_may_be_opened() -> None:
    finding, _ = judge_adapter("slcan", SerialPort("/dev/ttyACM0", True, True, "dialout"))
    assert finding.outcome is Outcome.OK


def test_opening() -> None:
    assert judge_opening(None).outcome is Outcome.OK
    gone = InterfaceUnavailable("cannot open interface pcan", remedy="Plug it in.")
    finding = judge_opening(gone)
    assert (finding.error, finding.remedy) == (gone, "Plug it in.")
