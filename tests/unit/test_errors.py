"""The error tree as a whole: what the command line and scripts rely on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ess_can import errors
from ess_can.errors import (
    BusError,
    BusInterrupted,
    BusUnusable,
    EssCanError,
    IsoTpError,
    JournalError,
    PlantRefusal,
    UdsError,
    UpgradeFileError,
)


def _family(root: type[EssCanError]) -> Iterator[type[EssCanError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _family(child)


ALL = list(_family(EssCanError))
RANGES: list[tuple[type[EssCanError], range]] = [
    (BusUnusable, range(100, 110)),
    (BusInterrupted, range(100, 110)),
    (BusError, range(5, 20)),
    (UpgradeFileError, range(20, 40)),
    (PlantRefusal, range(40, 70)),
    (IsoTpError, range(70, 80)),
    (UdsError, range(80, 90)),
    (JournalError, range(110, 120)),
]
OTHERS = {
    "EssCanError": range(1, 2),
    "UsageError": range(2, 3),
    "Interrupted": range(3, 4),
    "SimulationDeadlock": range(4, 5),
    "TraceUnwritable": range(5, 20),
    "TemporaryFileFailed": range(5, 20),
    "VerificationFailed": range(90, 100),
    "FlashWriteFailed": range(90, 100),
    "TrialBootFailed": range(90, 100),
    "ConfirmFailed": range(90, 100),
    "RolledBack": range(100, 110),
    "HeldOpen": range(100, 110),
    "HeldOpenByChoice": range(100, 110),
    "InvariantViolated": range(120, 130),
}


def documented_range(kind: type[EssCanError]) -> range:
    return next((codes for root, codes in RANGES if issubclass(kind, root)), OTHERS.get(kind.__name__, range(0)))


def test_the_whole_module_is_in_the_tree() -> None:
    classes = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, BaseException)]
    assert set(classes) - {Exception} == set(ALL)
    assert len(ALL) > 60


def test_exit_codes_are_unique() -> None:
    codes = [kind.exit_code for kind in ALL]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
class TestEachError:
    def test_its_exit_code_is_its_own_and_in_its_documented_range(self, kind: type[EssCanError]) -> None:
        assert "exit_code" in vars(kind)
        assert kind.exit_code in documented_range(kind)

    def test_it_has_a_docstring(self, kind: type[EssCanError]) -> None:
        assert vars(kind)["__doc__"].strip()

    def test_it_has_a_name_for_scripts(self, kind: type[EssCanError]) -> None:
        assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", kind("x").name)

    def test_it_says_what_why_and_what_to_do(self, kind: type[EssCanError]) -> None:
        error = kind("it happened", why="because")
        assert str(error) == "it happened: because"
        assert str(kind("it happened")) == "it happened"
        assert error.remedy.strip().endswith((".", "?"))
        assert kind("it happened", remedy="Do that.").remedy == "Do that."
        assert error.blame in errors.Blame


def test_names_are_unique() -> None:
    names = [kind("x").name for kind in ALL]
    assert len(set(names)) == len(names)
