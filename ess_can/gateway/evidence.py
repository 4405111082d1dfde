"""The evidence of a permit as text for the record: what each source said last, and how long ago."""

from __future__ import annotations

from ess_can.gateway.hv_gate import HvGate, Source, Standing
from ess_can.gateway.plant_view import PlantView


def evidence_of(gate: HvGate, view: PlantView, now: float) -> str:
    """Every source of the gate in one line."""
    return "high voltage is off: " + "; ".join(_text(standing, view, now) for standing in gate.standings(now))


def _text(standing: Standing, view: PlantView, now: float) -> str:
    name = (
        standing.source.value
        if standing.source is Source.PCS_STATUS
        else f"rack {standing.rack} " + (standing.source.value)
    )
    age = "never" if standing.last_good_at is None else f"{1000 * (now - standing.last_good_at):.0f} ms ago"
    return f"{name} {_said(standing, view)}({age}{', ' + standing.missing if standing.missing else ''})"


def _said(standing: Standing, view: PlantView) -> str:
    if standing.source is Source.PCS_STATUS and view.pcs is not None:
        pcs = view.pcs.value
        lock = "locked" if pcs.lock_acknowledged else "not locked"
        return f"{pcs.state.name}, {pcs.contactors.name}, {lock}, {_value(pcs.dc_current_a)} A "
    hv = view.rack(standing.rack).hv
    if standing.source is Source.RACK_STATUS and hv is not None:
        status = hv.value
        contactors = "/".join(each.name for each in (status.main_plus, status.main_minus, status.precharge))
        return f"{contactors}, {_value(status.link_voltage_v)} V, {_value(status.current_a)} A "
    return "disconnected " if standing.source is Source.RACK_NOTICE and not standing.missing else ""


def _value(measured: float | None) -> str:
    return "?" if measured is None else f"{measured:.1f}"
