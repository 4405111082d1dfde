"""A plant that keeps its memories in files is killed in the middle of a transfer: real processes, real SIGKILL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ess_can import resources
from tests.scenario.test_two_processes import free_port

_COMMAND = (sys.executable, "-m", "ess_can")
_RELEASE = str(resources.sample_path("comm_gateway-1.1.0.essup"))


class Bench:
    """A bus of this test's own, and the folder of a plant with one rack."""

    def __init__(self, folder: Path) -> None:
        self.bus = ("-i", "udp_multicast", "-c", "239.74.163.2", "--bus-kwargs", f"port={free_port()}", "--racks", "1")
        self._folder = folder

    def simulate(self, *flags: str) -> list[str]:
        state = ("--state", str(self._folder), "--speed", "20", "--duration", "120")
        return [*_COMMAND, "sim", "plant", *self.bus, *state, *flags]

    @contextmanager
    def plant(self) -> Iterator[subprocess.Popen[str]]:
        """A plant that runs, and is killed in the end."""
        with subprocess.Popen(self.simulate(), stderr=subprocess.PIPE, text=True) as plant:
            try:
                assert plant.stderr is not None
                for line in plant.stderr:
                    if line == "The plant runs.\n":
                        break
                yield plant
            finally:
                plant.kill()
                _, said = plant.communicate(timeout=60)
            assert said == ""

    def run(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and document of a command."""
        command = [*_COMMAND, *arguments, *self.bus, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def runs(self) -> dict[str, tuple[str, str, int]]:
        """Version, standing and bank of every node."""
        code, told = self.run("inventory")
        assert code == 0, told["error"]
        return {node["name"]: (node["version"], node["image"], node["bank"]) for node in told["nodes"]}


def test_killed_in_mid_transfer_it_boots_what_it_ran_and_takes_another_upgrade(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "plant")
    old = {"bmu1": ("1.0.0", "confirmed", 0), "comm_gateway": ("1.0.0", "confirmed", 0)}
    with bench.plant() as plant:
        other = subprocess.run(bench.simulate("--json"), capture_output=True, text=True, timeout=60, check=False)
        assert (other.returncode, json.loads(other.stdout)["error"]["name"]) == (2, "USAGE_ERROR")
        upgrade = [*_COMMAND, "upgrade", _RELEASE, *bench.bus, "--bench"]
        with subprocess.Popen(upgrade, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1) as ems:
            assert ems.stdout is not None
            for line in ems.stdout:
                if "% of " in line:
                    break
            plant.kill()
            ems.kill()
            ems.communicate(timeout=60)

    with bench.plant():
        assert bench.runs() == old
        code, told = bench.run("status")
        # The upgrade that ended so left the PCS locked, and can be gone on with.
        assert (told["pcs"]["contactors"], told["pcs"]["lock_acknowledged"], told["allowed"]) == ("open", True, True), (
            code
        )
        assert told["upgrade"]["next_command"].startswith("ess-can resume")
        code, told = bench.run("upgrade", _RELEASE, "--bench", "--reconnect")
        assert (code, told["result"], told["hv_after"]) == (0, "done", "connected"), told["error"]
        assert bench.runs() == {**old, "comm_gateway": ("1.1.0", "confirmed", 1)}

    with bench.plant():
        assert bench.runs() == {**old, "comm_gateway": ("1.1.0", "confirmed", 1)}
