from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ess_can.cli import embedded
from ess_can.journal.entries import Deed
from ess_can.signals.dbc import StationCodec
from ess_can.sim.plant import Plant, PlantSpec
from tests.unit.cli.run import BMU_UPGRADE, document, run
from tests.unit.journal.rig import begin, edit, opened


def test_for_people() -> None:
    result = run("status", "--sim")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("PCS           running, contactors closed, -")
    assert lines[1].startswith("rack 1        closed, charged 55.0 %, string ")
    assert lines[-1] == "An upgrade could start now."


def test_for_programs() -> None:
    result = run("status", "--sim", "--racks", 1, "--json")
    told = document(result)
    assert (result.exit_code, told["exit_code"], told["result"], told["allowed"]) == (0, 0, "ok", True)
    assert (told["error"], told["refusals"]) == (None, [])
    assert told["pcs"]["state"] == "running"
    assert [rack["rack"] for rack in told["racks"]] == [1]
    assert {node["name"]: node["version"] for node in told["nodes"]} == {"comm_gateway": "1.0.0", "bmu1": "1.0.0"}


def test_it_sends_nothing_and_tells_every_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    senders: set[str] = set()
    original = embedded.make_plant

    def make_plant(spec: PlantSpec, codec: StationCodec) -> Plant:
        plant = original(spec, codec)
        plant.wire.on_frame.append(lambda _frame, _at, sender: senders.add(sender))
        plant.racks[0].hardware.emergency_stop = True
        return plant

    monkeypatch.setattr(embedded, "make_plant", make_plant)
    result = run("status", "--sim", "--json")
    told = document(result)
    assert result.exit_code == told["exit_code"] == 43
    assert (told["result"], told["allowed"], told["error"]["name"]) == ("refused", False, "EMERGENCY_STOP")
    assert told["refusals"][0]["name"] == "EMERGENCY_STOP"
    assert senders
    assert "EMS" not in senders
    for_people = run("status", "--sim")
    assert "refused EMERGENCY_STOP: " in for_people.stderr
    assert "could start now" not in for_people.stdout


@pytest.mark.parametrize("command", ["status", "inventory"])
def test_a_bus_that_is_not_there(command: str) -> None:
    result = run(command, "-i", "socketcan", "-c", "can0", "--racks", 2, "--json")
    told = document(result)
    assert (told["result"], told["error"]["name"], result.exit_code) == ("error", "INTERFACE_UNAVAILABLE", 11)
    assert run(command, "-i", "virtual").exit_code == 2


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A journal with an upgrade that was killed while it locked the PCS."""
    journal = opened(tmp_path)
    begin(journal, "bmu 1.2.0")
    journal.intent(Deed.LOCK)
    journal.close()
    return tmp_path


def lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant as a killed upgrade leaves it."""
    original = embedded.make_plant

    def make_plant(spec: PlantSpec, codec: StationCodec) -> Plant:
        plant = original(replace(spec, running=False), codec)
        plant.pcs.locked = True
        return plant

    monkeypatch.setattr(embedded, "make_plant", make_plant)


def test_an_upgrade_that_did_not_end_is_told_with_what_to_type(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch)
    without = document(run("status", "--sim", "--json"))
    assert (without["error"]["name"], without["upgrade"]) == ("PLANT_LOCKED", None)
    told = document(run("status", "--sim", "--journal", unfinished, "--json"))
    assert (told["result"], told["exit_code"], told["allowed"]) == ("ok", 0, True)
    command = f"ess-can resume --journal {unfinished}"
    assert (told["upgrade"]["release"], told["upgrade"]["next_command"]) == ("bmu 1.2.0", command)
    assert told["upgrade"]["last_deed"].startswith("lock (begun, how it ended is not on record")
    lines = run("status", "--sim", "--journal", unfinished).stdout.splitlines()
    assert lines[0].startswith("upgrade 1, bmu 1.2.0, began 2031-05-04T03:02:")
    assert lines[1] == "it came as far as: the check; the last thing done: lock (begun, how it ended is not on record)"
    assert lines[2] == f"to go on with it, unless it is running now: {command}"
    assert lines[-1] == "The upgrade could be gone on with now."


def test_a_journal_that_was_changed_is_told_in_the_same_words_by_every_command(unfinished: Path) -> None:
    edit(unfinished, "UPDATE entries SET text = 'something else' WHERE seq = 1")
    commands = (
        ("status", "--sim"),
        ("upgrade", BMU_UPGRADE, "--sim"),
        ("resume", "--sim"),
        ("history", "--verify"),
        ("report", "last"),
    )
    told = [run(*command, "--journal", unfinished, "--json") for command in commands]
    assert {result.exit_code for result in told} == {117}
    errors = [document(result)["error"] for result in told]
    assert errors == [errors[0]] * len(commands)
    assert errors[0]["name"] == "AUDIT_BROKEN"
    assert "is not as it was written (changed by somebody, or damaged): entry 1: " in errors[0]["message"]
    assert "move its directory away" in errors[0]["remedy"]
    for_people = run("status", "--sim", "--journal", unfinished)
    assert (for_people.exit_code, "could start now" in for_people.stdout) == (117, False)
    assert for_people.stderr.startswith("refused AUDIT_BROKEN: ")


def test_a_changed_journal_is_named_before_what_the_plant_has_against_it(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch)
    edit(unfinished, "DELETE FROM entries WHERE seq = 1")
    told = document(run("status", "--sim", "--journal", unfinished, "--json"))
    assert (told["error"]["name"], told["exit_code"]) == ("AUDIT_BROKEN", 117)
    assert [error["name"] for error in told["refusals"]] == ["AUDIT_BROKEN", "PLANT_LOCKED"]


def test_a_journal_that_cannot_be_read_is_a_reason_against_an_upgrade(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").write_bytes(b"nothing of the kind" * 100)
    result = run("status", "--sim", "--journal", tmp_path, "--json")
    told = document(result)
    assert (told["result"], told["error"]["name"], result.exit_code) == ("refused", "JOURNAL_CORRUPT", 112)
    assert told["pcs"]["state"] == "running"
