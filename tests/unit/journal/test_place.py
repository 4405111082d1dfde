from __future__ import annotations

from pathlib import Path

import pytest

from ess_can.errors import JournalUnwritable
from ess_can.journal.place import default_directory

ALL = {
    "ESS_CAN_JOURNAL": "/srv/journal",
    "STATE_DIRECTORY": "/var/lib/ess-can:/var/lib/other",
    "XDG_STATE_HOME": "/somewhere/state",
    "HOME": "/somewhere",
}


@pytest.mark.parametrize(
    ("left_out", "root", "expected"),
    [
        ((), True, "/srv/journal"),
        (("ESS_CAN_JOURNAL",), True, "/var/lib/ess-can"),
        (("ESS_CAN_JOURNAL",), False, "/var/lib/ess-can"),
        (("ESS_CAN_JOURNAL", "STATE_DIRECTORY"), True, "/var/lib/ess-can"),
        (("ESS_CAN_JOURNAL", "STATE_DIRECTORY"), False, "/somewhere/state/ess-can"),
        (("ESS_CAN_JOURNAL", "STATE_DIRECTORY", "XDG_STATE_HOME"), False, "/somewhere/.local/state/ess-can"),
    ],
)
def test_the_first_that_is_set_counts(left_out: tuple[str, ...], root: bool, expected: str) -> None:
    environment = {name: value for name, value in ALL.items() if name not in left_out}
    assert default_directory(environment, root=root) == Path(expected)


def test_a_relative_directory_for_state_is_ignored() -> None:
    environment = {"XDG_STATE_HOME": "state", "USERPROFILE": "/somewhere"}
    assert default_directory(environment, root=False) == Path("/somewhere/.local/state/ess-can")


def test_without_any_it_must_be_named() -> None:
    with pytest.raises(JournalUnwritable) as caught:
        default_directory({"ESS_CAN_JOURNAL": ""}, root=False)
    assert "--journal" in caught.value.remedy
