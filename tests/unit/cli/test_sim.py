from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from ess_can.bus.clock import pause
from ess_can.cli import embedded
from ess_can.cli.bus_options import BusOptions
from ess_can.cli.embedded import make_plant, plant_spec
from ess_can.errors import AdapterLost, BusError, InterfaceDown, TransmitStalled
from ess_can.signals.dbc import StationCodec
from ess_can.sim.bridge import Bridge
from ess_can.sim.flash import FlashError
from ess_can.sim.plant import Part, Plant, PlantSpec
from ess_can.sim.state_files import StateFiles
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.unit.cli.run import document, run

NODES = {"bmu1": "1.0.0", "comm_gateway": "1.0.0"}


@pytest.mark.parametrize("part", ["plant", "bms", "pcs"])
@pytest.mark.parametrize(
    "arguments", [(), ("-i", "pcan"), ("-c", "can0"), ("-i", "slcan", "-c", "COM3"), ("-i", "socketcand", "-c", "can0")]
)
def test_a_bus_that_may_be_real_is_refused(part: str, arguments: tuple[str, ...]) -> None:
    result = run("sim", part, *arguments, "--duration", 0.1, "--json")
    assert result.exit_code == 2
    told = document(result)
    assert told["error"]["name"] == "USAGE_ERROR"
    assert "--real-bus" in told["error"]["remedy"]


def test_real_bus_and_vcan_get_as_far_as_opening() -> None:
    for arguments in (("-i", "socketcan", "-c", "vcan7"), ("-i", "nonsense", "--real-bus")):
        assert run("sim", "plant", *arguments, "--duration", 0.1).exit_code == 11


@pytest.mark.parametrize(
    ("part", "said", "nodes"),
    [
        ("plant", "Simulated plant with 1 rack", NODES),
        ("bms", "Simulated BMS of 1 rack", NODES),
        ("pcs", "Simulated PCS for 1 rack", {}),
    ],
)
def test_it_runs_for_the_given_time_and_sums_up(part: str, said: str, nodes: dict[str, str]) -> None:
    result = run("sim", part, "-i", "virtual", "-c", "test_sim", "--racks", 1, "--duration", 0.3, "--json")
    assert result.exit_code == 0
    told = document(result)
    ended = f"The plant ended: {told['frames']} frames, 0 lost."
    assert result.stderr == f"{said} on virtual test_sim; Ctrl-C ends it.\nThe plant runs.\n{ended}\n"
    assert (told["result"], told["exit_code"], told["error"], told["lost"]) == ("ok", 0, None, 0)
    assert told["frames"] >= 4
    assert {node["name"]: node["version"] for node in told["nodes"]} == nodes


def test_without_a_part_it_says_what_there_is() -> None:
    result = run("sim")
    for part in ("plant", "bms", "pcs"):
        assert f"\n  {part} " in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_document(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_duration: float | None) -> None:
        os.kill(os.getpid(), number)
        await pause(60.0)

    monkeypatch.setattr("ess_can.cli.sim._wait", interrupted)
    result = run("sim", "plant", "-i", "virtual", "-c", "test_signals", "--racks", 1, "--json")
    assert result.exit_code == 0
    assert document(result)["result"] == "ok"
    assert result.stderr.splitlines()[-1].startswith("The plant ended: ")


def test_the_state_is_kept_and_its_errors_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    command = ("-i", "virtual", "-c", "test_state", "--racks", 1, "--duration", 0.1, "--state", folder, "--json")
    assert run("sim", "plant", *command).exit_code == 0
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"bmu1.mem", "comm_gateway.mem", "pcs.mem", "bms.lock", "pcs.lock"}
    assert run("sim", "bms", *command, "--speed", 100).exit_code == 0

    result = run("sim", "bms", *command, "--flash-kib", 1024)
    assert (result.exit_code, document(result)["error"]["name"]) == (21, "FILE_UNREADABLE")
    (folder / "pcs.mem").write_bytes(b"something else")
    result = run("sim", "pcs", *command)
    assert (result.exit_code, document(result)["error"]["name"]) == (21, "FILE_UNREADABLE")
    assert str(folder / "pcs.mem") in document(result)["error"]["remedy"]


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf"])
def test_a_speed_is_above_zero(speed: str) -> None:
    assert run("sim", "plant", "-i", "virtual", "--speed", speed, "--duration", 0).exit_code == 2


@pytest.mark.parametrize("duration", ["-1", "nan", "inf", "1e9"])
def test_a_duration_is_a_time(duration: str) -> None:
    assert run("sim", "plant", "-i", "virtual", "--duration", duration).exit_code == 2


def on_memory_bus(monkeypatch: pytest.MonkeyPatch, *errors: BusError, gap_s: float = 0.15) -> Result:
    """Run the PCS on a bus that reports these errors one after the other."""
    bus = MemoryBus()

    @asynccontextmanager
    async def opened(_self: BusOptions) -> AsyncIterator[MemoryBus]:
        yield bus

    async def fail(_duration: float | None) -> None:
        for error in errors:
            await pause(gap_s)
            bus.warn(error)
        await pause(gap_s)

    monkeypatch.setattr(BusOptions, "opened", opened)
    monkeypatch.setattr("ess_can.cli.sim._wait", fail)
    result = run("sim", "pcs", "-i", "virtual", "--json")
    assert bus.sent
    return result


DOWN, STALLED = InterfaceDown("vcan0 is down"), TransmitStalled("nobody acknowledges")


def test_a_plant_outlives_its_bus_and_tells_once_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    result = on_memory_bus(monkeypatch, DOWN, STALLED, DOWN)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[2:-1] == [
        "warning INTERFACE_DOWN: vcan0 is down",
        "warning TRANSMIT_STALLED: nobody acknowledges",
    ]


def test_each_outage_and_each_return_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    result = on_memory_bus(monkeypatch, DOWN, DOWN, gap_s=0.5)
    assert result.stderr.splitlines()[2:-1] == ["warning INTERFACE_DOWN: vcan0 is down", "The bus is back."] * 2


def test_without_its_adapter_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    result = on_memory_bus(monkeypatch, AdapterLost("pulled"))
    assert (result.exit_code, document(result)["error"]["name"]) == (12, "ADAPTER_LOST")


def beside_another(monkeypatch: pytest.MonkeyPatch, part: str, *others: Part) -> Result:
    """Run a part on a bus on which `others` are simulated already."""
    here, there = bus_pair()

    @asynccontextmanager
    async def opened(_self: BusOptions) -> AsyncIterator[MemoryBus]:
        plant = make_plant(replace(plant_spec(None, False, None, 1, 1), parts=frozenset(others)), StationCodec.load())
        bridge = Bridge(plant.wire, there)
        plant.start()
        await pause(0.01)
        yield here
        plant.stop()
        bridge.close()

    monkeypatch.setattr(BusOptions, "opened", opened)
    result = run("sim", part, "-i", "virtual", "--racks", 1, "--duration", 0.1, "--json")
    assert bool(here.sent) == (result.exit_code == 0)
    return result


@pytest.mark.parametrize(
    ("part", "other"), [("plant", Part.PCS), ("plant", Part.BMS), ("bms", Part.BMS), ("pcs", Part.PCS)]
)
def test_where_another_one_runs_already_it_does_not_start(
    part: str, other: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = beside_another(monkeypatch, part, other)
    assert (result.exit_code, document(result)["error"]["name"]) == (17, "ID_CONFLICT")
    assert "another channel" in document(result)["error"]["remedy"]
    assert "The plant runs." not in result.stderr


@pytest.mark.parametrize(("part", "other"), [("bms", Part.PCS), ("pcs", Part.BMS)])
def test_the_other_part_is_no_conflict(part: str, other: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert beside_another(monkeypatch, part, other).exit_code == 0


def test_monitors_tell_of_a_violation_at_once_and_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = ("sim", "plant", "-i", "virtual", "-c", "test_monitors", "--racks", 1, "--duration", 0.3, "--monitors")
    told = document(run(*watched, "--json"))
    assert (told["exit_code"], told["violations"]) == (0, [])

    def bad_plant(spec: PlantSpec, codec: StationCodec, state: StateFiles | None) -> Plant:
        plant = make_plant(spec, codec, state=state)
        node = next(iter(plant.nodes.values()))
        plant.on_step.append(lambda now: node.flash.on_refuse[-1](FlashError.BUSY))
        return plant

    monkeypatch.setattr(embedded, "make_plant", bad_plant)
    result = run(*watched, "--json")
    told = document(result)
    assert (result.exit_code, told["exit_code"], told["result"]) == (120, 120, "error")
    assert told["error"]["name"] == "INVARIANT_VIOLATED"
    assert any("RUNNING_BANK" in told["error"]["why"] and "bmu1" in violation for violation in told["violations"])
    assert "\nviolation at " in result.stderr
    assert told["frames"] > 0
    assert "error INVARIANT_VIOLATED: " in run(*watched).stderr
