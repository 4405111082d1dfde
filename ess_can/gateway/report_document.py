"""The report of an upgrade as one JSON document: what ``upgrade --json`` prints, and what the journal keeps."""

from __future__ import annotations

from ess_can.gateway.report import NodeRecord, Report

Document = dict[str, object]


def report_document(
    report: Report,
    *,
    wall_time_s: float | None = None,
    trace_hash: str | None = None,
    resume: str | None = None,
    head: str | None = None,
) -> Document:
    """The report as one JSON document; docs/json.md describes it.

    `resume` is the command that goes on with it, `head` the digest of the journal's last entry.
    """
    error, journal_error = report.error, report.journal_error
    return {
        "result": report.result.name.lower(),
        "exit_code": report.exit_code,
        "error": None if error is None else error.describe(),
        "dry_run": report.dry_run,
        "phases": [
            {"name": p.phase.name.lower(), "start": round(p.start_s, 6), "end": round(p.end_s, 6)}
            for p in report.phases
        ],
        "nodes": [_node_document(node) for node in report.nodes],
        "hv_before": report.hv_before.value,
        "hv_after": report.hv_after.value,
        "proved_safe": report.proved_safe,
        "hv_off_s": round(report.hv_off_s, 3),
        "transfer_s": round(report.transfer_s, 3),
        **_expected_document(report),
        "unavailable": list(report.losses),
        "bus_time_s": round(report.bus_time_s, 3),
        "wall_time_s": None if wall_time_s is None else round(wall_time_s, 3),
        "trace_hash": trace_hash,
        "upgrade_id": report.upgrade_id or None,
        "journal_error": None if journal_error is None else journal_error.describe(),
        "resume": resume,
        "head": head,
    }


def _expected_document(report: Report) -> Document:
    expected, duration_s = report.expected, report.expected_duration_s
    if expected is None or duration_s is None:
        keys = ("expected_transfer_s", "expected_hv_off_s", "expected_duration_s")
        return {**dict.fromkeys(keys), "flash_assumed": []}
    return {
        "expected_transfer_s": round(expected.transfer_s, 3),
        "expected_hv_off_s": round(expected.hv_off_s, 3),
        "expected_duration_s": round(duration_s, 3),
        "flash_assumed": [str(address) for address in expected.assumed],
    }


def _node_document(node: NodeRecord) -> Document:
    return {
        "name": str(node.address),
        "type": node.address.node_type.name.lower(),
        "from_version": str(node.from_version),
        "to_version": str(node.to_version),
        "runs": None if node.runs is None else str(node.runs),
        "bytes": node.image_bytes,
        "bytes_sent": node.bytes_sent,
        "transfer_s": round(node.transfer_s, 3),
        "wire_efficiency": None if node.wire_efficiency is None else round(node.wire_efficiency, 4),
    }
