from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.run import BMU_UPGRADE, COMM_GATEWAY_UPGRADE, REPORT_KEYS, document, python, run

_DYING = """
import os, signal, sys
from ess_can.cli.main import main
from ess_can.journal.journal import Journal

intent = Journal.intent

def dying(self, deed, *about):
    seq = intent(self, deed, *about)
    if deed.name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return seq

Journal.intent = dying
main(sys.argv[2:])
"""


def killed_at(deed: str, journal: Path, *options: str) -> None:
    """An upgrade of the simulated plant by a real process, killed when this deed is in its journal."""
    upgrade = ["upgrade", str(COMM_GATEWAY_UPGRADE), "--sim", *options, "--journal", str(journal)]
    assert python(["-c", _DYING, deed, *upgrade]).returncode == -signal.SIGKILL


def test_what_was_killed_is_said_by_status_and_resumed_with_the_options_it_had(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    killed_at("TRANSFER", journal, "--racks", "1", "--hold-open", "--slot-kib", "500")
    status = document(run("status", "--sim", "--journal", journal, "--json"))
    command = f"ess-can resume --journal {journal}"
    assert status["upgrade"]["next_command"] == command
    assert status["upgrade"]["phase"] == "program"
    assert "transfer comm_gateway" in status["upgrade"]["last_deed"]
    assert (
        f"to go on with it, unless it is running now: {command}" in run("status", "--sim", "--journal", journal).stdout
    )

    result = run("resume", "--journal", journal, "--json")
    told = document(result)
    assert set(told) == REPORT_KEYS
    assert (told["result"], told["exit_code"], told["upgrade_id"], told["resume"]) == ("held_open", 102, "1", None)
    assert [node["name"] for node in told["nodes"]] == ["comm_gateway"]
    assert document(run("status", "--sim", "--journal", journal, "--json"))["upgrade"] is None
    again = run("resume", "--journal", journal, "--json")
    assert (again.exit_code, document(again)["error"]["name"]) == (115, "NOTHING_TO_RESUME")


def test_what_is_typed_counts_against_what_was_recorded(tmp_path: Path) -> None:
    killed_at("TRANSFER", tmp_path, "--racks", "1", "--hold-open")
    result = run("resume", "--journal", tmp_path, "--reconnect")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "decision: goes on with" in result.stdout
    assert "connected before, connected after" in result.stdout


def test_given_up(tmp_path: Path) -> None:
    killed_at("TRANSFER", tmp_path, "--racks", "1")
    told = document(run("resume", "--roll-back", "--journal", tmp_path, "--json"))
    assert (told["result"], told["exit_code"], told["resume"]) == ("rolled_back", 100, None)


def test_a_kept_file_that_is_damaged_cannot_be_gone_on_with_but_given_up(tmp_path: Path) -> None:
    killed_at("TRANSFER", tmp_path, "--racks", "1")
    (kept,) = (tmp_path / "files").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    refused = run("resume", "--journal", tmp_path, "--json")
    assert document(refused)["error"]["name"] == "JOURNAL_CORRUPT"
    assert run("resume", "--roll-back", "--journal", tmp_path).exit_code == 100


def test_no_secret_is_kept_only_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.txt").write_text("00112233445566778899aabbccddeeff")
    journal = tmp_path / "j"
    bus = ("-i", "virtual", "-c", "nobody", "--racks", 1, "--access-secret", "secret.txt", "--bench")
    run("upgrade", BMU_UPGRADE, *bus, "--journal", journal)
    assert b"00112233" not in b"".join(file.read_bytes() for file in journal.rglob("*") if file.is_file())


def test_two_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        result = run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--journal", tmp_path, "--json")
        assert (result.exit_code, document(result)["error"]["name"]) == (114, "LOCKED")
        assert str(holder.pid) in json.dumps(document(result)["error"])
        holder.communicate("")


_HOLDER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from ess_can.journal.journal import Journal
journal = Journal.open(Path(sys.argv[1]), lambda: datetime.now(UTC))
print("held", flush=True)
sys.stdin.read()
"""
