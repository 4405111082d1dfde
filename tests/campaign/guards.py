"""Every safety guard, as a list; `guards_table` gives it for the documents."""

from __future__ import annotations

from tests.campaign import (
    guards_access,
    guards_boot,
    guards_client,
    guards_database,
    guards_evidence,
    guards_file,
    guards_gateway,
    guards_identity,
    guards_isolation,
    guards_journal,
    guards_latches,
    guards_memory,
    guards_node_gate,
    guards_pcs,
    guards_policy,
    guards_proof,
    guards_rack,
    guards_reconnect,
    guards_resume,
    guards_rules,
    guards_session,
    guards_upgrade,
)
from tests.campaign.guard import Guard, table

GUARDS: tuple[Guard, ...] = (
    *guards_proof.GUARDS,
    *guards_policy.GUARDS,
    *guards_identity.GUARDS,
    *guards_isolation.GUARDS,
    *guards_upgrade.GUARDS,
    *guards_reconnect.GUARDS,
    *guards_gateway.GUARDS,
    *guards_resume.GUARDS,
    *guards_client.GUARDS,
    *guards_rules.GUARDS,
    *guards_node_gate.GUARDS,
    *guards_evidence.GUARDS,
    *guards_session.GUARDS,
    *guards_access.GUARDS,
    *guards_memory.GUARDS,
    *guards_boot.GUARDS,
    *guards_rack.GUARDS,
    *guards_latches.GUARDS,
    *guards_pcs.GUARDS,
    *guards_journal.GUARDS,
    *guards_database.GUARDS,
    *guards_file.GUARDS,
)


def guards_table() -> str:
    """Every guard as a row of a table."""
    return table(GUARDS)
