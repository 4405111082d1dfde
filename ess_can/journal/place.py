"""Where the journal is unless somebody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ess_can.errors import JournalUnwritable

VARIABLE = "ESS_CAN_JOURNAL"
_NAME = "ess-can"


def default_directory(environment: Mapping[str, str], *, root: bool) -> Path:
    """The journal's directory for a process with this environment.

    In this order: what ``ESS_CAN_JOURNAL`` names; the service's own directory (``StateDirectory=`` of systemd); for
    root ``/var/lib/ess-can``; else the user's directory for state, as the XDG base directories have it.  Raises
    JournalUnwritable if nothing tells where that is.
    """
    if named := environment.get(VARIABLE):
        return Path(named)
    if of_service := environment.get("STATE_DIRECTORY"):
        return Path(of_service.split(":")[0])
    if root:
        return Path("/var/lib") / _NAME
    state = environment.get("XDG_STATE_HOME", "")
    if Path(state).is_absolute():  # a relative one is to be ignored
        return Path(state) / _NAME
    if home := environment.get("HOME") or environment.get("USERPROFILE"):
        return Path(home) / ".local" / "state" / _NAME
    raise JournalUnwritable(
        "there is no place for the journal",
        why="neither STATE_DIRECTORY nor XDG_STATE_HOME nor HOME is set",
        remedy="Name a directory with --journal.",
    )
