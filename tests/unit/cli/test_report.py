from __future__ import annotations

from pathlib import Path

import pytest

from ess_can.journal.entries import Deed
from tests.unit.cli.run import document, run
from tests.unit.journal.rig import begin, edit, opened, whole_upgrade


@pytest.fixture
def two_upgrades(tmp_path: Path) -> Path:
    journal = opened(tmp_path)
    whole_upgrade(journal)
    begin(journal, "bmu 1.2.0")
    journal.intent(Deed.TRANSFER, "bmu2")
    journal.close()
    return tmp_path


def test_for_people(two_upgrades: Path) -> None:
    result = run("report", 1, "--journal", two_upgrades)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "upgrade    1, bmu 1.1.0"
    assert lines[2] == "found      high voltage connected"
    assert lines[4:16] == [
        "     1  2031-05-04T03:02:02Z  began     bmu 1.1.0",
        "     2  2031-05-04T03:02:03Z  found     connected",
        "     3  2031-05-04T03:02:04Z  phase     open contactors",
        "     4  2031-05-04T03:02:05Z  intends   open contactors (how)",
        "     5  2031-05-04T03:02:06Z  did       open contactors (what came of it)",
        "     6  2031-05-04T03:02:07Z  evidence  rack 1 says that it is open",
        "     7  2031-05-04T03:02:08Z  intends   bmu1: transfer (how)",
        "     8  2031-05-04T03:02:09Z  FAILED    bmu1: transfer (what came of it)",
        "     9  2031-05-04T03:02:10Z  intends   bmu1: transfer (how)",
        "    10  2031-05-04T03:02:11Z  did       bmu1: transfer (what came of it)",
        "    11  2031-05-04T03:02:12Z  note      the second attempt",
        "    12  2031-05-04T03:02:13Z  ended     done",
    ]
    assert lines[17:19] == ["result     done", "nodes      bmu1 1.1.0, bmu2 silent"]
    assert lines[19].startswith("head       ")


def test_one_that_has_not_ended(two_upgrades: Path) -> None:
    result = run("report", "last", "--journal", two_upgrades)
    assert "found      high voltage not yet looked at" in result.stdout
    assert "intends   bmu2: transfer\n" in result.stdout
    assert (
        f"result     not ended; to go on with it, unless it is running now: ess-can resume --journal {two_upgrades}\n"
        in result.stdout
    )


def test_for_programs(two_upgrades: Path) -> None:
    told = document(run("report", "1", "--journal", two_upgrades, "--json"))
    assert (told["result"], told["exit_code"], told["error"]) == ("ok", 0, None)
    assert told["upgrade"]["id"] == "1"
    assert told["upgrade"]["report"] is not None
    assert len(told["entries"]) == 12
    failed = told["entries"][7]
    digest = failed.pop("digest")
    assert len(digest) == 64
    assert failed == {
        "seq": 8,
        "at": "2031-05-04T03:02:09.000000Z",
        "kind": "result",
        "deed": "transfer",
        "node": "bmu1",
        "text": "what came of it",
        "ok": False,
        "answers": 7,
    }


def test_one_that_is_not_there(two_upgrades: Path) -> None:
    for arguments in (("9",), ("9", "--json")):
        result = run("report", *arguments, "--journal", two_upgrades)
        assert result.exit_code == 116
        assert "NO_SUCH_UPGRADE" in result.output


def test_a_changed_entry_is_shown_and_said_to_be_wrong(two_upgrades: Path) -> None:
    edit(two_upgrades, "UPDATE entries SET text = 'all was well' WHERE seq = 8")
    result = run("report", "1", "--journal", two_upgrades)
    assert result.exit_code == 117
    assert "FAILED    bmu1: transfer (all was well)" in result.stdout
    assert "error AUDIT_BROKEN: " in result.stderr
    assert "entry 8:" in result.stderr
    told = document(run("report", "1", "--journal", two_upgrades, "--json"))
    assert (told["result"], told["exit_code"], told["error"]["name"]) == ("error", 117, "AUDIT_BROKEN")
    assert len(told["entries"]) == 12
