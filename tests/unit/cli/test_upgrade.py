from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ess_can import errors
from ess_can.can.frame import CanFrame
from ess_can.cli import embedded, stopwatch
from ess_can.image.upgrade_file import MAX_FILE_SIZE
from ess_can.signals.dbc import StationCodec
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.trust.keys import KeyRing
from tests.unit.cli.run import BMU_UPGRADE, COMM_GATEWAY_UPGRADE, REPORT_KEYS, document, run
from tests.unit.journal.rig import stored
from tests.unit.trust.samples import FOLDER

VERDICTS: dict[str, Any] = tomllib.loads((FOLDER / "verdicts.toml").read_text())
BAD = [v for v in VERDICTS["verdict"] if v["expected"] not in ("ACCEPTED", "NOTHING_TO_DO")]


def exit_code_of(name: str) -> int:
    """By the error's stable name."""
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.EssCanError)]
    (found,) = {one.exit_code for one in classes if one("").name == name}
    return found


@dataclass
class Tap:
    """The plants that were built, and what the gateway sent on their wires."""

    plants: list[Plant] = field(default_factory=list)
    frames: list[CanFrame] = field(default_factory=list)

    def changes_plant(self) -> list[CanFrame]:
        """Frames that are neither ReadDataByIdentifier requests (22) nor flow controls."""
        requests = {plant.codec.diagnostic_ids(address)[0] for plant in self.plants for address in plant.nodes}
        return [f for f in self.frames if f.can_id not in requests or (f.data[0] >> 4 != 3 and f.data[1] != 0x22)]


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Tap:
    """Listens on every plant that a command makes; the calendar stands at the day of the verdicts."""
    made, original = Tap(), embedded.make_plant

    def make_plant(spec: PlantSpec, codec: StationCodec, firmware_keys: KeyRing = embedded.NO_KEYS) -> Plant:
        plant = original(spec, codec, firmware_keys)
        made.plants.append(plant)

        def on_frame(frame: CanFrame, _at: float, sender: str) -> None:
            if sender == "EMS":
                made.frames.append(frame)

        plant.wire.on_frame.append(on_frame)
        return plant

    monkeypatch.setattr(embedded, "make_plant", make_plant)
    monkeypatch.setattr(stopwatch, "today", lambda: date.fromisoformat(VERDICTS["today"]))
    return made


def require_refused(result: Any, tap: Tap, name: str) -> Any:
    """One document with this error and its exit code, nothing else, and no frame that changes the plant."""
    assert result.stderr == ""
    told = document(result)
    assert set(told) == REPORT_KEYS
    assert told["error"]["name"] == name
    assert told["error"]["message"]
    assert told["error"]["remedy"]
    assert result.exit_code == told["exit_code"] == exit_code_of(name)
    assert tap.changes_plant() == []
    return told


@pytest.mark.parametrize("verdict", BAD, ids=lambda v: Path(v["file"]).stem)
def test_a_bad_file_is_refused_before_anything_changes(tap: Tap, verdict: dict[str, str]) -> None:
    told = require_refused(
        run("upgrade", FOLDER / verdict["file"], "--sim", "--racks", 1, "--json"), tap, verdict["expected"]
    )
    if verdict["stage"] == "file":
        assert tap.plants == []
        assert told["result"] == "error"
    else:
        assert len(tap.plants) == 1
        assert told["result"] == "refused"


def test_what_is_no_file(tap: Tap, tmp_path: Path) -> None:
    require_refused(run("upgrade", tmp_path, "--sim", "--json"), tap, "FILE_UNREADABLE")
    require_refused(run("upgrade", tmp_path / "missing.essup", "--sim", "--json"), tap, "FILE_UNREADABLE")
    with (tmp_path / "sparse.essup").open("wb") as sparse:
        sparse.truncate(MAX_FILE_SIZE + 1)
    require_refused(run("upgrade", tmp_path / "sparse.essup", "--sim", "--json"), tap, "FILE_TOO_LARGE")
    assert tap.plants == []


def test_a_bad_file_for_people() -> None:
    result = run("upgrade", FOLDER / "bad/truncated.essup", "--sim")
    assert result.exit_code == 25
    assert result.stdout == ""
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error FILE_TRUNCATED", "what to do"]


def test_a_release_that_runs_already_changes_nothing(tap: Tap) -> None:
    result = run("upgrade", FOLDER / "bad/same-version.essup", "--sim", "--json")
    assert (result.exit_code, document(result)["result"]) == (0, "nothing_to_do")
    assert tap.changes_plant() == []


def test_a_dry_run_changes_nothing(tap: Tap) -> None:
    result = run("upgrade", BMU_UPGRADE, "--sim", "-n", "--json")
    told = document(result)
    assert (result.exit_code, told["result"], told["dry_run"]) == (0, "checked", True)
    assert told["expected_transfer_s"] > 15
    assert tap.frames
    assert tap.changes_plant() == []


def test_the_simulated_comm_gateway_is_upgraded() -> None:
    result = run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--racks", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "comm_gateway  1.0.0     1.1.0" in result.stdout
    assert "connected before, connected after" in result.stdout


@pytest.mark.parametrize(
    "flag", [("-i", "socketcan"), ("-c", "can0"), ("--dbc", "x.dbc"), ("--access-secret", "x"), ("--timing", "a=1")]
)
def test_a_simulated_plant_has_no_bus_of_yours(flag: tuple[str, str]) -> None:
    result = run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", *flag)
    assert result.exit_code == 2
    assert "Leave those out" in result.stderr


def test_a_release_of_ones_own_on_the_simulated_plant(tmp_path: Path) -> None:
    for name in ("firmware", "release"):
        assert run("image", "keys", "new", tmp_path / f"{name}.pem").exit_code == 0
    (tmp_path / "app.bin").write_bytes(bytes(range(256)) * 8)
    signed, upgrade = tmp_path / "app.signed.bin", tmp_path / "app.essup"
    facts = ("--node-type", "comm_gateway", "--hardware", "0x21", "--version", "2.0.0", "--security-counter", "5")
    assert (
        run("image", "sign", tmp_path / "app.bin", "-o", signed, "--key", tmp_path / "firmware.pem", *facts).exit_code
        == 0
    )
    what = ("--release", "Mine", "--version", "2.0.0", "--created", "2026-11-22")
    assert run("image", "build", signed, "-o", upgrade, "--key", tmp_path / "release.pem", *what).exit_code == 0
    keys = ("--trusted-key", tmp_path / "release.pub.pem", "--firmware-key", tmp_path / "firmware.pub.pem")
    told = document(run("upgrade", upgrade, "--sim", "--racks", 1, *keys, "--json"))
    assert (told["result"], told["nodes"][0]["runs"]) == ("done", "2.0.0")


def test_the_head_of_a_journal_on_the_disk_is_shown_to_be_kept_elsewhere(tmp_path: Path) -> None:
    named = ("--sim", "--racks", "1", "--journal", tmp_path / "j")
    head = document(run("upgrade", COMM_GATEWAY_UPGRADE, *named, "--json"))["head"]
    verified = document(run("history", "--journal", tmp_path / "j", "--verify", "--json"))
    assert head == verified["head"]
    again = run("upgrade", BMU_UPGRADE, *named).stdout
    (line,) = [line for line in again.splitlines() if line.startswith("head ")]
    assert run("history", "--journal", tmp_path / "j", "--verify", "--head", line.split()[1]).exit_code == 0
    assert line.split()[1] != head
    assert document(run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--racks", "1", "--json"))["head"] is None


def test_flags_that_contradict_each_other() -> None:
    result = run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--reconnect", "--hold-open")
    assert result.exit_code == 2
    assert "contradict" in result.stderr


def test_limits_from_a_file(tmp_path: Path) -> None:
    limits = tmp_path / "station.toml"
    limits.write_text("[policy]\nsoc_max_percent = 20.0\n")
    result = run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--config", limits, "--json")
    told = document(result)
    assert (result.exit_code, told["error"]["name"]) == (45, "SOC_OUT_OF_BAND")
    limits.write_text("[hv]\nlink_voltage_off_v = 900.0\n")
    assert run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--config", limits).exit_code == 2


def transfer_s(*arguments: object) -> float:
    """How long the image of the simulated comm gateway takes."""
    told = document(run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--racks", 1, "--json", *arguments))
    assert told["result"] == "done"
    return float(told["nodes"][0]["transfer_s"])


def test_a_cap_on_the_bus_load(tmp_path: Path) -> None:
    quick = transfer_s()
    capped = transfer_s("--max-bus-load", 5)
    assert capped > 3 * quick
    file = tmp_path / "station.toml"
    file.write_text("[bus]\nmax_load_percent = 5\n")
    assert transfer_s("--config", file) == capped
    assert transfer_s("--config", file, "--max-bus-load", 100) == quick
    file.write_text("[bus]\nyield_to_traffic = true\n")
    assert quick < transfer_s("--config", file) < 1.5 * quick
    assert transfer_s("--config", file, "--no-yield-to-traffic") == quick


def test_hold_open() -> None:
    result = run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--racks", 1, "--hold-open", "--json")
    told = document(result)
    assert (result.exit_code, told["result"], told["error"]["name"]) == (102, "held_open", "HELD_OPEN_BY_CHOICE")


CAPPED = ("-i", "virtual", "-c", "capped", "--racks", 2, "--bench", "--max-bus-load")


@pytest.mark.parametrize(
    ("arguments", "name", "says"),
    [
        (("-i", "socketcan", "-c", "can0", "--racks", 2, "--bench"), "INTERFACE_UNAVAILABLE", "can"),
        (("-i", "nonsense", "-c", "x", "--racks", 2, "--bench"), "INTERFACE_UNAVAILABLE", "socketcan"),
        (("-i", "virtual", "--bench"), "USAGE_ERROR", "--racks"),
        (("-i", "virtual", "--racks", 2, "--bench", "--bus-kwargs", "x"), "USAGE_ERROR", "--help"),
        (("-i", "virtual", "--racks", 2, "--bench", "--timing", "a=b"), "USAGE_ERROR", "--help"),
        (("-i", "virtual", "--racks", 2, "--bench", "--dbc", "/missing.dbc"), "DBC_MISMATCH", "--dbc"),
        (("-i", "virtual", "--racks", 2, "--access-secret", "/missing", "--bench"), "FILE_UNREADABLE", "-secret (or"),
        (("-i", "virtual", "--racks", 2, "--bench", "--trusted-key", "/missing"), "FILE_UNREADABLE", "--trusted-key"),
        (("-i", "virtual", "--racks", 2, "--bench", "--config", "/"), "FILE_UNREADABLE", "--config"),
        (("-i", "virtual", "--racks", 2), "TEST_KEY_REFUSED", "production key"),
        (("--racks", 2), "TEST_KEY_REFUSED", "production key"),
        ((*CAPPED, "40"), "USAGE_ERROR", "--bitrate"),
        ((*CAPPED, "40", "-b", 500_000, "--fd"), "USAGE_ERROR", "--data-bitrate"),
        ((*CAPPED, "40", "-b", 500_000, "--isotp", "kernel"), "INTERFACE_UNAVAILABLE", "--isotp user"),
        ((*CAPPED, "0.1", "-b", 500_000), "USAGE_ERROR", "at least 0.15 %"),
        ((*CAPPED, "40", "-b", 500_000, "--yield-to-traffic", "--filter", "100:7FF"), "USAGE_ERROR", "--help"),
        ((*CAPPED, "40", "-b", 500_000), "BUS_SILENT", "powered"),
    ],
    ids=str,
)
def test_what_keeps_an_upgrade_from_beginning(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], name: str, says: str
) -> None:
    monkeypatch.delenv("CAN_INTERFACE", raising=False)
    result = run("upgrade", BMU_UPGRADE, *arguments, "--json")
    told = document(result)
    assert set(told) == REPORT_KEYS
    outcome = "refused" if name == "BUS_SILENT" else "error"
    assert (told["result"], told["error"]["name"], result.exit_code) == (outcome, name, exit_code_of(name))
    assert says in told["error"]["remedy"]
    assert result.stderr == ""


def test_a_silent_bus() -> None:
    result = run("upgrade", BMU_UPGRADE, "-i", "virtual", "-c", "silent", "--racks", 2, "--bench", "--json")
    told = document(result)
    assert (told["result"], told["error"]["name"], result.exit_code) == ("refused", "BUS_SILENT", 14)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_plant_back_and_says_what_to_type(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ess_can", "upgrade", str(BMU_UPGRADE), "--sim", "--journal", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if " % of " in line:
                break
        process.send_signal(number)
        out, told = process.stdout.read(), process.stderr.read()
        assert process.wait(60) == 3
    assert "reconnect" in out
    assert "Failed: every node runs what it ran before, the plant was given back." in out
    assert "error INTERRUPTED: " in told
    assert told.endswith(f"\nresume: ess-can resume --journal {tmp_path}\n")
    assert "Traceback" not in told
    last = stored(tmp_path)[-2]
    assert last.text.startswith("stopped: failed, INTERRUPTED: ")


@pytest.mark.parametrize("command", ["demo", "resume"])
def test_a_signal_ends_the_demo_and_a_resume_the_same_way(command: str, tmp_path: Path) -> None:
    arguments = ["demo"]
    if command == "resume":
        test_a_signal_gives_the_plant_back_and_says_what_to_type(signal.SIGTERM, tmp_path)
        arguments = ["resume", "--journal", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "ess_can", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if " % of " in line:
                break
        process.send_signal(signal.SIGTERM)
        out, told = process.stdout.read(), process.stderr.read()
        assert process.wait(60) == 3
    assert "Failed: every node runs what it ran before, the plant was given back." in out
    assert ("\nresume: ess-can resume --journal" in told) == (command == "resume")


def piped_into_nobody(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Its exit code, and what it says on stderr, if its output is closed after the first line, as by ``head``."""
    with subprocess.Popen(
        [sys.executable, "-m", "ess_can", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        return process.wait(60), told


@pytest.mark.parametrize(
    ("options", "env"),
    [
        ((), {"PYTHONUNBUFFERED": ""}),
        ((), {"PYTHONUNBUFFERED": "1"}),
        ((), {"FORCE_COLOR": "1"}),
        (("--json",), {}),
    ],
    ids=["lines", "unbuffered", "live", "json"],
)
def test_a_closed_output_does_not_stop_an_upgrade(
    tmp_path: Path, options: tuple[str, ...], env: dict[str, str]
) -> None:
    if options:  # one document at the end: nobody is there from the start
        read, write = os.pipe()
        os.close(read)
        command = ["upgrade", str(BMU_UPGRADE), "--sim", "--journal", str(tmp_path), *options]
        done = subprocess.run(
            [sys.executable, "-m", "ess_can", *command], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
        os.close(write)
        code, told = done.returncode, done.stderr
    else:
        code, told = piped_into_nobody("upgrade", BMU_UPGRADE, "--sim", "--journal", tmp_path, env=env)
    assert (code, told) == (141, "")
    record = document(run("history", "--journal", tmp_path, "--json"))["upgrades"][-1]
    assert (record["result"], record["error"], record["report"]["hv_after"]) == ("done", None, "connected")


def test_an_upgrade_that_fails_keeps_its_code_and_its_words_though_its_output_is_closed(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").write_bytes(b"nothing of the kind" * 100)
    refused = ("upgrade", BMU_UPGRADE, "--sim", "--racks", 2, "--config", tmp_path / "soc.toml")
    (tmp_path / "soc.toml").write_text("[policy]\nsoc_min_percent = 90.0\n")
    code, told = piped_into_nobody(*refused)
    assert code == exit_code_of("SOC_OUT_OF_BAND")
    assert told.startswith("\nerror SOC_OUT_OF_BAND: ")
    assert "what to do: " in told


@pytest.mark.parametrize(
    "command", [("sim", "replay", "--seed", "7"), ("status", "--sim"), ("sim", "replay", "--seed", "7", "--json")]
)
def test_any_other_command_ends_without_a_word_if_its_output_is_closed(command: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "ess_can", *command], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
