"""The plant in one process and the gateway in another, in real time, over UDP multicast on this machine."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ess_can import resources

_GROUP = "239.74.163.2"
_COMMAND = (sys.executable, "-m", "ess_can")


def free_port() -> int:
    """A UDP port that nobody uses now: another run on this machine must not hear this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def bus() -> Iterator[tuple[str, ...]]:
    """Options of a bus with a plant of two racks on it."""
    options = ("-i", "udp_multicast", "-c", _GROUP, "--bus-kwargs", f"port={free_port()}")
    command = [*_COMMAND, "sim", "plant", *options, "--racks", "2", "--duration", "120", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as plant:
        try:
            assert plant.stderr is not None
            assert plant.stderr.readline().startswith("Simulated plant with 2 racks on udp_multicast")
            assert plant.stderr.readline() == "The plant runs.\n"
            yield options
        finally:
            plant.send_signal(signal.SIGINT)
            out, error_text = plant.communicate(timeout=20)
        assert plant.returncode == 0
        assert error_text == f"The plant ended: {json.loads(out)['frames']} frames, 0 lost.\n"
        assert json.loads(out)["lost"] == 0


def gateway(*arguments: str) -> tuple[int, Any]:
    """Exit code and document of a command."""
    done = subprocess.run([*_COMMAND, *arguments, "--json"], capture_output=True, text=True, timeout=55, check=False)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_status_inventory_and_an_upgrade(bus: tuple[str, ...]) -> None:
    code, told = gateway("status", *bus, "--racks", "2")
    assert (code, told["allowed"], len(told["nodes"])) == (0, True, 3), told["refusals"]

    release = str(resources.sample_path("comm_gateway-1.1.0.essup"))
    code, told = gateway("upgrade", release, *bus, "--racks", "2", "--bench")
    assert (code, told["result"]) == (0, "done"), told["error"]
    assert told["trace_hash"] is None
    (node,) = told["nodes"]
    assert (node["from_version"], node["to_version"]) == ("1.0.0", "1.1.0")
    assert node["bytes_sent"] >= node["bytes"]

    code, told = gateway("inventory", *bus, "--racks", "2")
    assert code == 0
    runs = {node["name"]: (node["version"], node["image"], node["bank"]) for node in told["nodes"]}
    assert runs["comm_gateway"] == ("1.1.0", "confirmed", 1)
    assert runs["bmu1"] == runs["bmu2"] == ("1.0.0", "confirmed", 0)


def test_ctrl_c_on_a_bus_gives_the_plant_back(bus: tuple[str, ...]) -> None:
    release = str(resources.sample_path("comm_gateway-1.1.0.essup"))
    command = [*_COMMAND, "upgrade", release, *bus, "--racks", "2", "--bench"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as upgrade:
        assert upgrade.stdout is not None
        for line in upgrade.stdout:
            if "transfer" in line:
                break
        upgrade.send_signal(signal.SIGINT)
        for line in upgrade.stdout:
            if "reconnect" in line:
                break
        upgrade.send_signal(signal.SIGINT)  # an impatient one: the plant is put back all the same
        out, error_text = upgrade.communicate(timeout=40)
    assert upgrade.returncode == 3, error_text
    assert "the plant was given back" in out
    assert "error INTERRUPTED: " in error_text
    code, told = gateway("status", *bus, "--racks", "2")
    assert (code, told["pcs"]["contactors"], told["pcs"]["remote_control"]) == (0, "closed", False), told["error"]
