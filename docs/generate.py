"""Writes the generated parts of the documents from the facts in the code and the DBC.

Run it from the root, as ``python -m docs.generate``: the tables of the safety case come from the tests that prove them.
A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.  ``--check`` only tells whether one is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ess_can import errors, resources
from ess_can.campaign.faults.catalogue import EXAMPLES
from ess_can.campaign.monitors import Invariant
from ess_can.gateway import phases
from ess_can.gateway.config_file import Limits
from ess_can.sim.pcs import PCS_TRANSITIONS
from ess_can.sim.rack_states import RACK_TRANSITIONS
from ess_can.uds.target import Did, Rid
from tests.campaign.guards import guards_table
from tests.property.test_hv_gate_conditions import conditions_table
from tests.regression.catalogue import CATALOGUE, Section

DOCS = Path(__file__).resolve().parent
_BEGIN = "<!-- generated: {} -->\n"
_END = "<!-- end -->"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _database() -> Any:  # cantools' own type, which is imported only here
    import cantools

    return cantools.database.load_file(resources.dbc_path())


def frames() -> str:
    """Every frame of the DBC."""

    def rows() -> Iterator[tuple[object, ...]]:
        for message in sorted(_database().messages, key=lambda m: m.frame_id):
            attributes = message.dbc.attributes
            cycle = message.cycle_time
            data_id = attributes["E2EDataId"].value if "E2EDataId" in attributes else None
            yield (
                f"`{message.frame_id:03X}`",
                message.name,
                ", ".join(message.senders),
                message.length,
                f"{cycle} ms" if cycle else "",
                f"P05, `{data_id:04X}`" if data_id else "",
                (message.comment or "").split(". ")[0].split("\n")[0].rstrip("."),
            )

    return _table(("id", "frame", "from", "bytes", "cycle", "E2E, data ID", "what"), rows())


def signals() -> str:
    """Every signal of rack 1, EMS, PCS and the comm gateway; the other racks' frames are alike."""

    def rows() -> Iterator[tuple[object, ...]]:
        for message in sorted(_database().messages, key=lambda m: m.frame_id):
            if message.name.startswith("UDS_") or message.name[-1] in "2345678":
                continue
            for signal in message.signals:
                scale = signal.scale
                pages = ", ".join(map(str, signal.multiplexer_ids or ()))
                yield (
                    message.name,
                    signal.name + (f" (page {pages})" if pages else ""),
                    f"{signal.start}, {signal.length}",
                    "signed" if signal.is_signed else "",
                    f"{scale:g}" + (f" {signal.unit}" if signal.unit else "") if signal.unit else "",
                    "; ".join(f"{value} {name}" for value, name in (signal.choices or {}).items()),
                )

    return _table(("frame", "signal", "start bit, bits", "", "unit", "values"), rows())


def state_diagram() -> str:
    """The upgrade's transition table as a diagram."""
    return f"```mermaid\n{phases.mermaid()}\n```"


def _machine(transitions: Mapping[tuple[Any, Any], Any]) -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    merged: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in transitions.items():
        merged.setdefault((state.name, target.name), []).append(event.value)
    lines += [f"    {a} --> {b}: {' / '.join(events)}" for (a, b), events in merged.items()]
    return "\n".join([*lines, "```"])


def pcs_diagram() -> str:
    """The simulated PCS's transition table."""
    return _machine(PCS_TRANSITIONS)


def rack_diagram() -> str:
    """The simulated rack's transition table."""
    return _machine(RACK_TRANSITIONS)


def _error_classes() -> list[type[errors.EssCanError]]:
    found = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.EssCanError)]
    return sorted(found, key=lambda c: c.exit_code)


def exit_codes() -> str:
    """Every error with its exit code."""
    rows = (
        (c.exit_code, f"`{c('').name}`", (c.__doc__ or "").split("\n")[0], c.blame.value, c.default_remedy)
        for c in _error_classes()
    )
    return _table(
        ("code", "name", "what", "who acts", "what to do"), ((0, "", "done, or nothing to do", "", ""), *rows)
    )


def identifiers() -> str:
    """Data and routine identifiers."""
    dids = ((f"`22 {did:04X}`", did.name.lower().replace("_", " ")) for did in Did)
    rids = ((f"`31 01 {rid:04X}`", rid.name.lower().replace("_", " ")) for rid in Rid)
    return _table(("request", "meaning"), (*dids, *rids))


def _limit(value: float | bool | None) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def limits() -> str:
    """Every limit that a file may set, with its default."""
    usual = Limits()
    rows = (
        (f"`[{table.name}] {field.name}`", _limit(getattr(getattr(usual, table.name), field.name)))
        for table in fields(usual)
        if is_dataclass(getattr(usual, table.name))
        for field in fields(getattr(usual, table.name))
    )
    return _table(("key", "default"), rows)


def invariants() -> str:
    """The rules that the monitors watch."""
    return _table(("rule", "what holds at every instant"), ((rule.number, rule.sentence) for rule in Invariant))


def fault_texts() -> str:
    """An example of every fault that the simulator can be told."""
    return "\n".join(["```text", *EXAMPLES, "```"])


def _files(tests: Iterable[str]) -> str:
    """The tests of a row by their files, each once."""
    return ", ".join(f"`{path}`" for path in dict.fromkeys(test.split("::")[0] for test in tests))


def fault_catalogue() -> str:
    """Every row of the catalogue of faults, section by section."""
    parts: list[str] = []
    for section in Section:
        rows = (
            (row.id, row.fault, row.required, _files(row.tests), row.open)
            for row in CATALOGUE
            if row.section is section
        )
        parts += [f"### {section.title}", "", _table(("", "fault", "what happens", "shown by", "open"), rows), ""]
    return "\n".join(parts).rstrip()


PARTS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "frames": frames,
        "signals": signals,
        "state-diagram": state_diagram,
        "pcs-diagram": pcs_diagram,
        "rack-diagram": rack_diagram,
        "exit-codes": exit_codes,
        "identifiers": identifiers,
        "limits": limits,
        "invariants": invariants,
        "fault-texts": fault_texts,
        "fault-catalogue": fault_catalogue,
        "hv-gate-conditions": conditions_table,
        "guards": guards_table,
    }
)


def renew(text: str) -> str:
    """`text` with every generated part written anew.  Raises KeyError for a part that nobody generates."""
    pieces = text.split("<!-- generated: ")
    result = [pieces[0]]
    for piece in pieces[1:]:
        name = piece[: piece.index(" -->")]
        result += [_BEGIN.format(name), PARTS[name](), "\n", piece[piece.index(_END) :]]
    return "".join(result)


def main() -> int:
    """Write, or with --check compare; 1 if a part is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a generated part is stale")
    check = parser.parse_args().check
    stale = 0
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text("utf-8")
        renewed = renew(text)
        if renewed != text:
            stale += 1
            sys.stderr.write(f"{path.relative_to(DOCS.parent)} {'is stale: run make docs' if check else 'written'}\n")
            if not check:
                path.write_text(renewed, "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
