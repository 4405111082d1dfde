from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.run import document, run
from tests.unit.journal.rig import SHA256, begin, edit, opened, whole_upgrade


@pytest.fixture
def two_upgrades(tmp_path: Path) -> Path:
    journal = opened(tmp_path)
    whole_upgrade(journal)
    begin(journal, "bmu 1.2.0")
    journal.close()
    return tmp_path


def test_for_people(two_upgrades: Path) -> None:
    result = run("history", "--journal", two_upgrades)
    assert (result.exit_code, result.stderr) == (0, "")
    head, done, unfinished, command, digest = result.stdout.splitlines()
    assert head.split() == ["id", "began", "ended", "release", "result", "error", "nodes"]
    assert done.split() == [
        *("1", "2031-05-04T03:02:02Z", "2031-05-04T03:02:13Z", "bmu", "1.1.0", "done", "-"),
        *("bmu1", "1.1.0,", "bmu2", "silent"),
    ]
    assert unfinished.split() == ["2", "2031-05-04T03:02:14Z", "not", "ended", "bmu", "1.2.0", "-", "-"]
    told = "upgrade 2 has not ended; to go on with it, unless it is running now: "
    assert command == f"{told}ess-can resume --journal {two_upgrades}"
    assert digest.startswith("head ")
    assert len(digest.split()[1]) == 64


def test_for_programs(two_upgrades: Path) -> None:
    told = document(run("history", "--journal", two_upgrades, "--json", "--verify"))
    assert (told["result"], told["exit_code"], told["error"]) == ("ok", 0, None)
    assert (told["journal"], told["verified_entries"]) == (str(two_upgrades), 13)
    done, unfinished = told["upgrades"]
    assert done["report"]["nodes"][0] == {"name": "bmu1", "runs": "1.1.0"}
    assert (done["result"], done["error"], done["hv_found"], done["next_command"]) == ("done", None, "connected", None)
    assert done["file_sha256"] == SHA256.hex()
    assert (done["began_at"], done["ended_at"]) == ("2031-05-04T03:02:02.000000Z", "2031-05-04T03:02:13.000000Z")
    assert [unfinished[key] for key in ("ended_at", "result", "error", "hv_found", "report")] == [None] * 5
    assert unfinished["next_command"] == f"ess-can resume --journal {two_upgrades}"


def test_the_usual_journal_needs_no_name_in_the_command(two_upgrades: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESS_CAN_JOURNAL", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(two_upgrades))
    assert (
        "upgrade 2 has not ended; to go on with it, unless it is running now: ess-can resume\n" in run("history").stdout
    )


def test_no_journal_has_no_upgrades(tmp_path: Path) -> None:
    result = run("history", "--journal", tmp_path / "none", "--verify")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"The journal {tmp_path / 'none'} has no upgrades."
    assert document(run("history", "--journal", tmp_path / "none", "--json"))["upgrades"] == []


def test_a_head_noted_earlier(two_upgrades: Path) -> None:
    head = document(run("history", "--journal", two_upgrades, "--json"))["head"]
    result = run("history", "--journal", two_upgrades, "--verify", "--head", head)
    assert result.exit_code == 0
    assert "verified 13 entries: each is as it was written, the head given among them" in result.stdout
    edit(two_upgrades, "DELETE FROM entries WHERE seq = 13")
    assert run("history", "--journal", two_upgrades, "--verify").exit_code == 0
    result = run("history", "--journal", two_upgrades, "--verify", "--head", head)
    assert (result.exit_code, result.stdout) == (117, "")
    assert "error AUDIT_BROKEN: " in result.stderr
    assert "cut or rewritten" in result.stderr


def test_an_entry_that_was_changed(two_upgrades: Path) -> None:
    edit(two_upgrades, "UPDATE entries SET text = 'all was well' WHERE seq = 8")
    assert run("history", "--journal", two_upgrades).exit_code == 0
    told = document(run("history", "--journal", two_upgrades, "--verify", "--json"))
    assert (told["exit_code"], told["error"]["name"]) == (117, "AUDIT_BROKEN")
    assert "entry 8:" in told["error"]["why"]


@pytest.mark.parametrize(
    "arguments", [("--head", "ab" * 32), ("--verify", "--head", "ab"), ("--verify", "--head", "xy" * 32)]
)
def test_a_head_that_cannot_be_checked(two_upgrades: Path, arguments: tuple[str, ...]) -> None:
    result = run("history", "--journal", two_upgrades, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "USAGE_ERROR" in result.stderr


def test_a_text_cannot_give_orders_to_the_terminal(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    begin(journal, "bmu\n\x1b[2J1.1.0")
    journal.end("done\x1b", "\x07", json.dumps({"nodes": [{"name": "\x1b[1m"}, 7]}))
    journal.close()
    for command in (("history",), ("report", "last")):
        result = run(*command, "--journal", tmp_path)
        assert result.exit_code == 0
        assert all(one.isprintable() for line in result.stdout.splitlines() for one in line)


@pytest.mark.parametrize("report", ["", "no JSON", "[]", "{}", '{"nodes": 7}'])
def test_a_report_that_tells_nothing_of_nodes(tmp_path: Path, report: str) -> None:
    journal = opened(tmp_path)
    begin(journal)
    journal.end("failed", "BUS_SILENT", report)
    journal.close()
    assert run("history", "--journal", tmp_path).stdout.splitlines()[1].split()[-2:] == ["failed", "BUS_SILENT"]
    assert run("report", "1", "--journal", tmp_path).exit_code == 0
