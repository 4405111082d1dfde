"""docs/json.md names every key that commands print, and none that they do not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from ess_can.journal.entries import Deed
from tests.architecture.modules import ROOT
from tests.unit.cli.run import BMU_UPGRADE, REPORT_KEYS, document, run
from tests.unit.journal.rig import begin, opened, whole_upgrade

TEXT: Final = (ROOT / "docs/json.md").read_text("utf-8")
ROW: Final = re.compile(r"^\| (`[^|]+`) \| (.+) \|$", re.MULTILINE)
NAME: Final = re.compile(r"`([^`]+)`")
COMMON: Final = {"result", "exit_code", "error"}
BY_NAME: Final = {"ended", "faults", "errors", "edges"}  # objects whose keys are data
ELSEWHERE: Final = {"report"}  # the document of another command

ROWS: Final = {NAME.findall(names)[0]: said for names, said in ROW.findall(TEXT)}


def keys_within(value: Any) -> set[str]:
    """Every key inside of a value of a document."""
    if isinstance(value, list):
        return {key for each in value for key in keys_within(each)}
    if not isinstance(value, dict):
        return set()
    inner = {key for name, each in value.items() if name not in ELSEWHERE for key in keys_within(each)}
    return set(value) | inner


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with an upgrade that ended and one that did not."""
    directory = tmp_path_factory.mktemp("documented")
    kept = opened(directory)
    whole_upgrade(kept)
    begin(kept)
    kept.intent(Deed.LOCK)
    kept.close()
    return directory


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("status", ("--sim",)),
        ("history", ("--verify",)),
        ("report", ("last",)),
        ("sim campaign", ("--seeds", 1, "-j", 1)),
        ("sim replay", ("--seed", 1)),
        ("inventory", ("--sim",)),
    ],
)
def test_the_keys_of(command: str, arguments: tuple[object, ...], journal: Path) -> None:
    place = ("--journal", journal) if command in ("status", "history", "report") else ()
    told = document(run(*command.split(), *arguments, *place, "--json"))
    clauses = [clause.partition(":") for clause in ROWS[command].split(";")]
    outer = {name for before, _, _ in clauses for name in NAME.findall(before)}
    inner = {name for _, _, after in clauses for name in NAME.findall(after)}
    assert outer == set(told) - COMMON
    found = {key for name, value in told.items() if name not in {*BY_NAME, *COMMON} for key in keys_within(value)}
    if command == "report":  # its upgrade is told "as in `history`"
        inner |= set(NAME.findall(ROWS["history"]))
    assert found <= inner | ELSEWHERE


def test_the_keys_of_an_upgrades_report() -> None:
    table = TEXT.partition("## `demo`")[2].partition("\n## ")[0]
    documented = {
        name
        for names, _, _ in re.findall(r"^\| ([^|]+) \| ([^|]+) \| (.+) \|$", table, re.M)
        for name in NAME.findall(names)
    }
    assert documented == REPORT_KEYS
    checked = document(run("upgrade", BMU_UPGRADE, "--sim", "--dry-run", "--json"))
    assert set(checked) == REPORT_KEYS
    for key in ("nodes", "phases"):
        (said,) = [
            said
            for names, _, said in re.findall(r"^\| ([^|]+) \| ([^|]+) \| (.+) \|$", table, re.M)
            if names == f"`{key}`"
        ]
        assert keys_within(checked[key]) <= set(NAME.findall(said))


def test_every_document_says_how_it_ended() -> None:
    told = document(run("image", "show", BMU_UPGRADE, "--json"))
    assert {key: told[key] for key in COMMON} == {"result": "ok", "exit_code": 0, "error": None}
    assert set(told) - COMMON <= set(NAME.findall(ROWS["image show"]))
