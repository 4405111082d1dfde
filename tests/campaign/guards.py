"""Every safety guard, as a list; `guards_table` gives it for the documents."""

from __future__ import annotations

from tests.campaign import (
    guards_memory,
    guards_node,
    guards_plant,
    guards_policy,
    guards_proof,
    guards_records,
    guards_upgrade,
)
from tests.campaign.guard import Guard, table

GUARDS: tuple[Guard, ...] = (
    *guards_proof.GUARDS,
    *guards_policy.GUARDS,
    *guards_upgrade.GUARDS,
    *guards_node.GUARDS,
    *guards_memory.GUARDS,
    *guards_plant.GUARDS,
    *guards_records.GUARDS,
)


def guards_table() -> str:
    """Every guard as a row of a table."""
    return table(GUARDS)
